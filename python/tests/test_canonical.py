"""Plain values: equal values, equal bytes."""

import math
import unittest
from collections import Counter

import numpy

from whimbrel import _canonical


class Canonical(unittest.TestCase):
    """What comes back, and what is refused."""

    def test_values_come_back_with_their_types(self) -> None:
        value = {
            "last_epoch": 3,
            "lr": [0.1, -0.0, math.inf, 5e-324],
            "betas": (0.9, 0.99),
            4: Counter({5: 1}),
            "on": True,
            "none": None,
            "nested": {"a": [(1,), {}]},
        }
        back = _canonical.loads(_canonical.dumps(value))
        self.assertEqual(repr(back), repr(value))
        self.assertNotIn(b"\0", _canonical.dumps("a\0b"))

    def test_numbers_of_numpy_are_numbers(self) -> None:
        self.assertEqual(_canonical.dumps(numpy.float64(0.1)), _canonical.dumps(0.1))
        self.assertEqual(_canonical.dumps(numpy.int32(7)), _canonical.dumps(7))

    def test_other_objects_are_refused_by_their_type(self) -> None:
        with self.assertRaisesRegex(TypeError, "the state holds a function"):
            _canonical.dumps({"f": lambda: 0})
