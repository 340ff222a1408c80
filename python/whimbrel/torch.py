"""PyTorch programs as Whimbrel workers.

::

    run = join(dataset, model=model, optimizer=optimizer, scheduler=scheduler)
    for step in run:
        for x, y in step:  # the shards of the step that fall to this worker
            step.backward(loss_of(model(x), y))
        clip_grad_norm_(model.parameters(), 1.0)  # .grad is that of the whole step, the same bits on every worker
        optimizer.step()
        scheduler.step()

Started by an agent, the program is a worker of its run. Started by hand, it trains alone by the run spec in its header
(``[tool.whimbrel]``) or in ``run.toml`` beside it, and ends with the same bits.

Importing this module seeds PyTorch, ``random`` and NumPy, so that all workers build the same model. A program may seed
them again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import Optimizer

from . import _refusals, _seeding
from ._dataset import Dataset, Reader, Sample_co
from ._loop import Run, Step

__all__ = ["Dataset", "Reader", "Run", "Step", "join"]

_seeding.seed_all(_seeding.INITIAL)


def join(
    dataset: Dataset[Sample_co] | Reader,
    *,
    model: nn.Module,
    optimizer: Optimizer,
    scheduler: Any = None,
    collate: Callable[[list[Any]], Any] | None = None,
    tokens_per_sample: int | None = None,
    spec: str | os.PathLike[str] | None = None,
    fingerprint: str | None = None,
    **parts: Any,
) -> Run[Sample_co]:
    """Joins the run that has started this process. Call it once, after the model and the optimizer are built.

    Args:
        dataset: The samples. Every worker has the same ones, under the same numbers. Or, for data that streams, a
            function: called with the step, counted from 0, and the number of a shard in it, it reads that shard and
            returns its batch, the same on every worker.
        model: What is trained. Every worker builds it with the same values.
        optimizer: Its parameters' gradients are summed.
        scheduler: A learning rate scheduler, or anything else with ``state_dict`` and ``load_state_dict``.
        collate: Makes a batch of a list of samples; PyTorch's ``default_collate`` if not given.
        tokens_per_sample: For the run's speed in tokens per second.
        spec: The run spec for a process that no coordinator has started. If not given, it is the table
            ``[tool.whimbrel]`` of the program's header, or else ``run.toml`` beside the program.
        fingerprint: What tells the data set apart from another one of its size, such as its version. If not given, the
            hashes of four samples. Every worker must have the same, also when the run is resumed. Give it for samples
            that take long to read, or that are not the same each time.
        parts: Further state under the names given: modules, optimizers, tensors, and what has a ``state_dict``. The
            names prefix those of the tensors in a checkpoint.

    Returns:
        The run, to iterate over.

    Raises:
        TypeError: A part cannot be trained or saved. The message says which, and why.
        whimbrel.WhimbrelError: The coordinator cannot be reached, or refuses this worker; or the run spec is invalid.
    """
    state: dict[str, Any] = {"model": model, "optimizer": optimizer, **parts}
    if scheduler is not None:
        state["scheduler"] = scheduler
    _refusals.check(state)
    return Run(dataset, state, collate=collate, tokens_per_sample=tokens_per_sample, spec=spec, fingerprint=fingerprint)
