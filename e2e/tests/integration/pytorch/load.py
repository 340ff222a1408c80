"""load.py RUN ORACLE_FOLDER: reads the last checkpoint as a program does that only wants the model."""

import sys
from pathlib import Path

import torch
import whimbrel
from whimbrel import _checkpoint

from gpt import GPT, Text

uri, oracle = sys.argv[1], Path(sys.argv[2])
model = GPT(len(Text().vocabulary))
tensors = whimbrel.load(uri, part="model")
assert not tensors._read, "nothing is read before it is asked for"
# The output layer is the embedding, and is there under the embedding's name.
print(model.load_state_dict(tensors, strict=False))
_checkpoint.TOGETHER = 4096
singly = whimbrel.load(Path(uri), part="model")
for name, parameter in model.named_parameters():
    bytes = (oracle / f"model.{name}").read_bytes()
    for tensor in (parameter, singly[name]):
        assert tensor.detach().numpy().tobytes() == bytes, name
everything = whimbrel.load(f"{uri}@{tensors.step}")
assert len(everything) == len(list(oracle.iterdir()))
for part, message in [("modle", "no tensors of a part modle; it has those of model, optimizer")]:
    try:
        whimbrel.load(uri, part=part)
        raise AssertionError("found")
    except KeyError as error:
        assert message in str(error), error
try:
    whimbrel.load(f"{uri}@7")
    raise AssertionError("found")
except whimbrel.WhimbrelError as error:
    assert "has no checkpoint of step 7; it has those of steps" in str(error), error
