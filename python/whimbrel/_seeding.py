"""The generators of this process, seeded so that they do not show which worker computes."""

import contextlib
import hashlib
import random
import sys
from collections.abc import Iterator

import torch

# For programs that do not seed by themselves: all workers build the same model.
INITIAL = "whimbrel"


def seed_all(*parts: int | str) -> None:
    """Seeds the generators of PyTorch, of ``random`` and of NumPy, if it is imported, from these values alone."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "little") >> 1
    # `torch.manual_seed` asks every kind of device, which takes 0.3 ms.
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(number)
    random.seed(number)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(number & 0xFFFF_FFFF)


@contextlib.contextmanager
def preserved() -> Iterator[None]:
    """Gives the generators back the states that they have now."""
    numpy = sys.modules.get("numpy")
    state, pythons, numpys = torch.get_rng_state(), random.getstate(), numpy and numpy.random.get_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        torch.set_rng_state(state)
        random.setstate(pythons)
        if numpy is not None:
            numpy.random.set_state(numpys)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


def before_reading(seed: int, step: int, shard: int) -> None:
    """Before the samples of a shard are read: augmentation must not change what dropout draws."""
    seed_all(seed, step, shard, "read")


def before_computing(seed: int, step: int, shard: int) -> None:
    """Before the forward pass of a shard."""
    seed_all(seed, step, shard, "compute")


def before_evaluating(seed: int, step: int, part: int) -> None:
    """Before a part of the validation data is read and evaluated."""
    seed_all(seed, step, part, "evaluate")


def before_update(seed: int, step: int) -> None:
    """Before the update of a step: every worker draws the same."""
    seed_all(seed, step, "update")
