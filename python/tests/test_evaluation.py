"""Evaluation within a run: every sample once, between two steps, and nothing of it reaches the training."""

import tempfile
import unittest
from pathlib import Path

import torch
from torch import nn, optim

from whimbrel import WhimbrelError
from whimbrel.torch import Run, join

SPEC = """
name = "evaluation"
command = ["python"]
[train]
steps = 5
global_batch = 8
shards = 4
"""


class Vectors:
    """So many vectors."""

    def __init__(self, length: int) -> None:
        self.length, self.read = length, []

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> torch.Tensor:
        self.read.append(index)
        return torch.sin(torch.arange(3.0) + index)


class Evaluations(unittest.TestCase):
    """A run alone."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.spec = Path(folder.name) / "run.toml"
        self.spec.write_text(SPEC)
        torch.manual_seed(3)
        self.model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
        self.optimizer = optim.SGD(self.model.parameters(), lr=0.1)

    def join(self) -> Run:
        return join(Vectors(32), model=self.model, optimizer=self.optimizer, spec=self.spec)

    def loss(self, batch: torch.Tensor) -> torch.Tensor:
        return self.model(batch).square().mean()

    def train(self, run: Run) -> dict[int, float]:
        """Trains, and returns the validation losses by the steps that they were known in."""
        found = {}
        for step in run:
            for batch in step:
                step.backward(self.loss(batch))
                if step.val_loss is not None:
                    found[step.number] = step.val_loss
            self.optimizer.step()
        return found

    def mean(self, samples: int) -> float:
        """The mean loss over the samples one by one, of the model as it is."""
        self.model.eval()
        with torch.no_grad():
            losses = [float(self.loss(Vectors(samples)[index][None])) for index in range(samples)]
        self.model.train()
        return sum(losses) / samples

    def test_every_sample_counts_once_whatever_the_parts(self) -> None:
        for samples in (1, 3, 4, 7, 30):
            with self.subTest(samples):
                self.setUp()
                validation = Vectors(samples)
                run = self.join()
                run.evaluate(validation, self.loss, every=100)
                self.assertEqual(self.train(run), {})
                self.assertEqual(sorted(validation.read), list(range(samples)), "after the last step")
                assert run.val_loss is not None
                self.assertAlmostEqual(run.val_loss, self.mean(samples), places=6)

    def test_the_result_is_known_in_the_step_that_follows_and_changes_no_bit(self) -> None:
        bare = self.join()
        self.train(bare)
        expected = bare.digest()
        self.setUp()
        run, modes = self.join(), set()

        def loss(batch: torch.Tensor) -> torch.Tensor:
            modes.add((self.model.training, self.model[1].training, torch.is_grad_enabled()))
            self.assertLessEqual(len(batch), 3)
            torch.rand(1)
            return self.loss(batch)

        run.evaluate(Vectors(30), loss, every=2, batch=3)
        found = self.train(run)
        self.assertEqual(list(found), [2, 4])
        self.assertEqual(modes, {(False, False, False)})
        self.assertTrue(all(module.training for module in self.model.modules()))
        self.assertEqual(run.digest(), expected)

    def test_the_run_spec_says_how_often_if_the_program_does_not(self) -> None:
        self.spec.write_text(SPEC + "[evaluate]\nevery = '3 steps'\n")
        run = self.join()
        run.evaluate(Vectors(5), self.loss)
        self.assertEqual(list(self.train(run)), [3])

    def test_mistakes(self) -> None:
        run = self.join()
        with self.assertRaisesRegex(ValueError, "every=0; it is a number of at least 1"):
            run.evaluate(Vectors(3), self.loss, every=0)
        with self.assertRaisesRegex(WhimbrelError, "a data set without samples"):
            run.evaluate(Vectors(0), self.loss)
        run.evaluate(Vectors(8), self.model, every=1)
        with self.assertRaisesRegex(WhimbrelError, r"returns a tensor of shape \[2, 1\]"):
            self.train(run)
        with self.assertRaisesRegex(WhimbrelError, "before the loop over the run"):
            run.evaluate(Vectors(3), self.loss)
