# /// script
# dependencies = ["torch", "whimbrel"]
#
# [tool.whimbrel.train]
# steps = 40
# global_batch = 32
# shards = 16
# seed = 7
#
# [tool.whimbrel.workers]
# threads = 2
# ///
"""What a program may have besides float32 weights: two modules and optimizers, BatchNorm, bfloat16, complex, frozen and
unused weights, gradients that are sparse by layout, generators in the data set and in the model, an evaluation that
changes the learning rate, an early end."""

import os
import random
import time
from pathlib import Path

import torch
from torch import nn
from whimbrel.torch import join

torch.set_num_threads(3)  # before join(), so that it does not count


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 4, sparse=True)
        self.first, self.norm, self.dropout = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.last = nn.Linear(8, 1).to(torch.bfloat16)
        self.phase = nn.Parameter(torch.ones(2, dtype=torch.complex64))
        self.unused = nn.Linear(3, 3)

    def forward(self, x):
        hidden = self.norm(self.first(x + self.table(x.long()[:, 0] % 10)))
        output = self.last(self.dropout(self.frozen(hidden)).bfloat16()).float()
        return output.square().mean() + (self.phase * torch.tensor([1j, 1])).abs().sum()


class Samples:
    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return torch.arange(4.0) + index + random.random() + torch.rand(4)


model, bias = Model(), nn.Linear(1, 1)
optimizer = torch.optim.AdamW(model.parameters())
second = torch.optim.SGD(bias.parameters(), lr=0.1, momentum=0.9)
unused = model.unused.weight.clone()
run = join(Samples(100), model=model, optimizer=optimizer, bias=bias, second=second)
assert torch.get_num_threads() == run.threads == 2
run.evaluate(Samples(75), lambda x: model(x), every=4)
for step in run:
    for x in step:
        step.backward(model(x) + bias(torch.ones(1)).sum())
    assert (step.val_loss is None) == (step.number % 4 != 0 or step.number == 0)
    if step.val_loss is not None:
        for group in optimizer.param_groups:
            group["lr"] = 1e-4 * min(abs(step.val_loss), 10.0)
    optimizer.step()
    second.step()
    if step.number == 28 and run.is_first:
        run.stop()
assert step.number == 29, "one more step than that in which the run is stopped"
assert run.val_loss is not None
assert torch.equal(model.unused.weight, unused), "what no sample uses is not decayed"
time.sleep(1)  # as long as it takes to close a logger, say
Path(f"after-{os.getpid()}").touch()
