"""What the peers' sides of the trainings share.

On a GPU they compute as is usual there: in bfloat16 by autocast, with the fused optimizers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")


def training(
    model: torch.nn.Module,
    loss: Callable[[], torch.Tensor],
    optimizer: torch.optim.Optimizer,
    steps: int = 1,
) -> tuple[Callable[[], None], int]:
    """What does so many steps of training, and the number of trained parameters."""
    model.train()

    def step() -> None:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with mixed():
                value = loss()
            value.backward()
            optimizer.step()
        wait()

    return step, sum(p.numel() for p in model.parameters() if p.requires_grad)


def mixed() -> torch.autocast:
    """Where to compute in bfloat16, as far as there is a GPU and it is safe."""
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled=GPU)


def wait() -> None:
    """Until all that was started has ended."""
    if GPU:
        torch.cuda.synchronize()


def device() -> dict[str, Any]:
    """Which accelerator this is, and the most memory that was used on it; nothing on a CPU."""
    if not GPU:
        return {}
    peak = torch.cuda.max_memory_allocated()
    return {"device": torch.cuda.get_device_name(), "peak_gib": peak / 2**30}


def adamw(model: torch.nn.Module) -> torch.optim.Optimizer:
    settings = {"lr": 1e-4, "betas": (0.9, 0.95), "weight_decay": 0.05}
    return torch.optim.AdamW(model.parameters(), fused=GPU or None, **settings)


def sgd(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, fused=GPU or None)


def random_crops(*shape: int) -> torch.Tensor:
    """Noise, uint8."""
    return torch.randint(0, 256, shape, dtype=torch.uint8, device=DEVICE)


def scale(crops: torch.Tensor) -> torch.Tensor:
    """Grey values from 0 to 255 as float32 in [−1, 1]."""
    return crops.float() * (2 / 255) - 1
