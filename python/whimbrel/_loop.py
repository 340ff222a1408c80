"""The training loop: a run is iterated for its steps, a step for the batches of this worker's shards."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch.optim import Optimizer
from torch.utils.data import default_collate

from . import Leave, WhimbrelError, _fingerprint, _native, _seeding
from ._ending import ending
from ._gradients import Gradients
from ._state import State

Sample_co = TypeVar("Sample_co", covariant=True)


class Dataset(Protocol[Sample_co]):
    """A data set of known length whose samples have numbers. ``__getitems__``, where there is one, reads a shard."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Sample_co: ...


class Step:
    """A step of the run.

    Iterating it gives the batches of this worker's shards. The loop ends when the gradients of all workers are summed:
    then ``.grad`` of each parameter is the gradient of the step's mean loss, the same bits on every worker. If other
    workers come or go meanwhile, the loop just brings more batches, maybe of a later step.

    Attributes:
        number: The step, counted from 0. Known from the first batch on.
        loss: The step's mean loss, the same on every worker. ``None`` until the loop over the batches has ended.
    """

    number: int | None
    loss: float | None

    def __init__(self, run: Run) -> None:
        self.number, self.loss = None, None
        self._run = run
        self._shard_loss: float | None = None
        self._iterator: Iterator[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        if self._iterator is not None:
            raise WhimbrelError("the batches of a step are given once: iterate over the step in one loop")
        self._iterator = self._batches()
        return self._iterator

    def backward(self, loss: torch.Tensor) -> None:
        """Adds the gradient of a shard's mean loss. Call it once for each batch, or more often to add up losses.

        Args:
            loss: A scalar: the mean over the samples of the batch.

        Raises:
            WhimbrelError: The loss is not a scalar, or has no gradient.
        """
        if loss.numel() != 1 or not loss.requires_grad:
            raise WhimbrelError(
                f"step.backward(loss) takes a scalar that was computed from the model, not one of shape "
                f"{list(loss.shape)} with requires_grad={loss.requires_grad}"
            )
        shards = self._run.shards
        self._shard_loss = (self._shard_loss or 0.0) + float(loss.detach()) / shards
        (loss * (1.0 / shards)).backward()

    @property
    def is_summed(self) -> bool:
        """Whether the loop over the batches has ended."""
        return self.loss is not None

    def _batches(self) -> Iterator[Any]:
        run = self._run
        while True:
            while (shard := run._native.shard()) is not None:
                self.number, index, samples = shard
                run._ending_is_at(self.number)
                batch = run._read(self.number, index, samples)
                run._gradients.begin_shard()
                _seeding.before_computing(run.seed, self.number, index)
                self._shard_loss = None
                yield batch
                run._check_process()
                if self._shard_loss is None:
                    raise WhimbrelError(
                        f"shard {index} of step {self.number} has no loss: call step.backward(loss) for each batch"
                    )
                run._gradients.end_shard(self.number, index, run.shards)
                run._native.push(self._shard_loss, *run._gradients.region())
            update = run._native.reduce(*run._gradients.region())
            if update is not None:
                self.number, self.loss = update
                run._ending_is_at(self.number)
                run._gradients.install()
                _seeding.before_update(run.seed, self.number)
                return
            # The generation broke, or the step is skipped. This step, or a later one, is next.
            run._advance(after=None)


class Run(Generic[Sample_co]):
    """A run that this process works for, or trains alone. Made by :func:`whimbrel.torch.join`.

    Iterating it gives the run's steps. The loop ends after the last one. A worker that the coordinator ends before that
    raises :class:`whimbrel.Leave`, so that the code after the loop does not run.

    Attributes:
        seed: The run's seed.
        steps: The number of steps of the whole run.
        shards: The number of shards of a step.
        global_batch: The number of samples of a step.
        threads: The number of threads with which PyTorch computes, on every worker.
        settings: ``[train.settings]`` of the run spec.
    """

    def __init__(
        self,
        dataset: Dataset[Sample_co],
        parts: Mapping[str, Any],
        *,
        collate: Callable[[list[Any]], Any] | None,
        tokens_per_sample: int | None,
        spec: str | os.PathLike[str] | None,
        fingerprint: str | None,
    ) -> None:
        self._dataset, self._collate = dataset, collate or default_collate
        self._gradients, self._state = Gradients(parts), State(parts)
        self._step: Step | None = None
        self._ending = ending()
        samples, layout = len(dataset), self._gradients.layout()
        self._native: _native.Session | _native.Alone
        if self._ending is None:
            self._native = _native.Alone(spec, _program(), samples, layout)
        else:
            self._native = self._ending.connect()
        context = json.loads(self._native.context())
        # Of the run, whatever the number of workers: one and two threads give other bits.
        self.threads: int = context["threads"]
        torch.set_num_threads(self.threads)
        if isinstance(self._native, _native.Session):
            found = _fingerprint.of_samples(dataset) if fingerprint is None else {"fingerprint": fingerprint}
            self._native.ready(samples, found, layout, self._state, _numerics(), tokens_per_sample)
        self.seed: int = context["seed"]
        self.steps: int = context["steps"]
        self.shards: int = context["shards"]
        self.global_batch: int = context["global_batch"]
        self.settings: dict[str, Any] = context["settings"]
        for part in parts.values():
            if isinstance(part, Optimizer):
                part.register_step_pre_hook(self._before_update)

    def __iter__(self) -> Iterator[Step]:
        return self

    def __next__(self) -> Step:
        self._check_process()
        last = self._step
        if last is not None and not last.is_summed:
            raise WhimbrelError(
                "the loop over a step's batches has not run to its end: write `for batch in step:` in the loop over "
                "the run, without break"
            )
        applied = None if last is None or last.number is None else last.number + 1
        if not self._advance(applied):
            raise StopIteration
        self._step = Step(self)
        return self._step

    # What a program may ask

    @property
    def is_first(self) -> bool:
        """Whether this worker has rank 0, which another one gets when it dies: the one to print."""
        membership = self._native.membership()
        return membership is not None and membership[0] == 0

    @property
    def workers(self) -> int:
        """The number of workers that compute this step; 0 while this one waits for a generation."""
        membership = self._native.membership()
        return 0 if membership is None else membership[1]

    def digest(self) -> str:
        """The BLAKE3 of the state, in hexadecimal digits: what ``whimbrel run`` reports for the same steps.

        Raises:
            WhimbrelError: A coordinator has started this process, and reports it.
        """
        if not isinstance(self._native, _native.Alone):
            raise WhimbrelError(
                "run.digest() is for a program without a coordinator; whimbrel run reports that of a run"
            )
        return self._native.digest(self._state)

    # Parts of the loop

    def _advance(self, after: int | None) -> bool:
        """Waits for the next step. False when the run is over and `after` steps, all of them, are applied.

        Raises:
            Leave: The worker is to end before that.
        """
        while (work := self._native.next()) is not None:
            if work == "step":
                return True
            self._state.restore_initial()
        if self._ending is not None:
            self._ending.is_over = True
        if after == self.steps:
            return False
        raise Leave

    def _read(self, step: int, index: int, samples: list[int]) -> Any:
        _seeding.before_reading(self.seed, step, index)
        try:
            many = getattr(self._dataset, "__getitems__", None)
            return self._collate(many(samples) if many else [self._dataset[sample] for sample in samples])
        except Exception as error:
            if sys.version_info >= (3, 11):
                error.add_note(f"raised while samples {samples} were read, shard {index} of step {step}")
            raise

    def _before_update(self, optimizer: Optimizer, args: object, kwargs: object) -> None:
        if self._step is None or not self._step.is_summed:
            raise WhimbrelError(
                "optimizer.step() before the step's gradients are summed: move it behind the loop over the"
                " step's batches"
            )
        if self._gradients.are_gone():
            raise WhimbrelError(
                "optimizer.step() finds no gradients: remove zero_grad() between the loop over the step's batches and "
                "optimizer.step(); Whimbrel clears the gradients"
            )

    def _check_process(self) -> None:
        if self._ending is not None:
            self._ending.check_process()

    def _ending_is_at(self, step: int) -> None:
        if self._ending is not None:
            self._ending.is_at(step)


def _program() -> str:
    """The path of the script that this process runs."""
    return os.path.abspath(sys.argv[0] if sys.argv and sys.argv[0] else "python")


def _numerics() -> str:
    """What the bits of PyTorch on this machine depend on."""
    capability = torch.backends.cpu.get_cpu_capability()
    return f"torch-{torch.__version__} {capability} threads-{torch.get_num_threads()}"
