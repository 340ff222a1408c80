"""Means over tokens: shards of unlike weights."""

import tempfile
import unittest
from pathlib import Path

import torch
from torch import nn, optim

from whimbrel import WhimbrelError
from whimbrel.torch import Run, Step, join

SPEC = """
name = "weights"
command = ["python"]
[train]
steps = 6
global_batch = 8
shards = 4
"""


class Sentences:
    """Token vectors, and which of them count: none of the first four sentences."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = torch.sin(torch.arange(15.0).view(5, 3) + index)
        return tokens, torch.arange(5) < (index // 4) * (1 + index % 2)


class Weights(unittest.TestCase):
    """A run alone, and a plain loop with a tree sum of its own."""

    def join(self) -> Run:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        spec = Path(folder.name) / "run.toml"
        spec.write_text(SPEC)
        self.model, self.optimizer = self.build()
        return join(Sentences(), model=self.model, optimizer=self.optimizer, spec=spec)

    def build(self) -> tuple[nn.Module, optim.Optimizer]:
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8, affine=False), nn.Linear(8, 1))
        return model, optim.SGD(model.parameters(), lr=0.1)

    def losses(self, model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """The losses of the tokens that count."""
        tokens, counts = batch
        return model(tokens.view(-1, 3)).square().view(-1)[counts.view(-1)]

    def test_the_step_is_the_mean_over_all_tokens(self) -> None:
        model, optimizer = self.build()
        parameters, found, mean = list(model.parameters()), 0, nn.BatchNorm1d(8, affine=False)
        for step in self.join():
            batches = []
            for batch in step:
                batches.append(batch)
                losses = self.losses(self.model, batch)
                step.backward(losses.mean(), weight=len(losses))
            leaves, total, weights = [], 0.0, 0
            for batch in batches:
                losses = self.losses(model, batch)
                weights += len(losses)
                if len(losses) == 0:
                    leaves.append([torch.zeros_like(parameter) for parameter in parameters])
                    found += 1
                    continue
                total += float(losses.detach().mean()) * len(losses)
                gradients = torch.autograd.grad(losses.mean() * float(len(losses)), parameters)
                leaves.append([0.0 + gradient for gradient in gradients])
            for parameter, one, two, three, four in zip(parameters, *leaves, strict=True):
                parameter.grad = ((one + two) + (three + four)) / weights
            self.assertEqual(step.loss, total / weights)
            for mine, theirs in zip(self.model.parameters(), parameters, strict=True):
                self.assertTrue(torch.equal(mine.grad, theirs.grad))
            self.optimizer.step()
            optimizer.step()
        self.assertGreater(found, 0, "no shard without a token that counts")
        self.assertNotEqual(self.model[1].running_mean.tolist(), mean.running_mean.tolist())

    def first(self, backward) -> None:
        for step in self.join():
            for batch in step:
                backward(step, self.losses(self.model, batch).sum())

    def test_mistakes(self) -> None:
        def mixed(step: Step, loss: torch.Tensor) -> None:
            step.backward(loss, weight=2)
            step.backward(loss)

        calls = 0

        def some(step: Step, loss: torch.Tensor) -> None:
            nonlocal calls
            calls += 1
            step.backward(loss, **({} if calls % 2 else {"weight": 1}))

        for backward, message in [
            (lambda step, loss: step.backward(loss, weight=-1), "got weight=-1.0; it is a number of at least 0"),
            (lambda step, loss: step.backward(loss, weight=float("nan")), "got weight=nan"),
            (mixed, "a weight in some calls and none in others"),
            (some, "2 of 4 losses with a weight"),
            (lambda step, loss: step.backward(loss, weight=0), "the weights of step 0 add up to 0"),
        ]:
            with self.subTest(message), self.assertRaisesRegex(WhimbrelError, message):
                self.first(backward)
