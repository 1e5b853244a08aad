"""The vision transformer of maemem in plain PyTorch: pre-norm blocks, sin-cos places."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """Attention and a hidden layer four times as wide."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width, eps=1e-6)
        self.norm_mlp = nn.LayerNorm(width, eps=1e-6)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp_in, self.mlp_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """`[b n d]` to `[b n d]`."""
        b, n, d = tokens.shape
        qkv = self.qkv(self.norm_attention(tokens)).reshape(b, n, 3, self.heads, d // self.heads)
        mixed = functional.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4))
        tokens = tokens + self.out(mixed.transpose(1, 2).reshape(b, n, d))
        return tokens + self.mlp_out(functional.gelu(self.mlp_in(self.norm_mlp(tokens))))


class Transformer(nn.Module):
    """A row of blocks and a last norm."""

    def __init__(self, width: int, depth: int, heads: int):
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, tokens: torch.Tensor) -> list[torch.Tensor]:
        """The tokens after each block, the last of them normed."""
        states = []
        for block in self.blocks:
            tokens = block(tokens)
            states.append(tokens)
        return [*states[:-1], self.norm(tokens)]


def sincos(grid, width: int) -> torch.Tensor:
    """Places of the tokens of a grid: `[n width]`, a third of it for each axis, what is left 0."""
    waves = width // 6
    frequencies = 1e-4 ** (torch.arange(waves) / waves)
    places = torch.cartesian_prod(*map(torch.arange, grid))
    angles = places[:, :, None] * frequencies
    embedding = torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)
    return functional.pad(embedding, (0, width - embedding.shape[1]))


def patchify(crops: torch.Tensor, patch) -> torch.Tensor:
    """Crops `[b z y x]` as flat patches `[b n p]`."""
    for axis, size in enumerate(patch, 1):
        crops = crops.unfold(axis, size, size)
    return crops.flatten(1, 3).flatten(2)
