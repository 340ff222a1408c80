"""The state of a program, as a checkpoint holds it: tensors by name, and one tensor of bytes for plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from . import _canonical, _memory, _optimizer

# The tensor with the plain values: learning rates, counters of schedulers.
VALUES = "whimbrel.values"
# The plain value that says that the program has ended a run of so many steps with the state. A run of another number of
# steps goes on from it. No part can have the name.
IS_LAST = "whimbrel.is_last"
# A copy of the initial state is kept up to this size, in bytes: a run that loses all workers before its first
# checkpoint begins again from it.
MAX_INITIAL = 1 << 28


class State:
    """Lists the tensors of the parts for the session, and takes over what the session has written to them.

    Args:
        parts: Modules, optimizers, tensors, and anything else with ``state_dict`` and ``load_state_dict``, by the name
            that prefixes their tensors in a checkpoint.

    Attributes:
        steps: The number of steps of the whole run; 0 until it is known.
        is_last: The run ends with this state, though its spec has more steps. A part of the state.
    """

    def __init__(self, parts: Mapping[str, Any]) -> None:
        self.steps, self.is_last = 0, False
        self._parts = dict(parts)
        self._to_come = {
            name: _optimizer.state_to_come(part) for name, part in parts.items() if isinstance(part, Optimizer)
        }
        # Copies of tensors that are not contiguous in host memory.
        self._copies: dict[str, torch.Tensor] = {}
        # What was listed last. It keeps the tensors alive.
        self._listed: dict[str, torch.Tensor] = {}
        # Room for values that grow, such as a scheduler's list of losses.
        room = max(4096, 1 << (2 * len(self._values())).bit_length())
        self._blob = torch.zeros(room, dtype=torch.uint8)
        self._initial = self._copy_of_all()

    def listed(self) -> list[tuple[str, str, list[int], int, int]]:
        """Name, dtype, shape, address and size in bytes of each tensor: what the extension module asks for.

        Raises:
            TypeError: No checkpoint can hold a tensor or a value.
            ValueError: The plain values have outgrown their room.
        """
        self._gather()
        return [_memory.listed(name, tensor) for name, tensor in self._memory()]

    def written(self) -> None:
        """Takes over a state that was received or restored into the listed memory."""
        for name, copy in self._copies.items():
            _as_real(self._listed[name]).copy_(copy)
        plain = _canonical.loads(bytes(self._blob.tolist()).rstrip(b"\0"))
        self.is_last = plain.pop(IS_LAST, None) == self.steps
        for name, values in plain.items():
            part = self._parts[name]
            if isinstance(part, Optimizer):
                self._restore_optimizer(name, part, values)
            else:
                part.load_state_dict(_with_tensors(values, name, self._listed))

    def restore_initial(self) -> None:
        """Makes the state again what it was when :func:`whimbrel.torch.join` was called.

        Raises:
            RuntimeError: The state is larger than :data:`MAX_INITIAL`.
        """
        if self._initial is None:
            raise RuntimeError(
                f"the run begins anew, and this worker has kept no copy of its initial state, which is larger than "
                f"{MAX_INITIAL >> 20} MiB; a new worker begins anew"
            )
        self._gather()
        for name, tensor in self._memory():
            tensor.copy_(self._initial[name])
        self.written()

    # Listing

    def _gather(self) -> None:
        """Brings what is not listed in place to where it is listed."""
        for name, to_come in self._to_come.items():
            for parameter in [p for p in to_come if _optimizer.state_of(self._parts[name], p)]:
                del to_come[parameter]
        self._listed = {}
        for name, tensor in self._named():
            self._listed[name] = tensor
            real = _as_real(tensor)
            if not _memory.is_plain(real):
                copy = self._copies.get(name)
                if copy is None:
                    copy = self._copies[name] = torch.empty(real.shape, dtype=real.dtype)
                copy.copy_(real)
        data = self._values()
        if len(data) > len(self._blob):
            raise ValueError(
                f"the plain values of the state (numbers and strings, not tensors) have grown to {len(data)} bytes, "
                f"beyond the {len(self._blob)} that a checkpoint of this run has for them; keep long lists in tensors"
            )
        self._blob.zero_()
        self._blob[: len(data)] = torch.tensor(list(data), dtype=torch.uint8)

    def _memory(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Names, and tensors whose memory is the session's to read and write."""
        yield VALUES, self._blob
        for name, tensor in self._listed.items():
            yield name, self._copies.get(name, _as_real(tensor))

    def _copy_of_all(self) -> dict[str, torch.Tensor] | None:
        self._gather()
        tensors = dict(self._memory())
        if sum(tensor.nbytes for tensor in tensors.values()) > MAX_INITIAL:
            return None
        return {name: tensor.clone() for name, tensor in tensors.items()}

    def _named(self) -> Iterator[tuple[str, torch.Tensor]]:
        names = parameter_names(self._parts)
        for name, part in self._parts.items():
            if isinstance(part, torch.Tensor):
                yield name, part.detach()
            elif isinstance(part, nn.Module):
                for key, tensor in _tensors_of(part):
                    yield f"{name}.{plain_key(key)}", tensor.detach()
            elif isinstance(part, Optimizer):
                for key, tensor in self._optimizer_tensors(name, part, names):
                    yield f"{name}.{key}", tensor.detach()
            else:
                for key, tensor in _tensors_in(part.state_dict()):
                    yield f"{name}.{key}", tensor.detach()

    def _optimizer_tensors(
        self, name: str, optimizer: Optimizer, names: Mapping[int, str]
    ) -> Iterator[tuple[str, torch.Tensor]]:
        to_come = self._to_come[name]
        for number, group in enumerate(optimizer.param_groups):
            for key, value in group.items():
                if isinstance(value, torch.Tensor):
                    yield f"group{number}.{key}", value
            for place, parameter in enumerate(group["params"]):
                tensors = {**to_come.get(parameter, {}), **_optimizer.state_of(optimizer, parameter)}
                prefix = names.get(id(parameter), f"group{number}.{place}")
                for key in sorted(tensors):
                    if isinstance(tensors[key], torch.Tensor):
                        yield f"{prefix}.{key}", tensors[key]

    # Plain values

    def _values(self) -> bytes:
        values: dict[str, object] = {IS_LAST: self.steps} if self.is_last else {}
        for name, part in self._parts.items():
            if isinstance(part, Optimizer):
                states = [_optimizer.state_of(part, parameter) for parameter in _optimizer.parameters(part)]
                groups = [
                    {key: value for key, value in group.items() if key != "params"} for group in part.param_groups
                ]
                values[name] = {
                    "groups": [_without_tensors(group) for group in groups],
                    "begun": [bool(state) for state in states],
                    "plain": [{k: v for k, v in state.items() if not isinstance(v, torch.Tensor)} for state in states],
                }
            elif not isinstance(part, (nn.Module, torch.Tensor)):
                values[name] = _without_tensors(part.state_dict())
        return _canonical.dumps(values)

    def _restore_optimizer(self, name: str, optimizer: Optimizer, values: dict[str, Any]) -> None:
        for group, saved in zip(optimizer.param_groups, values["groups"], strict=True):
            group.update({key: value for key, value in saved.items() if not isinstance(group.get(key), torch.Tensor)})
        parameters = list(_optimizer.parameters(optimizer))
        for parameter, begun, plain in zip(parameters, values["begun"], values["plain"], strict=True):
            if not begun:
                state = optimizer.state.pop(parameter, {})
                tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
                if tensors:
                    self._to_come[name][parameter] = tensors
                continue
            state = optimizer.state[parameter]
            state.update(self._to_come[name].pop(parameter, {}))
            state.update(plain)


