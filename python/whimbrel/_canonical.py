"""Plain Python values as bytes: equal values give equal bytes in every process. Pickles do not, and can run code."""

import json
from collections import Counter
from typing import Any


def dumps(value: object) -> bytes:
    """Encodes a value made of numbers, strings, ``None``, lists, tuples and dicts. Without zero bytes.

    Raises:
        TypeError: The value holds something else. The message names its type.
    """
    return json.dumps(_encoded(value), separators=(",", ":")).encode()


def loads(data: bytes) -> Any:
    """The value that was encoded; numbers of NumPy and of enumerations come back as Python's own."""
    return _decoded(json.loads(data))


def _encoded(value: object) -> object:
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return {"f": value.hex()}
    if isinstance(value, list):
        return [_encoded(item) for item in value]
    if isinstance(value, tuple):
        return {"t": [_encoded(item) for item in value]}
    if isinstance(value, dict):
        kind = "c" if isinstance(value, Counter) else "d"
        return {kind: [[_encoded(key), _encoded(item)] for key, item in value.items()]}
    # NumPy's float64 is a float, and enumerations may be strings.
    for plain in (bool, int, float, str):
        if isinstance(value, plain):
            return _encoded(plain(value))
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "ndim", None) == 0:
        return _encoded(item())
    kind = type(value).__name__
    raise TypeError(f"the state holds a {kind}; a checkpoint holds tensors, numbers, strings, lists, tuples and dicts")


def _decoded(plain: Any) -> Any:
    if isinstance(plain, list):
        return [_decoded(item) for item in plain]
    if not isinstance(plain, dict):
        return plain
    ((kind, content),) = plain.items()
    if kind == "f":
        return float.fromhex(content)
    if kind == "t":
        return tuple(_decoded(item) for item in content)
    pairs = {_decoded(key): _decoded(item) for key, item in content}
    return Counter(pairs) if kind == "c" else pairs
