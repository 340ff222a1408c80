"""A run that its program ends early."""

import tempfile
import unittest
from pathlib import Path

import torch
from torch import nn, optim

from whimbrel._state import State
from whimbrel.torch import Run, join

SPEC = """
name = "stop"
command = ["python"]
[train]
steps = {steps}
global_batch = 8
shards = 4
"""


class Vectors:
    """Vectors."""

    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.sin(torch.arange(3.0) + index)


class Stop(unittest.TestCase):
    """A run alone."""

    def join(self, steps: int) -> Run:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        spec = Path(folder.name) / "run.toml"
        spec.write_text(SPEC.format(steps=steps))
        torch.manual_seed(3)
        self.model = nn.Linear(3, 1)
        self.optimizer = optim.SGD(self.model.parameters(), lr=0.1)
        return join(Vectors(), model=self.model, optimizer=self.optimizer, spec=spec)

    def loss(self, batch: torch.Tensor) -> torch.Tensor:
        return self.model(batch).square().mean()

    def train(self, run: Run, stops: int | None = None, within: bool = False) -> int:
        steps = 0
        for step in run:
            for batch in step:
                step.backward(self.loss(batch))
                if within and step.number == stops:
                    run.stop()
            self.optimizer.step()
            steps += 1
            if not within and step.number == stops:
                run.stop()
        return steps

    def test_the_run_ends_with_the_step_whose_sum_comes_next(self) -> None:
        self.assertEqual(self.train(self.join(9), stops=3, within=True), 4)
        self.assertEqual(self.train(self.join(9), stops=3), 5)
        self.assertEqual(self.train(self.join(5), stops=4), 5, "after the last step it changes nothing")
        run = self.join(9)
        run.stop()
        self.assertEqual(self.train(run), 1, "before the loop, it leaves one step")

    def test_the_model_is_that_of_a_shorter_run_and_is_evaluated(self) -> None:
        run = self.join(9)
        run.evaluate(Vectors(), self.loss)
        self.train(run, stops=3)
        stopped = [parameter.detach().clone() for parameter in self.model.parameters()]
        shorter = self.join(5)
        shorter.evaluate(Vectors(), self.loss)
        self.train(shorter)
        self.assertTrue(all(torch.equal(a, b) for a, b in zip(stopped, self.model.parameters(), strict=True)))
        self.assertEqual(run.val_loss, shorter.val_loss)

    def test_the_state_says_that_it_is_the_last_and_a_worker_that_receives_it_knows(self) -> None:
        def state() -> State:
            return State({"optimizer": optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)})

        first, joiner = state(), state()
        first.steps, joiner.steps, first.is_last = 9, 9, True
        first.listed()
        joiner.listed()
        for (_, received), (_, tensor) in zip(joiner._memory(), first._memory(), strict=True):
            received.copy_(tensor)
        joiner.written()
        self.assertTrue(joiner.is_last)
        joiner.steps = 20
        joiner.written()
        self.assertFalse(joiner.is_last, "a longer run goes on from it")
        joiner.restore_initial()
        self.assertFalse(joiner.is_last)
