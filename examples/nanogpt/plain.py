"""Trains the GPT with PyTorch alone. train.py is the same program as a Whimbrel worker."""

import torch
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader

from gpt import GPT, Text, loss_of

torch.manual_seed(1337)
torch.set_num_threads(1)
dataset = Text()
model = GPT(len(dataset.vocabulary))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99))
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200)
batches = iter(DataLoader(dataset, batch_size=4, shuffle=True))

for step in range(200):
    optimizer.zero_grad()
    for _ in range(8):
        x, y = next(batches)
        loss = loss_of(model(x), y)
        (loss / 8).backward()
    clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
    if step % 10 == 0:
        print(f"step {step}: loss {loss.item():.4f}")

torch.save(model.state_dict(), "model.pt")
