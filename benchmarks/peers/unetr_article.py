"""maemem's UNETR, written by hand in plain PyTorch."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from benchmarks.peers.training import DEVICE, device, random_crops, scale, sgd, training
from benchmarks.peers.transformer import Transformer, patchify, sincos

LIBRARIES = ("torch",)


def block(inputs: int, features: int) -> nn.Sequential:
    """Convolution, norm and ReLU."""
    groups = max(n for n in range(1, max(1, features // 8) + 1) if features % n == 0)
    convolution = nn.Conv3d(inputs, features, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(groups, features), nn.ReLU(inplace=True))


def up(inputs: int, features: int, stride) -> nn.ConvTranspose3d:
    """An up-sampling whose kernel is as large as its stride."""
    return nn.ConvTranspose3d(inputs, features, stride, stride, bias=False)


class Unetr(nn.Module):
    """Every quarter of the encoder joins the decoder at a level of its own."""

    def __init__(self, grid, patch, encoder, channels, outputs: int):
        super().__init__()
        self.grid, self.patch, (width, depth, _) = grid, patch, encoder
        self.patch_embedding = nn.Linear(math.prod(patch), width)
        self.register_buffer("places", sincos(grid, width))
        self.encoder = Transformer(*encoder)
        levels = len(channels)
        # Axes along which a patch is short join at the coarsest steps.
        strides = [
            [2 if levels - int(math.log2(p)) <= level else 1 for p in patch]
            for level in range(levels)
        ]
        self.stem = nn.Sequential(block(1, channels[0] // 2), block(channels[0] // 2, channels[0]))
        self.skips = [(max(1, round(depth * k / 4)) - 1, max(1, levels - 4 + k)) for k in (1, 2, 3)]
        self.climbs = nn.ModuleList()
        beside = [channels[0]] + [0] * (levels - 1)
        for _, level in self.skips:
            climb, before = [], width
            for i in reversed(range(level, levels)):
                climb += [up(before, channels[i], strides[i]), block(channels[i], channels[i])]
                before = channels[i]
            self.climbs.append(nn.Sequential(*climb))
            beside[level] += channels[level]
        self.ups, self.levels = nn.ModuleList(), nn.ModuleList()
        for level in range(levels):
            here, below = channels[level], [*channels[1:], width][level]
            self.ups.append(up(below, here, strides[level]))
            more = [block(here, here) for _ in range(2 if level == levels - 1 else 1)]
            self.levels.append(nn.Sequential(block(here + beside[level], here), *more))
        self.head = nn.Conv3d(channels[0], outputs, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """`[b 1 z y x]` to logits `[b outputs z y x]`."""
        tokens = self.patch_embedding(patchify(image[:, 0], self.patch)) + self.places
        states = [
            state.transpose(1, 2).reshape(len(image), -1, *self.grid)
            for state in self.encoder(tokens)
        ]
        beside: list[list[torch.Tensor]] = [[] for _ in self.levels]
        beside[0].append(self.stem(image))
        for (place, level), climb in zip(self.skips, self.climbs, strict=True):
            beside[level].append(climb(states[place]))
        volume = states[-1]
        for level in reversed(range(len(self.levels))):
            volume = torch.cat([self.ups[level](volume), *beside[level]], dim=1)
            volume = self.levels[level](volume)
        return self.head(volume)


def prepare(crop, patch, encoder, channels, outputs, batch, steps=1):
    torch.manual_seed(0)
    # A fifth faster than the default here.
    layout = {"memory_format": torch.channels_last_3d}
    grid = [c // p for c, p in zip(crop, patch, strict=True)]
    model = Unetr(grid, patch, encoder, channels, outputs).to(DEVICE, **layout)
    crops = random_crops(batch, 1, *crop)
    targets = (
        torch.randint(0, 2, (batch, outputs, *crop), device=DEVICE).float().contiguous(**layout)
    )

    def loss() -> torch.Tensor:
        logits = model(scale(crops).contiguous(**layout))
        return functional.binary_cross_entropy_with_logits(logits, targets)

    step, parameters = training(model, loss, sgd(model), steps)
    return step, lambda: {"amount": steps * batch, "parameters": parameters, **device()}
