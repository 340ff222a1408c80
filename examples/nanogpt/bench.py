# /// script
# dependencies = ["torch", "whimbrel"]
#
# [tool.whimbrel.train]
# steps = 40
# global_batch = 16
# shards = 2
#
# [tool.whimbrel.checkpoint]
# every = "1000 steps"
# ///
"""What a step costs a worker beside a plain PyTorch loop: both in one process, step by step in turn, one thread.

`whimbrel run examples/nanogpt/bench.py --workers 1` runs it, and `whimbrel logs` shows what it prints. Words after the
script are the width of the model and its layers; if not given 256 and 12, which are 9.7M parameters.
"""

import sys
import time
from statistics import median, quantiles

import torch
from torch.nn.utils import clip_grad_norm_
from whimbrel.torch import join

from gpt import GPT, Text, loss_of

WARM_UP = 5
SHARD = 8

torch.manual_seed(1337)
dataset = Text()
width, layers = (int(word) for word in [*sys.argv[1:], 256, 12][:2])


def build():
    model = GPT(len(dataset.vocabulary), width=width, layers=layers)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-3)


model, optimizer = build()
plain, plain_optimizer = build()


def plain_step(batches):
    """The same work without Whimbrel: micro-batches that accumulate their gradients."""
    plain_optimizer.zero_grad()
    for samples in batches:
        pairs = [dataset[sample] for sample in samples]
        x, y = (torch.stack(part) for part in zip(*pairs, strict=True))
        (loss_of(plain(x), y) / len(batches)).backward()
    clip_grad_norm_(plain.parameters(), 1.0)
    plain_optimizer.step()


run = join(dataset, model=model, optimizer=optimizer)
ratios, mine, theirs = [], [], []
began = (time.perf_counter(), time.process_time())
for step in run:
    for x, y in step:
        step.backward(loss_of(model(x), y))
    clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    between = (time.perf_counter(), time.process_time())
    first = step.number * run.global_batch
    plain_step([range(first + SHARD * shard, first + SHARD * (shard + 1)) for shard in range(run.shards)])
    ended = (time.perf_counter(), time.process_time())
    if step.number >= WARM_UP:
        mine.append(between[0] - began[0])
        theirs.append(ended[0] - between[0])
        ratios.append((mine[-1] / theirs[-1], (between[1] - began[1]) / (ended[1] - between[1])))
    began = ended

parameters = sum(parameter.numel() for parameter in model.parameters())
wall, processor = zip(*ratios, strict=True)
print(f"{parameters / 1e6:.1f}M parameters, {run.shards} shards of {SHARD} samples, {len(ratios)} steps, 1 thread")
print(f"  a step     {median(mine) * 1e3:.1f} ms, of a plain loop {median(theirs) * 1e3:.1f} ms")
for name, values in [("time", wall), ("processor", processor)]:
    low, *_, high = quantiles(values, n=4)
    print(f"  {name:<10} {median(values):.3f} of the plain loop's (middle half {low:.3f} to {high:.3f})")
