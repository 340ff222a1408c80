"""What cannot be trained with equal bits, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer


def check(parts: Mapping[str, Any]) -> None:
    """Raises an error for parts that a run cannot have.

    Raises:
        TypeError: There is no optimizer, a part has no state, or it is of a kind that is refused.
    """
    if not any(isinstance(part, Optimizer) for part in parts.values()):
        raise TypeError("join() needs an optimizer: join(dataset, model=model, optimizer=optimizer)")
    if len(scalers := [name for name, part in parts.items() if isinstance(part, GradScaler)]) > 1:
        raise TypeError(f"{' and '.join(scalers)} are GradScalers: a step's loss is scaled by one")
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            _check_module(name, part)
        elif isinstance(part, Optimizer):
            _check_optimizer(name, part)
        elif not isinstance(part, torch.Tensor) and not hasattr(part, "state_dict"):
            kind = type(part).__name__
            raise TypeError(f"{name} is a {kind}, which has no state_dict(): a checkpoint cannot hold it")


def _check_module(name: str, module: nn.Module) -> None:
    for child in module.modules():
        kind = type(child).__name__
        if kind in ("DistributedDataParallel", "DataParallel"):
            raise TypeError(f"{name} is wrapped in {kind}: pass the module in it; Whimbrel sums the gradients")
        if kind == "FullyShardedDataParallel" or kind.startswith("FSDP"):
            raise TypeError(f"{name} is sharded by FSDP: not supported, each worker holds the whole model")


def _check_optimizer(name: str, optimizer: Optimizer) -> None:
    kind = type(optimizer).__name__
    if isinstance(optimizer, torch.optim.LBFGS):
        raise TypeError(f"{name} is {kind}, which computes the loss several times a step: not supported")
    if isinstance(optimizer, torch.optim.SparseAdam):
        raise TypeError(f"{name} is {kind}, which needs sparse gradients: workers sum dense ones; use Adam or Adagrad")
