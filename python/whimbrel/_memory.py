"""The memory of tensors, as the extension module takes it: by address and size.

The rules that make this sound are those of ``src/memory.rs``: the tensor is contiguous, in host memory, kept alive by
the caller, and not used by other code during the call.
"""

import torch

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.uint16: "U16",
    torch.uint32: "U32",
    torch.uint64: "U64",
    torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}

_BY_NAME = {name: dtype for dtype, name in _DTYPES.items()}


def dtype_of(name: str) -> torch.dtype:
    """The dtype that a checkpoint calls `name`.

    Raises:
        TypeError: PyTorch has none.
    """
    if name not in _BY_NAME:
        raise TypeError(f"the checkpoint holds {name}, which PyTorch cannot")
    return _BY_NAME[name]


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether the extension module can use the tensor's memory as it is."""
    return tensor.device.type == "cpu" and tensor.is_contiguous() and not tensor.is_complex()


def region(tensor: torch.Tensor) -> tuple[int, int]:
    """Address and size in bytes of a tensor that :func:`is_plain`."""
    if not is_plain(tensor):
        raise AssertionError("not a contiguous tensor in host memory")
    return tensor.data_ptr(), tensor.nbytes


def listed(name: str, tensor: torch.Tensor) -> tuple[str, str, list[int], int, int]:
    """Name, dtype, shape, address and size in bytes.

    Raises:
        TypeError: No checkpoint can hold the dtype.
    """
    dtype = _DTYPES.get(tensor.dtype)
    if dtype is None:
        raise TypeError(f"{name} is {tensor.dtype}, which a checkpoint cannot hold")
    return name, dtype, list(tensor.shape), *region(tensor)
