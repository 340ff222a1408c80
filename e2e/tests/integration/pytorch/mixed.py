"""Mixed precision with a GradScaler whose scale is too large at first, and shards of unlike weights, some of them zero;
the program reads its shards by itself."""

import torch
from torch import nn
from whimbrel.torch import join

torch.set_num_threads(1)


def read(step, shard):
    return torch.sin(torch.arange(8.0).view(2, 4) + step * 16 + shard) + 0.1 * torch.rand(2, 4)


model = nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.Dropout(0.1), nn.Linear(16, 4))
optimizer = torch.optim.AdamW(model.parameters())
scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30, growth_interval=6)
scales = []
run = join(read, model=model, optimizer=optimizer, scaler=scaler)
for step in run:
    for x in step:
        with torch.autocast("cpu", torch.float16):
            loss = (model(x) - x).square().mean()
        step.backward(loss, weight=(x[:, 0] > -0.9).sum())
    scaler.step(optimizer)
    scales.append(scaler.get_scale())
    scaler.update()
pairs = list(zip(scales, scales[1:]))
assert any(after < before for before, after in pairs), scales
assert any(after > before for before, after in pairs), scales
