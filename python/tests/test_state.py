"""A joiner that receives a state goes on with the same bits, for every optimizer."""

import unittest

import torch
from torch import nn, optim
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau

from whimbrel._state import State

OPTIMIZERS = {
    "Adadelta": optim.Adadelta,
    "Adafactor": optim.Adafactor,
    "Adagrad": optim.Adagrad,
    "Adam": optim.Adam,
    "Adam, AMSGrad": lambda p: optim.Adam(p, amsgrad=True),
    "AdamW": optim.AdamW,
    "AdamW, lr as a tensor": lambda p: optim.AdamW(p, lr=torch.tensor(1e-3)),
    "Adamax": optim.Adamax,
    "ASGD": optim.ASGD,
    "NAdam": optim.NAdam,
    "RAdam": optim.RAdam,
    "RMSprop": lambda p: optim.RMSprop(p, momentum=0.9, centered=True),
    "Rprop": optim.Rprop,
    "SGD": lambda p: optim.SGD(p, lr=0.1),
    "SGD, momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
}


class Program:
    """A model, an optimizer, a scheduler, an average of the weights."""

    def __init__(self, optimizer, seed: int) -> None:
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
        self.optimizer = optimizer(self.model.parameters())
        self.scheduler = CosineAnnealingLR(self.optimizer, 10)
        self.average = torch.optim.swa_utils.AveragedModel(self.model)
        self.state = State(
            {
                "model": self.model,
                "optimizer": self.optimizer,
                "scheduler": self.scheduler,
                "average": self.average,
            }
        )

    def step(self, number: int) -> None:
        torch.manual_seed(number)
        self.optimizer.zero_grad()
        self.model(torch.randn(16, 4)).square().mean().backward()
        self.optimizer.step()
        self.scheduler.step()
        self.average.update_parameters(self.model)

    def bytes(self) -> dict[str, torch.Tensor]:
        self.state.listed()
        return {name: tensor.clone() for name, tensor in self.state._memory()}

    def receive(self, tensors: dict[str, torch.Tensor]) -> None:
        """What the session does when this worker receives a state."""
        self.state.listed()
        for name, tensor in self.state._memory():
            tensor.copy_(tensors[name])
        self.state.written()


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(-1).view(torch.uint8)


class Joining(unittest.TestCase):
    """One program goes on where another one is."""

    def assert_equal(self, left: Program, right: Program) -> None:
        mine, theirs = left.bytes(), right.bytes()
        self.assertEqual(list(mine), list(theirs))
        for name, tensor in mine.items():
            self.assertTrue(torch.equal(_bytes(tensor), _bytes(theirs[name])), name)

    def test_every_optimizer_goes_on_with_the_same_bits(self) -> None:
        for name, optimizer in OPTIMIZERS.items():
            with self.subTest(name):
                first, joiner = Program(optimizer, 1), Program(optimizer, 2)
                layout = [entry[:3] for entry in first.state.listed()]
                for step in range(3):
                    first.step(step)
                self.assertEqual([entry[:3] for entry in first.state.listed()], layout, "the layout stays")
                joiner.receive(first.bytes())
                self.assert_equal(first, joiner)
                for step in range(3, 6):
                    first.step(step)
                    joiner.step(step)
                self.assert_equal(first, joiner)

    def test_a_worker_that_is_ahead_goes_back_to_the_initial_state(self) -> None:
        for name, optimizer in OPTIMIZERS.items():
            with self.subTest(name):
                ahead, fresh = Program(optimizer, 1), Program(optimizer, 1)
                ahead.step(0)
                ahead.step(1)
                ahead.state.restore_initial()
                self.assert_equal(ahead, fresh)
                ahead.step(0)
                fresh.step(0)
                self.assert_equal(ahead, fresh)

    def test_a_scheduler_with_infinities_and_a_generic_state(self) -> None:
        class Counter:
            def __init__(self) -> None:
                self.values = {"count": torch.zeros(2, dtype=torch.complex64), "best": float("inf")}

            def state_dict(self):
                return self.values

            def load_state_dict(self, values) -> None:
                self.values = values

        def build() -> tuple[Counter, State]:
            counter = Counter()
            optimizer = optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
            plateau = ReduceLROnPlateau(optimizer)
            return counter, State({"optimizer": optimizer, "plateau": plateau, "counter": counter})

        (first, state), (joiner, other) = build(), build()
        first.values["count"] += 1j
        first.values["best"] = 0.5
        state.listed()
        tensors = {name: tensor.clone() for name, tensor in state._memory()}
        other.listed()
        for name, tensor in other._memory():
            tensor.copy_(tensors[name])
        other.written()
        self.assertEqual(joiner.values["best"], 0.5)
        self.assertTrue(torch.equal(joiner.values["count"], first.values["count"]))
