"""What tells a data set apart from another one: the hashes of a few of its samples."""

from __future__ import annotations

import ctypes
import hashlib
import sys
from collections.abc import Mapping
from typing import Any

import torch

from . import _seeding


def of_samples(dataset: Any) -> dict[str, str]:
    """The hashes of four samples of a data set, by what they are of. Equal samples have equal hashes in every process.

    A sample is any mix of tensors, arrays, numbers, strings, bytes and containers of them. Of other objects, such as
    images, the type alone counts.

    Args:
        dataset: It has ``len()`` and ``[i]``, or ``__getitems__``.
    """
    count = len(dataset)
    if count == 0:
        return {}
    many = getattr(dataset, "__getitems__", None)
    hashes = {}
    with _seeding.preserved():
        for index in sorted({0, count // 3, 2 * count // 3, count - 1}):
            # As for a shard: what the data set draws must be the same in every process.
            _seeding.before_reading(0, 0, 0)
            sample = many([index]) if many else dataset[index]
            hashed = hashlib.blake2b(digest_size=8)
            _update(hashed, sample)
            hashes[f"sample {index}"] = hashed.hexdigest()
    return hashes


def _update(hashed: hashlib.blake2b, value: Any) -> None:
    """Hashes a value. Each begins with its kind and size, so that two values never have the same bytes in a row."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)):
        try:
            # PyTorch takes neither negative strides nor another byte order.
            value = torch.as_tensor(numpy.array(value, dtype=value.dtype.newbyteorder("="), order="C"))
        except TypeError:  # of strings, times or objects
            value = value.tolist()
    if isinstance(value, torch.Tensor):
        tensor = value.detach().to_dense() if value.layout != torch.strided else value.detach()
        tensor = tensor.cpu().contiguous()
        if tensor.is_complex():
            tensor = torch.view_as_real(tensor)
        hashed.update(f"tensor {value.dtype} {list(value.shape)} ".encode())
        hashed.update(ctypes.string_at(tensor.data_ptr(), tensor.nbytes))
    elif isinstance(value, (bool, int, float, complex, str, type(None))):
        hashed.update(f"{type(value).__name__} {len(repr(value))} {value!r}".encode())
    elif isinstance(value, (bytes, bytearray)):
        hashed.update(f"bytes {len(value)} ".encode() + value)
    elif isinstance(value, Mapping):
        hashed.update(f"map {len(value)} ".encode())
        for key, item in value.items():
            _update(hashed, key)
            _update(hashed, item)
    elif isinstance(value, (list, tuple)):
        hashed.update(f"list {len(value)} ".encode())
        for item in value:
            _update(hashed, item)
    else:
        hashed.update(f"object {type(value).__qualname__} ".encode())
