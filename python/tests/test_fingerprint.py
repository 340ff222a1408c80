"""Equal samples have equal hashes, and others have not."""

import random
import unittest
from collections.abc import Callable
from typing import Any

import numpy
import torch

from whimbrel._fingerprint import of_samples


class Samples:
    """A data set of ten samples, made by a function of their number."""

    def __init__(self, sample: Callable[[int], Any]) -> None:
        self.sample = sample

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        return self.sample(index)


class Image:
    """An image as Pillow has them: with an array interface that PyTorch does not take."""

    def __init__(self, pixels: bytes) -> None:
        self.__array_interface__ = {"shape": (3,), "typestr": "|u1", "version": 3, "data": pixels}


class Fingerprints(unittest.TestCase):
    """Four samples of each data set."""

    def test_samples_of_one_data_set(self) -> None:
        hashes = of_samples(Samples(lambda index: index))
        self.assertEqual(list(hashes), ["sample 0", "sample 3", "sample 6", "sample 9"])
        self.assertEqual(len(set(hashes.values())), 4)
        self.assertEqual(of_samples([]), {})

    def test_equal_samples(self) -> None:
        for left, right in [
            (lambda index: torch.ones(2, 2)[:, 0] * index, lambda index: torch.tensor([1.0, 1.0]) * index),
            (lambda index: numpy.full(2, index, dtype="int64"), lambda index: torch.full((2,), index)),
            (lambda index: {"text": f"{index}", "n": [1, None]}, lambda index: {"text": str(index), "n": (1, None)}),
            # Random augmentation draws the same in every process.
            (lambda index: torch.rand(2) + random.random(), lambda index: torch.rand(2) + random.random()),
            (lambda index: object(), lambda index: object()),
            (lambda index: numpy.array(["a", "b"]), lambda index: ["a", "b"]),
            (lambda index: numpy.arange(3)[::-1], lambda index: torch.tensor([2, 1, 0])),
            (lambda index: numpy.full(2, 1.5, dtype=">f4"), lambda index: torch.tensor([1.5, 1.5])),
            (numpy.float32, lambda index: torch.tensor(float(index))),
            (lambda index: Image(b"one"), lambda index: Image(b"two")),
        ]:
            torch.manual_seed(random.randrange(100))
            self.assertEqual(of_samples(Samples(left)), of_samples(Samples(right)))

    def test_the_programs_generators_stay_as_they_are(self) -> None:
        def draw() -> tuple[float, ...]:
            return float(torch.rand(1)), random.random(), float(numpy.random.rand())

        def seed() -> None:
            torch.manual_seed(1)
            random.seed(1)
            numpy.random.seed(1)

        seed()
        expected = draw()
        seed()
        of_samples(Samples(lambda index: torch.rand(2) + random.random() + numpy.random.rand()))
        self.assertEqual(draw(), expected)

    def test_other_samples(self) -> None:
        kinds = [
            lambda index: torch.zeros(2),
            lambda index: torch.zeros(2, 1),
            lambda index: torch.zeros(2, dtype=torch.float64),
            lambda index: torch.zeros(2, dtype=torch.complex64),
            lambda index: [0.0, 0.0],
            lambda index: ["0.0", 0.0],
            lambda index: [[0.0], [0.0]],
            lambda index: b"00",
            lambda index: True,
            lambda index: 1,
            lambda index: {"a": 1},
        ]
        hashes = [of_samples(Samples(kind))["sample 3"] for kind in kinds]
        self.assertEqual(len(set(hashes)), len(kinds))