def parameter_names(parts: Mapping[str, Any]) -> dict[int, str]:
    """The names of the modules' parameters by ``id``: what a checkpoint calls them."""
    modules = {name: part for name, part in parts.items() if isinstance(part, nn.Module)}
    return {
        id(p): f"{name}.{plain_key(key)}" for name, module in modules.items() for key, p in module.named_parameters()
    }


def plain_key(key: str) -> str:
    """The name of a parameter or buffer without what ``torch.compile`` puts before it."""
    return key.replace("_orig_mod.", "")


def _tensors_of(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """The parameters, and the buffers that are part of the module's state."""
    yield from module.named_parameters()
    saved = module.state_dict(keep_vars=True)
    yield from ((key, buffer) for key, buffer in module.named_buffers() if key in saved)


def _as_real(tensor: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _children(tree: object) -> Iterator[tuple[str, object]]:
    if isinstance(tree, Mapping):
        yield from ((str(key), value) for key, value in tree.items())
    elif isinstance(tree, (list, tuple)):
        yield from ((str(key), value) for key, value in enumerate(tree))


def _tensors_in(tree: object, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    for key, value in _children(tree):
        if isinstance(value, torch.Tensor):
            yield prefix + key, value
        else:
            yield from _tensors_in(value, f"{prefix}{key}.")


def _without_tensors(tree: Any) -> Any:
    if isinstance(tree, torch.Tensor):
        return None
    if isinstance(tree, Mapping):
        return {key: _without_tensors(value) for key, value in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(_without_tensors(value) for value in tree)
    return tree


def _with_tensors(tree: Any, path: str, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The inverse of `_without_tensors`: the tensors come back by their names."""
    if tree is None:
        return tensors.get(path)
    if isinstance(tree, dict):
        return {key: _with_tensors(value, f"{path}.{key}", tensors) for key, value in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(_with_tensors(value, f"{path}.{key}", tensors) for key, value in enumerate(tree))
    return tree
