"""What a program trains on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

Sample_co = TypeVar("Sample_co", covariant=True)


class Dataset(Protocol[Sample_co]):
    """A data set of known length whose samples have numbers. ``__getitems__``, where there is one, reads a batch."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Sample_co: ...


def read(dataset: Dataset[Any], samples: list[int], collate: Callable[[list[Any]], Any]) -> Any:
    """The batch of these samples."""
    many = getattr(dataset, "__getitems__", None)
    return collate(many(samples) if many else [dataset[sample] for sample in samples])
