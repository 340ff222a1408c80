"""The training of examples/nanogpt/train.py in a plain loop without Whimbrel, with a tree sum of its own.

oracle.py SEED OUTPUT_FOLDER, in the folder of the example, with the samples of each shard of each step in samples.json.
Writes each tensor of the final state to a file of its own, as raw bytes.
"""

import hashlib
import json
import sys
from pathlib import Path

import torch
from torch.nn.utils import clip_grad_norm_

from gpt import GPT, Text, loss_of

seed, output = int(sys.argv[1]), Path(sys.argv[2])
torch.manual_seed(1337)
torch.set_num_threads(1)
dataset = Text()
model = GPT(len(dataset.vocabulary))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99))
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200)
parameters = dict(model.named_parameters())


def gradient(step, shard, shards, samples):
    digest = hashlib.blake2b(repr((seed, step, shard, "compute")).encode(), digest_size=8).digest()
    torch.manual_seed(int.from_bytes(digest, "little") >> 1)
    x, y = (torch.stack(tensors) for tensors in zip(*(dataset[sample] for sample in samples), strict=True))
    gradients = torch.autograd.grad(loss_of(model(x), y) * (1.0 / shards), list(parameters.values()))
    # Adding to zero makes -0.0 a 0.0, as accumulating in a gradient of zeros does.
    return [0.0 + tensor for tensor in gradients]


def tree_sum(leaves):
    if len(leaves) == 1:
        return leaves[0]
    half = len(leaves) // 2
    return [left + right for left, right in zip(tree_sum(leaves[:half]), tree_sum(leaves[half:]), strict=True)]


for step, shards in enumerate(json.loads(Path("samples.json").read_text())):
    assert len(shards) & (len(shards) - 1) == 0, "the halves of the tree are equal"
    leaves = [gradient(step, shard, len(shards), samples) for shard, samples in enumerate(shards)]
    for parameter, total in zip(parameters.values(), tree_sum(leaves), strict=True):
        parameter.grad = total
    clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()

output.mkdir()
for name, parameter in parameters.items():
    tensors = {f"model.{name}": parameter.detach()}
    for key, value in optimizer.state[parameter].items():
        tensors[f"optimizer.model.{name}.{key}"] = value
    for key, tensor in tensors.items():
        (output / key).write_bytes(tensor.contiguous().numpy().tobytes())
