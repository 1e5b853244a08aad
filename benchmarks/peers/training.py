"""What the peers' sides of the trainings share."""

from __future__ import annotations

from collections.abc import Callable

import torch


def training(
    model: torch.nn.Module, loss: Callable[[], torch.Tensor], optimizer: torch.optim.Optimizer
) -> tuple[Callable[[], None], int]:
    """What does a step of training, and the number of trained parameters."""
    model.train()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    return step, sum(p.numel() for p in model.parameters() if p.requires_grad)


def adamw(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05)


def sgd(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)


def random_crops(*shape: int) -> torch.Tensor:
    """Noise, uint8."""
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def scale(crops: torch.Tensor) -> torch.Tensor:
    """Grey values from 0 to 255 as float32 in [−1, 1]."""
    return crops.float() * (2 / 255) - 1
