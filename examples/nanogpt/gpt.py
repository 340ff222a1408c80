"""A small GPT over characters, and the text that it learns."""

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

TEXT = Path(__file__).with_name("text.txt")


class Text(Dataset):
    """Every stretch of `context` characters of a text, and the characters that follow each."""

    def __init__(self, context=64):
        if not TEXT.is_file():
            raise SystemExit(f"there is no {TEXT}; write it by: cargo run -p char-lm -- text > {TEXT}")
        text = TEXT.read_text(encoding="utf-8")
        self.vocabulary = sorted(set(text))
        symbols = {character: symbol for symbol, character in enumerate(self.vocabulary)}
        self.symbols = torch.tensor([symbols[character] for character in text])
        self.context = context

    def __len__(self):
        return len(self.symbols) - self.context

    def __getitem__(self, start):
        end = start + self.context
        return self.symbols[start:end], self.symbols[start + 1 : end + 1]


class Block(nn.Module):
    def __init__(self, width, heads, dropout):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(dropout)
        )

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    def __init__(self, symbols, context=64, width=64, layers=2, heads=4, dropout=0.1):
        super().__init__()
        self.symbols, self.positions = nn.Embedding(symbols, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, symbols, bias=False)
        self.head.weight = self.symbols.weight
        nn.init.normal_(self.symbols.weight, std=0.02)

    def forward(self, x):
        hidden = self.symbols(x) + self.positions(torch.arange(x.shape[1]))
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(self.norm(hidden))


def loss_of(logits, y):
    return F.cross_entropy(logits.flatten(0, 1), y.flatten())
