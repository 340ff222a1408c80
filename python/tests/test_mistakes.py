"""Mistakes in a program: each is an exception that names the line to change."""

import os
import sys
import tempfile
import unittest
from pathlib import Path

import torch
from torch import nn, optim

from whimbrel import WhimbrelError
from whimbrel.torch import Run, join

SPEC = """
name = "mistakes"
command = ["python"]
[train]
steps = 3
global_batch = 8
shards = 4
seed = 1
"""


class Samples:
    """Vectors; the one with the number `damaged` cannot be read."""

    damaged = -1

    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == self.damaged:
            raise OSError("input/output error")
        return torch.full((3,), float(index))


class Mistakes(unittest.TestCase):
    """One test a mistake."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.spec = Path(folder.name) / "run.toml"
        self.spec.write_text(SPEC)
        self.model: nn.Module = nn.Linear(3, 1)
        self.optimizer: optim.Optimizer = optim.SGD(self.model.parameters(), lr=0.1)

    def join(self, samples=None, **parts) -> Run:
        parts = {"model": self.model, "optimizer": self.optimizer, "spec": self.spec, **parts}
        return join(samples or Samples(), **parts)

    def loss(self, batch: torch.Tensor) -> torch.Tensor:
        return self.model(batch).square().mean()

    def test_no_mistake(self) -> None:
        numbers = []
        for step in self.join():
            for batch in step:
                step.backward(self.loss(batch))
            self.optimizer.step()
            numbers.append(step.number)
        self.assertEqual(numbers, [0, 1, 2])

    def test_backward_is_missing(self) -> None:
        with self.assertRaisesRegex(WhimbrelError, r"shard 0 of step 0 has no loss: call step.backward\(loss\)"):
            for step in self.join():
                for batch in step:
                    self.loss(batch).backward()

    def test_the_loss_is_not_a_scalar(self) -> None:
        with self.assertRaisesRegex(WhimbrelError, r"takes a scalar .* not one of shape \[2, 1\]"):
            for step in self.join():
                for batch in step:
                    step.backward(self.model(batch))

    def test_the_optimizer_steps_too_early(self) -> None:
        with self.assertRaisesRegex(WhimbrelError, "move it behind the loop over the step's batches"):
            for step in self.join():
                for batch in step:
                    step.backward(self.loss(batch))
                    self.optimizer.step()

    def test_zero_grad_after_backward(self) -> None:
        with self.assertRaisesRegex(WhimbrelError, r"remove zero_grad\(\) between step.backward\(loss\) and the end"):
            for step in self.join():
                for batch in step:
                    step.backward(self.loss(batch))
                    self.optimizer.zero_grad()

    def test_zero_grad_before_the_update(self) -> None:
        with self.assertRaisesRegex(WhimbrelError, r"remove zero_grad\(\) between the loop over the step's batches"):
            for step in self.join():
                for batch in step:
                    step.backward(self.loss(batch))
                self.optimizer.zero_grad()
                self.optimizer.step()

    def test_the_loop_over_the_batches_is_left(self) -> None:
        with self.assertRaisesRegex(WhimbrelError, "without break"):
            for step in self.join():
                for batch in step:
                    step.backward(self.loss(batch))
                    break

    def test_the_batches_are_taken_twice(self) -> None:
        with self.assertRaisesRegex(WhimbrelError, "iterate over the step in one loop"):
            for step in self.join():
                for batch in step:
                    step.backward(self.loss(batch))
                list(step)

    def test_a_reader_fails(self) -> None:
        samples = Samples()
        samples.damaged = 5
        with self.assertRaisesRegex(OSError, "input/output error") as caught:
            for step in self.join(samples):
                for batch in step:
                    step.backward(self.loss(batch))
                self.optimizer.step()
        if sys.version_info >= (3, 11):
            self.assertRegex(caught.exception.__notes__[0], r"while samples \[.*5.*\] were read, shard \d of step \d")

    def test_a_data_set_without_numbers(self) -> None:
        with self.assertRaisesRegex(TypeError, "got a generator, which has no samples with numbers: .*step, shard"):
            self.join(torch.ones(3) for _ in range(8))

    def test_a_reader_of_shards(self) -> None:
        read = []

        def reader(step: int, shard: int) -> torch.Tensor:
            read.append((step, shard))
            if step == 2:
                raise OSError("end of the stream")
            return torch.full((2, 3), float(4 * step + shard)) + torch.rand(1)

        with self.assertRaisesRegex(OSError, "end of the stream") as caught:
            for step in self.join(reader):
                for batch in step:
                    self.assertEqual(batch.shape, (2, 3))
                    step.backward(self.loss(batch))
                self.optimizer.step()
        self.assertEqual(read, [(step, shard) for step in range(2) for shard in range(4)] + [(2, 0)])
        if sys.version_info >= (3, 11):
            self.assertEqual(caught.exception.__notes__, ["raised while its reader was called, shard 0 of step 2"])

    def test_a_forward_pass_changes_a_buffer(self) -> None:
        class Counts(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear = nn.Linear(3, 1)
                self.register_buffer("calls", torch.zeros(()))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                self.calls += 1
                return self.linear(x)

        self.model = Counts()
        self.optimizer = optim.SGD(self.model.parameters(), lr=0.1)
        with self.assertRaisesRegex(WhimbrelError, "the forward pass changes the buffer model.calls"):
            for step in self.join():
                for batch in step:
                    step.backward(self.loss(batch))

    def test_what_cannot_be_part_of_a_run(self) -> None:
        parameters = list(self.model.parameters())
        for parts, message in [
            ({"optimizer": None}, "optimizer is a NoneType, which has no state_dict|needs an optimizer"),
            ({"optimizer": optim.LBFGS(parameters)}, "LBFGS, which computes the loss several times"),
            ({"optimizer": optim.SparseAdam(parameters)}, "SparseAdam, which needs sparse gradients"),
            ({"model": nn.DataParallel(self.model)}, "wrapped in DataParallel: pass the module in it"),
            ({"counter": 3}, "counter is a int, which has no state_dict"),
        ]:
            with self.subTest(message), self.assertRaisesRegex(TypeError, message):
                self.join(**parts)

    def test_a_dtype_that_a_checkpoint_cannot_hold(self) -> None:
        run = self.join(table=torch.zeros(2, dtype=torch.float8_e4m3fnuz))
        with self.assertRaisesRegex(TypeError, "table is torch.float8_e4m3fnuz, which a checkpoint cannot hold"):
            run.digest()

    def test_tensors_that_share_memory(self) -> None:
        run = self.join(table=next(self.model.parameters()).detach())
        with self.assertRaisesRegex(ValueError, "table shares its memory with another tensor|pass one of the two"):
            run.digest()

    def test_there_is_no_run_spec(self) -> None:
        with self.assertRaisesRegex(OSError, r"cannot read the run spec .*run.toml beside it"):
            self.join(spec=self.spec.with_name("none.toml"))

    def test_the_spec_is_in_the_programs_header(self) -> None:
        program = self.spec.with_name("train.py")
        before = sys.argv[0]
        self.addCleanup(sys.argv.__setitem__, 0, before)
        sys.argv[0] = str(program)
        for header, steps in [("", 3), ("[tool.whimbrel.train]\n# steps = 2\n# global_batch = 8\n# ", 2)]:
            program.write_text(f"# /// script\n# {header}\n# ///\n" if header else "import torch\n")
            self.assertEqual(self.join(spec=None).steps, steps, header)
        program.write_text("# /// script\n# [tool.whimbrel]\n# ///\n")
        with self.assertRaisesRegex(WhimbrelError, r"train\.py: train\.steps: missing; add steps = 2000 under \[tool"):
            self.join(spec=None)

    @unittest.skipUnless(hasattr(os, "fork"), "no fork")
    def test_a_signal_handler_is_left_alone_when_alone(self) -> None:
        before = sys.excepthook
        self.join()
        self.assertIs(sys.excepthook, before)
