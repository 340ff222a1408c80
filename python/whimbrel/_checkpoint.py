"""Checkpoints for programs that only read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from . import _memory, _native
from ._state import VALUES

# Tensors are read together up to this size, in bytes: small ones share the blocks that are read and verified.
TOGETHER = 64 << 20


class Tensors(Mapping[str, torch.Tensor]):
    """The tensors of a part of a checkpoint by name, as ``load_state_dict`` takes them.

    Nothing is read before a tensor is asked for. Then it and those after it are, up to 64 MiB together, and kept until
    another one is asked for that is not among them. Every byte is verified.

    Attributes:
        step: Steps applied to the state.
    """

    def __init__(self, uri: str, part: str | None) -> None:
        self._checkpoint = _native.Checkpoint(uri)
        self.step = self._checkpoint.step()
        prefix = "" if part is None else f"{part}."
        self._specs = {
            name.removeprefix(prefix): (name, dtype, shape)
            for name, dtype, shape in self._checkpoint.tensors()
            if name.startswith(prefix) and name != VALUES
        }
        if not self._specs:
            parts = sorted({name.split(".")[0] for name, *_ in self._checkpoint.tensors() if name != VALUES})
            of_part = "" if part is None else f" of a part {part}"
            raise KeyError(f"{uri} has no tensors{of_part}; it has those of {', '.join(parts) or 'no part'}")
        self._names = list(self._specs)
        self._places = {name: place for place, name in enumerate(self._names)}
        self._read: dict[str, torch.Tensor] = {}

    def __getitem__(self, name: str) -> torch.Tensor:
        place = self._places[name]
        if name not in self._read:
            self._read = self._read_from(place)
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def _read_from(self, place: int) -> dict[str, torch.Tensor]:
        tensors: dict[str, torch.Tensor] = {}
        listed, size = [], 0
        for name in self._names[place:]:
            stored, dtype, shape = self._specs[name]
            tensor = torch.empty(shape, dtype=_memory.dtype_of(dtype))
            size += tensor.nbytes
            if tensors and size > TOGETHER:
                break
            tensors[name] = tensor
            listed.append(_memory.listed(stored, tensor))
        self._checkpoint.load(listed)
        return tensors
