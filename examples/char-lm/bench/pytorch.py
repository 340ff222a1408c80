#!/usr/bin/env python3
"""The step of `char-lm-bench step` in PyTorch: nanoGPT's example for CPUs, a batch of 12, AdamW, gradient clipping.

    python3 bench/pytorch.py [--threads 1 2] [--steps 300]

Needs torch. Prints the same line as char-lm-bench, one for each number of threads.
"""

import argparse
import statistics
import subprocess
import sys
import time

LAYERS, WIDTH, HEADS, CONTEXT, BATCH, VOCABULARY = 4, 128, 4, 64, 12, 65
WARM_UP = 30


def build(torch):
    nn, functional = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.ln1 = nn.LayerNorm(WIDTH, bias=False)
            self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
            self.proj = nn.Linear(WIDTH, WIDTH, bias=False)
            self.ln2 = nn.LayerNorm(WIDTH, bias=False)
            self.fc = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
            self.out = nn.Linear(4 * WIDTH, WIDTH, bias=False)

        def forward(self, x):
            batch, length, _ = x.shape
            by_head = (batch, length, HEADS, WIDTH // HEADS)
            query, key, value = (
                part.view(by_head).transpose(1, 2) for part in self.qkv(self.ln1(x)).split(WIDTH, dim=2)
            )
            attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
            x = x + self.proj(attended.transpose(1, 2).reshape(x.shape))
            return x + self.out(functional.gelu(self.fc(self.ln2(x))))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.wte = nn.Embedding(VOCABULARY, WIDTH)
            self.wpe = nn.Embedding(CONTEXT, WIDTH)
            self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
            self.lnf = nn.LayerNorm(WIDTH, bias=False)
            for parameter in self.parameters():
                if parameter.dim() > 1:
                    nn.init.normal_(parameter, 0.0, 0.02)

        def forward(self, tokens, following):
            x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
            logits = functional.linear(self.lnf(self.blocks(x)), self.wte.weight)
            return functional.cross_entropy(logits.view(-1, VOCABULARY), following.view(-1))

    return Model()


def measure(threads, steps):
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(1)
    model = build(torch)
    weights = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    gains = [parameter for parameter in model.parameters() if parameter.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": weights, "weight_decay": 0.1}, {"params": gains, "weight_decay": 0.0}],
        lr=1e-3,
        betas=(0.9, 0.99),
        foreach=True,
    )
    times = []
    for step in range(WARM_UP + steps):
        if step == WARM_UP:
            processor = time.process_time()
        tokens = (torch.arange(BATCH * CONTEXT).view(BATCH, CONTEXT) * 7 + step) % VOCABULARY
        following = (tokens * 3 + 1) % VOCABULARY
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss = model(tokens, following)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()
        times.append((time.perf_counter() - start) * 1e3)
    processor = (time.process_time() - processor) * 1e3 / steps
    times = times[WARM_UP:]
    median = statistics.median(times)
    print(
        f"{f'torch {torch.__version__}, {threads} threads':24}  median {median:6.2f} ms  fastest {min(times):6.2f} ms  "
        f"processor {processor:6.2f} ms  {BATCH * CONTEXT / median * 1e3:8.0f} characters/s"
    )


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments.add_argument("--steps", type=int, default=300)
    arguments = arguments.parse_args()
    try:
        import torch  # noqa: F401
    except ImportError as error:
        sys.exit(f"torch cannot be imported ({error}); pip install torch")
    if len(arguments.threads) == 1:
        return measure(arguments.threads[0], arguments.steps)
    # One process per number of threads, because PyTorch makes its thread pool once.
    for threads in arguments.threads:
        command = [sys.executable, __file__, "--threads", str(threads), "--steps", str(arguments.steps)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
