"""What our sides of the trainings share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from maemem.assembly.networks import compute
from maemem.config import pretraining
from maemem.training.mesh import make_mesh, place
from maemem.training.optimizer import OptimizerSettings
from maemem.training.step import TrainState, compile_beside, make_train_step, state_maker

LIBRARIES = ("maemem", "jax", "flax")
# As the stages compute on this machine.
COMPUTE = compute(pretraining())
ADAMW = {"name": "adamw", "betas": (0.9, 0.95), "momentum": 0.0, "weight_decay": 0.05}
SGD = {"name": "sgd", "betas": (0.0, 0.0), "momentum": 0.9, "weight_decay": 0.0}


def training(
    init: Callable, loss: Callable, batch: PyTree, optimizer: dict[str, Any], steps: int = 1
) -> tuple[Callable[[], None], int]:
    """What does so many steps of training on a batch, and the number of parameters."""
    mesh = make_mesh()
    like, make_state, train_step = step_of(init, loss, optimizer, mesh)
    batch = place(batch, mesh)
    state = compile_beside(train_step, like, batch, make_state)

    def step() -> None:
        nonlocal state
        for _ in range(steps):
            state, _ = train_step(state, batch)
        jax.block_until_ready(state)

    return step, sum(leaf.size for leaf in jax.tree.leaves(like.params))


def device() -> dict[str, Any]:
    """Which accelerator this is, and the most memory that was used on it; nothing on a CPU."""
    (first, *_) = jax.devices()
    if first.platform == "cpu":
        return {}
    peak = first.memory_stats()["peak_bytes_in_use"]
    return {"device": first.device_kind, "peak_gib": peak / 2**30}


def step_of(
    init: Callable, loss: Callable, optimizer: dict[str, Any], mesh: Mesh, fsdp: bool = False
) -> tuple[TrainState, Callable[[], TrainState], jax.stages.Wrapped]:
    """What a state looks like, what makes one, and the step, as the stages have them."""
    settings = OptimizerSettings(
        learning_rate=1e-4, warmup_steps=0, steps=10**6, clip_norm=0.0, **optimizer
    )
    transformation = settings.transformation()
    placed = {"mesh": mesh, "fsdp": fsdp, "seed": 0}
    like, make_state = state_maker(init, transformation, ema=False, **placed)
    train_step = make_train_step(
        loss, transformation, settings.schedule(), like, ema_decay=0.0, accumulation=1, **placed
    )
    return like, make_state, train_step


def random_crops(*shape: int) -> np.ndarray:
    """Noise, uint8."""
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)
