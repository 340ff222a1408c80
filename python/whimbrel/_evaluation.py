"""Evaluation of the model between two steps: which samples are in which part, and what the parts add up to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from . import WhimbrelError, _native, _seeding
from ._dataset import Dataset, read


class Evaluation:
    """What a run evaluates.

    A step has as many parts as shards. A part is a run of neighbouring samples, and its batches do not depend on the
    number of workers, so neither do the bits of the result.

    Args:
        dataset: The validation data.
        loss: The mean loss of a batch.
        collate: Makes a batch of a list of samples.
        batch: The most samples in a batch.
        modules: They are in evaluation mode meanwhile.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        loss: Callable[[Any], torch.Tensor | float],
        collate: Callable[[list[Any]], Any],
        batch: int,
        modules: Iterable[nn.Module],
    ) -> None:
        if len(dataset) == 0:
            raise WhimbrelError("run.evaluate() got a data set without samples")
        self._dataset, self._loss, self._collate, self._batch = dataset, loss, collate, batch
        self._modules = list(modules)

    def perform(self, native: _native.Session | _native.Alone, seed: int) -> tuple[int, float] | None:
        """Evaluates this worker's parts.

        Returns:
            The steps applied to the state, and its mean validation loss; ``None`` when the generation broke.
        """
        step: int | None = None
        with self._evaluating():
            while (part := native.part()) is not None:
                step, index, parts = part
                _seeding.before_evaluating(seed, step, index)
                native.push_part(self._part(index, parts))
        val_loss = native.finish_evaluation()
        return None if step is None or val_loss is None else (step, val_loss)

    def _part(self, index: int, parts: int) -> float | None:
        """The part of the mean loss that comes from one part of the samples; ``None`` if it has none."""
        samples = len(self._dataset)
        begin, end = samples * index // parts, samples * (index + 1) // parts
        total: float | None = None
        for first in range(begin, end, self._batch):
            numbers = list(range(first, min(first + self._batch, end)))
            loss = self._loss(read(self._dataset, numbers, self._collate))
            if isinstance(loss, torch.Tensor) and loss.numel() != 1:
                raise WhimbrelError(
                    f"the loss for run.evaluate() returns a tensor of shape {list(loss.shape)}; it is to return the "
                    "mean over the samples of its batch, a scalar"
                )
            total = (total or 0.0) + float(loss) * len(numbers)
        return None if total is None else total / samples

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Without gradients, and with the modules in evaluation mode."""
        training = [child for module in self._modules for child in module.modules() if child.training]
        for module in self._modules:
            module.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            for child in training:
                child.training = True
