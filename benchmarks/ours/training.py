"""What our sides of the trainings share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from maemem.learners.contract import Batch, Learner, Like
from maemem.models.compute import compute_here
from maemem.training.fit import Prepared, Training, prepare
from maemem.training.mesh import place
from maemem.training.optimizer import Optimizer
from maemem.training.step import compile_beside

LIBRARIES = ("maemem", "jax", "flax")
COMPUTE = compute_here()  # As the stages compute on this machine.
ADAMW = Optimizer("adamw", 1e-4, weight_decay=0.05)
SGD = Optimizer("sgd", 1e-4, weight_decay=0.0, momentum=0.9)


def training(
    learner: Learner, batch: Batch, optimizer: Optimizer, steps: int = 1
) -> tuple[Callable[[], None], int]:
    """What does so many steps of training on a batch, and the number of parameters."""
    mesh, like, make, train_step = step_of(learner, like_of(batch), optimizer)
    placed = place(batch, mesh)
    state = compile_beside(train_step, like, placed, make)

    def step() -> None:
        nonlocal state
        for _ in range(steps):
            state, _ = train_step(state, placed)
        jax.block_until_ready(state)

    return step, sum(leaf.size for leaf in jax.tree.leaves(like.params))


def like_of(batch: Batch) -> Like:
    """Shapes and dtypes of a batch."""
    return {name: jax.ShapeDtypeStruct(rows.shape, rows.dtype) for name, rows in batch.items()}


def step_of(learner: Learner, like: Like, optimizer: Optimizer, fsdp: bool = False) -> Prepared:
    """What a state looks like, what makes one, and the step, as the stages have them."""
    given = {"folder": None, "seed": 0, "fsdp": fsdp}
    return prepare(learner, Training(10**6, optimizer=optimizer, **given), like)


def device() -> dict[str, Any]:
    """Which accelerator this is, and the most memory that was used on it; nothing on a CPU."""
    (first, *_) = jax.devices()
    if first.platform == "cpu":
        return {}
    peak = first.memory_stats()["peak_bytes_in_use"]
    return {"device": first.device_kind, "peak_gib": peak / 2**30}


def random_crops(*shape: int) -> np.ndarray:
    """Noise, uint8."""
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)
