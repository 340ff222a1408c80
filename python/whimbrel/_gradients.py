"""The flat gradient: what the workers sum after a step.

One tensor of float32 in host memory holds, one after another: the gradient of each parameter; the change of each
statistic that forward passes update (BatchNorm's); and for each parameter 1 if the shard has used it, so that the sum
counts the shards that have. ``.grad`` of a float32 parameter in host memory is a view into it, so nothing is gathered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from . import WhimbrelError, _memory, _optimizer
from ._state import parameter_names, plain_key

# The entry of the flat gradient that counts how many shards have used each parameter.
USED = "whimbrel.used"


class Gradients:
    """The gradients of the parameters that the optimizers update, and the statistics of the modules.

    Args:
        parts: As for :class:`whimbrel._state.State`.
    """

    def __init__(self, parts: Mapping[str, Any]) -> None:
        modules = {name: part for name, part in parts.items() if isinstance(part, nn.Module)}
        optimizers = {name: part for name, part in parts.items() if isinstance(part, Optimizer)}
        names = parameter_names(parts)
        parameters: dict[str, torch.Tensor] = {}
        for name, optimizer in optimizers.items():
            for place, parameter in enumerate(_optimizer.parameters(optimizer)):
                if parameter.requires_grad:
                    parameters[names.get(id(parameter), f"{name}.{place}")] = parameter
        self._names = list(parameters)
        self._parameters = list(parameters.values())
        self._statistics, self._constant = _buffers(modules)
        tensors = [*self._parameters, *self._statistics.values()]
        sizes = [_as_floats(tensor).numel() for tensor in tensors]
        self._elements = sum(sizes[: len(self._parameters)])  # of the gradients
        self._flat = torch.zeros(sum(sizes) + len(self._parameters), dtype=torch.float32)
        pieces = self._flat.split([*sizes, len(self._parameters)])
        # `.data`: each view counts by itself how often it is written.
        views = [piece.view(_as_floats(tensor).shape).data for piece, tensor in zip(pieces[:-1], tensors, strict=True)]
        self._views, self._changes = views[: len(self._parameters)], views[len(self._parameters) :]
        self._used = pieces[-1]
        self._written: list[int] = []
        self._before: list[torch.Tensor] = []
        self._versions: list[int] = []

    def layout(self) -> list[tuple[str, list[int]]]:
        """Names and shapes in the order of the flat gradient."""
        changes = zip(self._statistics, self._changes, strict=True)
        named = [*zip(self._names, self._views, strict=True), *changes, (USED, self._used)]
        return [(name, list(view.shape)) for name, view in named]

    def region(self) -> tuple[int, int]:
        """Address and size in bytes of the flat gradient."""
        return _memory.region(self._flat)

    def begin_shard(self) -> None:
        """Before a shard is computed: gradients of zero, and the statistics as the step began with them."""
        self._flat.zero_()
        for parameter, view in zip(self._parameters, self._views, strict=True):
            parameter.grad = view if _is_in_place(parameter) else None
        self._written = [view._version for view in self._views]
        self._before = [buffer.clone() for buffer in self._statistics.values()]
        self._versions = [buffer._version for buffer in self._constant.values()]

    def end_shard(self, step: int, shard: int, shards: int, *, may_be_zero: bool) -> None:
        """After a shard's backward pass: everything is in the flat gradient.

        Args:
            step: The step.
            shard: The shard's number.
            shards: The number of shards of the step.
            may_be_zero: The shard's weight is zero, so it had no backward pass.

        Raises:
            WhimbrelError: There is no gradient, or the forward pass has changed a buffer.
        """
        flags = []
        for view, parameter, written in zip(self._views, self._parameters, self._written, strict=True):
            grad = parameter.grad
            if grad is view:
                flags.append(view._version != written)
                continue
            flags.append(grad is not None)
            if grad is None:
                view.zero_()
            else:
                view.copy_(_as_floats(grad.to_dense() if grad.is_sparse else grad))
        if not any(flags) and not may_be_zero:
            raise WhimbrelError(
                f"shard {shard} of step {step} has left no gradient: remove zero_grad() between step.backward(loss) "
                "and the end of the loop over the step's batches; Whimbrel clears the gradients"
            )
        for (name, buffer), version in zip(self._constant.items(), self._versions, strict=True):
            if buffer._version != version:
                raise WhimbrelError(
                    f"the forward pass changes the buffer {name}: it would differ from worker to worker. Change it "
                    "after the loop over the step's batches, where every worker does the same"
                )
        self._used.copy_(torch.tensor(flags, dtype=torch.float32))
        for view, buffer, before in zip(self._changes, self._statistics.values(), self._before, strict=True):
            view.copy_((buffer - before).to(torch.float32)).mul_(1.0 / shards)
            buffer.copy_(before)

    def install(self, weight: float | None) -> None:
        """After the flat gradient holds the step's sum: ``.grad`` of each parameter, and the statistics.

        Args:
            weight: The sum of the shards' weights, if they have some.
        """
        if weight is not None:
            self._flat[: self._elements].div_(weight)
        used = self._used.tolist()
        for view, parameter, shards in zip(self._views, self._parameters, used, strict=True):
            if shards == 0:
                # As in a plain loop: the optimizer passes over a parameter that no sample has used.
                parameter.grad = None
            elif _is_in_place(parameter):
                parameter.grad = view
            else:
                value = torch.view_as_complex(view) if parameter.is_complex() else view
                parameter.grad = torch.empty_like(parameter).copy_(value)
        for view, buffer in zip(self._changes, self._statistics.values(), strict=True):
            buffer.add_((view if buffer.is_floating_point() else view.round()).to(buffer.dtype))

    def are_gone(self) -> bool:
        """Whether no parameter has a gradient, though the step has one."""
        return bool(self._used.any()) and all(parameter.grad is None for parameter in self._parameters)


def _is_in_place(parameter: torch.Tensor) -> bool:
    return parameter.dtype == torch.float32 and parameter.device.type == "cpu"


def _as_floats(tensor: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _buffers(modules: Mapping[str, nn.Module]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The buffers that forward passes may change, because each shard's change is averaged; and all others."""
    statistics: dict[str, torch.Tensor] = {}
    constant: dict[str, torch.Tensor] = {}
    for name, module in modules.items():
        for path, child in module.named_modules():
            averaged = isinstance(child, nn.modules.batchnorm._NormBase) and child.track_running_stats
            for key, buffer in child.named_buffers(recurse=False):
                full = plain_key(".".join(filter(None, [name, path, key])))
                (statistics if averaged else constant)[full] = buffer
    return statistics, constant
