"""What Python's safetensors makes of files, as JSON; and files of its own making."""

import json
import pathlib
import sys

import numpy
from safetensors import deserialize, safe_open
from safetensors.numpy import save_file

# What NumPy has by itself.
NUMPY = {"F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"}


def read(folder):
    """Every tensor of every file under a folder: its type, shape and bytes."""
    files = {}
    for path in sorted(pathlib.Path(folder).rglob("*.safetensors")):
        tensors = {
            name: [view["dtype"], list(view["shape"]), bytes(view["data"]).hex()]
            for name, view in deserialize(path.read_bytes())
        }
        with safe_open(path, framework="numpy") as opened:
            assert set(opened.keys()) == set(tensors), path
            for name, (dtype, shape, data) in tensors.items():
                if dtype in NUMPY:
                    array = opened.get_tensor(name)
                    assert list(array.shape) == shape, (path, name)
                    assert array.tobytes().hex() == data, (path, name)
            metadata = opened.metadata()
        files[str(path.relative_to(folder))] = {"tensors": tensors, "metadata": metadata}
    return files


def write(folder):
    """A model in two files and an index, as the libraries save one."""
    folder = pathlib.Path(folder)
    random = numpy.random.default_rng(7)
    first = {
        "embed.weight": random.standard_normal((17, 6)).astype(numpy.float32),
        "mask": random.integers(0, 2, 5).astype(bool),
        "half": random.standard_normal(3).astype(numpy.float16),
    }
    second = {
        "position": numpy.arange(-4, 4),
        "scalar": numpy.array(2.5),
        "empty": numpy.zeros((0, 3), numpy.float32),
        "levels": numpy.arange(9, dtype=numpy.uint16).reshape(3, 3),
    }
    weight_map = {}
    for number, tensors in enumerate([first, second], 1):
        name = f"model-{number:05}-of-00002.safetensors"
        save_file(tensors, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, name)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return read(folder)


print(json.dumps({"read": read, "write": write}[sys.argv[1]](sys.argv[2])))
