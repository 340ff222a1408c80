"""The state of optimizers: most of it does not exist before the first step.

A checkpoint has the same layout from the first step to the last. So the layout of a state that does not exist yet is
found by one step of a *twin*: the same optimizer over tensors on the meta device, which have shapes and no memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.optim import Optimizer

ToCome = dict[torch.Tensor, dict[str, torch.Tensor]]


def parameters(optimizer: Optimizer) -> Iterator[torch.Tensor]:
    """All parameters, in the order of the groups."""
    for group in optimizer.param_groups:
        yield from group["params"]


def state_of(optimizer: Optimizer, parameter: torch.Tensor) -> dict[str, Any]:
    """The state for a parameter; empty before the first step. Does not create it."""
    return optimizer.state[parameter] if parameter in optimizer.state else {}


def state_to_come(optimizer: Optimizer) -> ToCome:
    """The tensors that the optimizer's first step makes, as zeros, for each parameter that has no state yet.

    Raises:
        TypeError: The optimizer's state holds collections, or its step needs more than gradients.
    """
    if all(state_of(optimizer, parameter) for parameter in parameters(optimizer)):
        return {}
    twin, originals = _step_of_twin(optimizer)
    found: ToCome = {}
    for other, state in twin.state.items():
        original = originals[other]
        if state_of(optimizer, original):
            continue
        tensors = {}
        for key, value in state.items():
            if isinstance(value, torch.Tensor):
                device = original.device if value.device.type == "meta" else value.device
                tensors[key] = torch.zeros_like(value, device=device)
            elif isinstance(value, (list, tuple, dict, set)):
                kind = type(optimizer).__name__
                raise TypeError(f"{kind} keeps a {type(value).__name__} named {key} per parameter: not supported")
        found[original] = tensors
    return found


def _step_of_twin(optimizer: Optimizer) -> tuple[Optimizer, dict[torch.Tensor, torch.Tensor]]:
    try:
        twin, originals = _twin(optimizer, lambda tensor: torch.empty_like(tensor, device="meta"))
        type(optimizer).step(twin)
    except (RuntimeError, NotImplementedError):
        # The optimizer looks at values: give it some.
        twin, originals = _twin(optimizer, lambda tensor: tensor.detach().clone())
        try:
            type(optimizer).step(twin)
        except Exception as error:
            kind = type(optimizer).__name__
            raise TypeError(f"{kind} cannot be used: a trial step with gradients of zero failed: {error}") from error
    return twin, originals


def _twin(
    optimizer: Optimizer, like: Callable[[torch.Tensor], torch.Tensor]
) -> tuple[Optimizer, dict[torch.Tensor, torch.Tensor]]:
    """The same optimizer, without state, over other tensors; and the parameter that each of these stands for."""
    twin: Any = object.__new__(type(optimizer))
    twin.__dict__.update(optimizer.__dict__)
    twin._optimizer_step_pre_hooks, twin._optimizer_step_post_hooks = {}, {}
    originals: dict[torch.Tensor, torch.Tensor] = {}
    groups = []
    for group in optimizer.param_groups:
        others = []
        for parameter in group["params"]:
            if parameter.requires_grad:
                other = like(parameter).requires_grad_()
                other.grad = torch.zeros_like(other)
                originals[other] = parameter
                others.append(other)
        copied = {key: torch.zeros_like(v) if isinstance(v, torch.Tensor) else v for key, v in group.items()}
        # The other implementations need memory. They make the same state.
        simple = {key: False for key in ("foreach", "fused") if key in group}
        groups.append({**copied, **simple, "params": others})
    twin.param_groups, twin.state = groups, defaultdict(dict)
    return twin, originals
