"""Mixed precision with a GradScaler: steps that overflow are skipped as in a plain loop."""

import tempfile
import unittest
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn, optim

from whimbrel import WhimbrelError
from whimbrel.torch import Run, join

SPEC = """
name = "scaler"
command = ["python"]
[train]
steps = 30
global_batch = 16
shards = 4
"""
PASS = '[reduction]\non_nonfinite = "pass"\n'


class Vectors:
    """Vectors."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.sin(torch.arange(4.0) + index)


class Program:
    """A model that computes in half precision, and a scale that is too large at first."""

    def __init__(self) -> None:
        torch.manual_seed(3)
        self.model = nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.Linear(16, 4))
        self.optimizer = optim.AdamW(self.model.parameters())
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30, growth_interval=5)

    def join(self, case: unittest.TestCase, spec: str) -> Run:
        folder = tempfile.TemporaryDirectory()
        case.addCleanup(folder.cleanup)
        path = Path(folder.name) / "run.toml"
        path.write_text(spec)
        return join(Vectors(), model=self.model, optimizer=self.optimizer, scaler=self.scaler, spec=path)

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.float16):
            return (self.model(x) - x).square().mean()

    def update(self) -> float:
        """Updates, and returns the scale."""
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return self.scaler.get_scale()


class Scaler(unittest.TestCase):
    """A run alone, and a plain loop with a tree sum of its own."""

    def test_overflows_are_skipped_as_in_a_plain_loop(self) -> None:
        program, oracle, batches, scales = Program(), Program(), [], []
        for step in program.join(self, SPEC + PASS):
            batches.append([])
            for x in step:
                batches[-1].append(x)
                step.backward(program.loss(x))
            scales.append(program.update())
        parameters = list(oracle.model.parameters())
        expected = []
        for shards in batches:
            scaled = [oracle.scaler.scale(oracle.loss(x) * (1.0 / len(shards))) for x in shards]
            one, two, three, four = (torch.autograd.grad(loss, parameters) for loss in scaled)
            for parameter, a, b, c, d in zip(parameters, one, two, three, four, strict=True):
                parameter.grad = ((0.0 + a) + (0.0 + b)) + ((0.0 + c) + (0.0 + d))
            expected.append(oracle.update())
        self.assertEqual(scales, expected)
        skipped = [before > after for before, after in zip([2.0**30, *scales], scales, strict=False)]
        self.assertTrue(skipped[0] and not all(skipped), scales)
        self.assertTrue(any(before < after for before, after in pairwise(scales)), "it grows")
        for mine, theirs in zip(program.model.parameters(), parameters, strict=True):
            self.assertTrue(torch.equal(mine, theirs))

    def test_the_spec_has_to_pass_such_steps_on(self) -> None:
        for spec in (SPEC, SPEC + PASS.replace("pass", "skip")):
            with self.assertRaisesRegex(WhimbrelError, 'write on_nonfinite = "pass" under .reduction.'):
                Program().join(self, spec)
        program = Program()
        program.scaler = torch.amp.GradScaler("cpu", enabled=False)
        program.join(self, SPEC)

    def test_there_is_one(self) -> None:
        program = Program()
        with self.assertRaisesRegex(TypeError, "scaler and second are GradScalers"):
            join(
                Vectors(),
                model=program.model,
                optimizer=program.optimizer,
                scaler=program.scaler,
                second=torch.amp.GradScaler("cpu"),
            )
