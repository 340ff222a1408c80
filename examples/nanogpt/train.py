"""Trains the GPT as a Whimbrel worker; started by hand, alone. plain.py is the same program with PyTorch alone."""

import torch
from torch.nn.utils import clip_grad_norm_
from whimbrel.torch import join

from gpt import GPT, Text, loss_of

torch.manual_seed(1337)
torch.set_num_threads(1)
dataset = Text()
model = GPT(len(dataset.vocabulary))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99))
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200)
run = join(dataset, model=model, optimizer=optimizer, scheduler=scheduler)

for step in run:
    for x, y in step:
        loss = loss_of(model(x), y)
        step.backward(loss)
    clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
