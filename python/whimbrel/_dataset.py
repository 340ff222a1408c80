"""What a program trains on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, TypeVar, cast

from . import _fingerprint

Sample_co = TypeVar("Sample_co", covariant=True)


class Dataset(Protocol[Sample_co]):
    """A data set of known length whose samples have numbers. ``__getitems__``, where there is one, reads a batch."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Sample_co: ...


def read(dataset: Dataset[Any], samples: list[int], collate: Callable[[list[Any]], Any]) -> Any:
    """The batch of these samples."""
    many = getattr(dataset, "__getitems__", None)
    return collate(many(samples) if many else [dataset[sample] for sample in samples])


Reader: TypeAlias = Callable[[int, int], Any]
"""Reads a shard by itself: called with the step and the shard's number in it, it returns the batch."""


class Source:
    """The batches of a run, from a data set or a reader.

    Args:
        data: The data set or the reader.
        collate: Makes a batch of a list of samples.

    Raises:
        TypeError: `data` is neither.
    """

    def __init__(self, data: Dataset[Any] | Reader, collate: Callable[[list[Any]], Any]) -> None:
        self._dataset: Dataset[Any] | None = None
        self._reader: Reader | None = None
        self._collate = collate
        if hasattr(data, "__len__") and hasattr(data, "__getitem__"):
            self._dataset = cast("Dataset[Any]", data)
        elif callable(data):
            self._reader = data
        else:
            raise TypeError(
                f"join() got a {type(data).__name__}, which has no samples with numbers: pass a data set with len() "
                "and [i], or a function that is called with (step, shard) and returns the batch of that shard"
            )

    @property
    def samples(self) -> int:
        """The number of samples that a run chooses from. It chooses none for a reader: one stands for all."""
        return 1 if self._dataset is None else len(self._dataset)

    def fingerprint(self) -> dict[str, str]:
        """The hashes of a few samples, by what they are of. Empty for a reader, whose batches have no numbers."""
        return {} if self._dataset is None else _fingerprint.of_samples(self._dataset)

    def read(self, step: int, shard: int, samples: list[int]) -> Any:
        """The batch of a shard."""
        if self._reader is not None:
            return self._reader(step, shard)
        assert self._dataset is not None
        return read(self._dataset, samples, self._collate)

    def describe(self, samples: list[int]) -> str:
        """What is read for a shard, for an error."""
        return "its reader was called" if self._reader is not None else f"samples {samples} were read"
