"""The training loop: a run is iterated for its steps, a step for the batches of this worker's shards."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.utils.data import default_collate

from . import Leave, NonfiniteGradient, WhimbrelError, _native, _seeding
from ._dataset import Dataset, Reader, Sample_co, Source
from ._ending import ending
from ._evaluation import Evaluation
from ._gradients import Gradients
from ._state import State


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
        self._shard_weight: float | None = None
        self._iterator: Iterator[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        if self._iterator is not None:
            raise WhimbrelError("the batches of a step are given once: iterate over the step in one loop")
        self._iterator = self._batches()
        return self._iterator

    def backward(self, loss: torch.Tensor, *, weight: float | torch.Tensor | None = None) -> None:
        """Adds the gradient of a shard's mean loss. Call it once for each batch, or more often to add up losses.

        A ``GradScaler`` that is a part of the run scales the gradient, not :attr:`loss`.

        Args:
            loss: A scalar: the mean over the samples of the batch.
            weight: For a mean over something else, such as tokens: how many of them the batch has. A number of at least
                0. The step's gradient and loss are then the means over all of them. Give it in every call or in none;
                the weights of several calls for a batch add up. BatchNorm's statistics are means over the shards all
                the same.

        Raises:
            WhimbrelError: The loss is not a scalar, or has no gradient; or the weight is not a number of at least 0, or
                missing where others are given.
        """
        if loss.numel() != 1 or not loss.requires_grad:
            raise WhimbrelError(
                f"step.backward(loss) takes a scalar that was computed from the model, not one of shape "
                f"{list(loss.shape)} with requires_grad={loss.requires_grad}"
            )
        if self._shard_loss is not None and (self._shard_weight is None) != (weight is None):
            raise WhimbrelError("step.backward() gets a weight in some calls and none in others")
        if weight is None:
            shards = self._run.shards
            self._shard_loss = (self._shard_loss or 0.0) + float(loss.detach()) / shards
            self._run._scaled(loss * (1.0 / shards)).backward()
            return
        weight = float(weight)
        if not 0 <= weight < math.inf:
            raise WhimbrelError(f"step.backward() got weight={weight}; it is a number of at least 0")
        self._shard_weight = (self._shard_weight or 0.0) + weight
        # A mean over nothing is not a number.
        part = float(loss.detach()) * weight if weight > 0 else 0.0
        self._shard_loss = (self._shard_loss or 0.0) + part
        if weight > 0:
            self._run._scaled(loss * weight).backward()

    @property
    def val_loss(self) -> float | None:
        """The validation loss of the state that the step begins with, the same on every worker.

        ``None`` if that state was not evaluated. Known from the first batch on.
        """
        return self._run.val_loss if self._run._evaluated_at == self.number else None

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
                self._shard_loss, self._shard_weight = None, None
                yield batch
                run._check_process()
                if self._shard_loss is None:
                    raise WhimbrelError(
                        f"shard {index} of step {self.number} has no loss: call step.backward(loss) for each batch"
                    )
                run._gradients.end_shard(self.number, index, run.shards, may_be_zero=self._shard_weight == 0)
                run._native.push(self._shard_loss, *run._gradients.region(), self._shard_weight)
            update = run._native.reduce(*run._gradients.region())
            run._state.is_last = run._native.ends_with_this_step()
            if update is not None:
                self.number, self.loss, weight = update
                if weight == 0:
                    raise NonfiniteGradient(
                        f"the weights of step {self.number} add up to 0, so it has no mean: give a weight to some "
                        "sample of each step, or leave such samples out of the data set"
                    )
                run._ending_is_at(self.number)
                run._gradients.install(weight)
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
        val_loss: The last validation loss that this worker took part in. After the loop it is that of the final state,
            the same on every worker. Before that a worker that has joined lacks it: see :attr:`Step.val_loss`.
    """

    val_loss: float | None

    def __init__(
        self,
        data: Dataset[Sample_co] | Reader,
        parts: Mapping[str, Any],
        *,
        collate: Callable[[list[Any]], Any] | None,
        tokens_per_sample: int | None,
        spec: str | os.PathLike[str] | None,
        fingerprint: str | None,
    ) -> None:
        self._collate = collate or default_collate
        self._source = Source(data, self._collate)
        self._gradients, self._state = Gradients(parts), State(parts)
        self._modules = [part for part in parts.values() if isinstance(part, nn.Module)]
        self._scaler = next((part for part in parts.values() if isinstance(part, GradScaler)), None)
        self._evaluation: Evaluation | None = None
        self._evaluated_at, self.val_loss = -1, None
        self._step: Step | None = None
        self._ending = ending()
        samples, layout = self._source.samples, self._gradients.layout()
        self._native: _native.Session | _native.Alone
        if self._ending is None:
            self._native = _native.Alone(spec, _program(), samples, layout)
        else:
            self._native = self._ending.connect()
        context = json.loads(self._native.context())
        if self._scaler is not None and self._scaler.is_enabled() and context["on_nonfinite"] != "pass":
            raise WhimbrelError(
                'a GradScaler skips steps by itself: write on_nonfinite = "pass" under [reduction] of the run spec, '
                f'where it is "{context["on_nonfinite"]}"'
            )
        # Of the run, whatever the number of workers: one and two threads give other bits.
        self.threads: int = context["threads"]
        torch.set_num_threads(self.threads)
        if isinstance(self._native, _native.Session):
            found = self._source.fingerprint() if fingerprint is None else {"fingerprint": fingerprint}
            self._native.ready(samples, found, layout, self._state, _numerics(), tokens_per_sample)
        self.seed: int = context["seed"]
        self.steps: int = context["steps"]
        self._state.steps = self.steps
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

    def evaluate(
        self,
        dataset: Dataset[Any],
        loss: Callable[[Any], torch.Tensor | float],
        *,
        every: int | None = None,
        batch: int | None = None,
        collate: Callable[[list[Any]], Any] | None = None,
    ) -> None:
        """Evaluates the model after each ``every`` steps, and after the last one. Call it before the loop.

        The workers share the samples, and every sample counts once. The mean loss has the same bits for any number of
        workers. It is :attr:`Step.val_loss` in the step that follows, and the run's validation loss.

        Args:
            dataset: The validation data.
            loss: Returns the mean loss of a batch, a scalar. It is called without gradients, with all modules of the
                run in evaluation mode, and with generators that are seeded for the samples.
            every: In steps. ``every`` under ``[evaluate]`` of the run spec if not given, which by default is after the
                last step alone.
            batch: The most samples of a batch; the number of samples of a shard if not given.
            collate: Makes a batch of a list of samples; as for the training data if not given.

        Raises:
            WhimbrelError: The loop over the run has begun, the data set is empty, or this is the second call.
            ValueError: ``every`` or ``batch`` is less than 1.
        """
        if self._step is not None or self._evaluation is not None:
            raise WhimbrelError("run.evaluate() says what is evaluated: call it once, before the loop over the run")
        batch = self.global_batch // self.shards if batch is None else batch
        for name, value in [("every", every), ("batch", batch)]:
            if value is not None and value < 1:
                raise ValueError(f"run.evaluate() got {name}={value}; it is a number of at least 1")
        self._evaluation = Evaluation(dataset, loss, collate or self._collate, batch, self._modules)
        if every is not None:
            self._native.evaluate_every(every)

    def stop(self) -> None:
        """Ends the run early, at one step for all workers; one of them is enough to call it.

        Called in the loop over a step's batches, it ends the run with that step; called after that loop, with the next
        one. The step is applied, the model evaluated and a checkpoint saved. Then the run is finished: the loop over
        the run ends, and the code after it runs. If the run skips that step for its gradient (``on_nonfinite =
        "skip"``), the process ends with 0 instead.
        """
        self._native.stop()

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

    def _evaluate(self) -> None:
        if self._evaluation is not None:
            evaluated = self._evaluation.perform(self._native, self.seed)
            if evaluated is not None:
                self._evaluated_at, self.val_loss = evaluated
            return
        while self._native.part() is not None:
            self._native.push_part(None)
        self._native.finish_evaluation()

    def _advance(self, after: int | None) -> bool:
        """Waits for the next step. False when the run is over and `after` steps, all that it has, are applied.

        Raises:
            Leave: The worker is to end before that.
        """
        while (work := self._native.next()) is not None:
            if work == "step":
                return True
            if work == "evaluate":
                self._evaluate()
            else:
                self._state.restore_initial()
        if self._ending is not None:
            self._ending.is_over = True
        if after is not None and (after == self.steps or self._state.is_last):
            return False
        raise Leave

    def _read(self, step: int, index: int, samples: list[int]) -> Any:
        _seeding.before_reading(self.seed, step, index)
        try:
            return self._source.read(step, index, samples)
        except Exception as error:
            if sys.version_info >= (3, 11):
                error.add_note(f"raised while {self._source.describe(samples)}, shard {index} of step {step}")
            raise

    def _scaled(self, loss: torch.Tensor) -> torch.Tensor:
        return loss if self._scaler is None else self._scaler.scale(loss)

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
