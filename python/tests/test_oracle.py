"""Kinds of weights and optimizers: a run ends with the bits of a plain loop that has a tree sum of its own."""

import tempfile
import unittest
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn, optim
from torch.nn import functional

from whimbrel import _seeding
from whimbrel.torch import join

SEED = 5
SPEC = f"""
name = "oracle"
command = ["python"]
[train]
steps = 4
global_batch = 8
shards = 4
seed = {SEED}
"""


class Sequences:
    """Rows of small numbers: tokens, or pixels of an image."""

    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.arange(index, index + 16) % 7


class Tied(nn.Module):
    """The output layer is the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.middle = nn.Embedding(7, 6), nn.Linear(6, 6)
        self.head = nn.Linear(6, 7, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(functional.dropout(self.middle(self.embedding(x)).tanh(), 0.2))


class LoRA(nn.Module):
    """A frozen layer and a low-rank change of it."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.base = nn.Embedding(7, 6), nn.Linear(6, 7)
        self.down, self.up = nn.Parameter(torch.randn(2, 6)), nn.Parameter(torch.zeros(7, 2))
        self.embedding.requires_grad_(False)
        self.base.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embedding(x)
        return self.base(x) + x @ self.down.T @ self.up.T


class Image(nn.Module):
    """A convolution in the memory format for it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 7, 1)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        image = x.view(-1, 1, 4, 4).to(self.first.weight.dtype)
        return self.last(self.first(image).relu()).flatten(2).transpose(1, 2)


def groups(model: nn.Module) -> optim.Optimizer:
    """The biases are not decayed."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": others, "lr": 1e-2, "weight_decay": 0.0}])


KINDS: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], optim.Optimizer]]] = {
    "tied": (Tied, lambda model: optim.AdamW(model.parameters(), lr=1e-2)),
    "LoRA": (LoRA, lambda model: optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)),
    "frozen": (LoRA, lambda model: optim.AdamW(model.parameters(), lr=1e-2)),
    "groups": (Tied, groups),
    "channels_last": (Image, lambda model: optim.SGD(model.parameters(), lr=0.1, momentum=0.9)),
    "bfloat16": (lambda: Tied().bfloat16(), lambda model: optim.SGD(model.parameters(), lr=0.1)),
}


def loss_of(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(model(x).float().flatten(0, 1), x.flatten())


def tree_sum(leaves: list[torch.Tensor]) -> torch.Tensor:
    if len(leaves) == 1:
        return leaves[0]
    half = len(leaves) // 2
    return tree_sum(leaves[:half]) + tree_sum(leaves[half:])


class Oracle(unittest.TestCase):
    """A run alone beside a plain loop over the same batches."""

    def test_every_kind_ends_with_the_bits_of_a_plain_loop(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        spec = Path(folder.name) / "run.toml"
        spec.write_text(SPEC)
        for name, (build, optimizer_of) in KINDS.items():
            with self.subTest(name):
                torch.manual_seed(1)
                model = build()
                torch.manual_seed(1)
                plain = build()
                optimizer, plain_optimizer = optimizer_of(model), optimizer_of(plain)
                trained = [p for p in plain.parameters() if p.requires_grad]
                before = [p.detach().clone() for p in trained]
                for step in join(Sequences(), model=model, optimizer=optimizer, spec=spec):
                    batches = []
                    for x in step:
                        batches.append(x)
                        step.backward(loss_of(model, x))
                    optimizer.step()
                    assert step.number is not None
                    shards = []
                    for shard, x in enumerate(batches):
                        _seeding.before_computing(SEED, step.number, shard)
                        gradients = torch.autograd.grad(loss_of(plain, x) * (1.0 / len(batches)), trained)
                        shards.append([0.0 + gradient.float() for gradient in gradients])
                    for parameter, *leaves in zip(trained, *shards, strict=True):
                        parameter.grad = tree_sum(leaves).to(parameter.dtype)
                    plain_optimizer.step()
                for (key, mine), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
                    self.assertTrue(torch.equal(mine, theirs), key)
                changed = [not torch.equal(p, old) for p, old in zip(trained, before, strict=True)]
                self.assertTrue(all(changed), "every weight that is trained changes")
