"""A training section of a config, `pretrain` or `finetune`, as a run with its batches."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax

from maemem.config import Config
from maemem.data.samples.pipeline import batches
from maemem.fields import build
from maemem.training.fit import Training

Batch = TypeVar("Batch")

# Held-out crops and masks are the same whatever the run's seed, so that runs compare.
EVAL_SEED = 0


def make_training(config: Config, stage: str, workdir: pathlib.Path) -> Training:
    """How a stage trains.

    Raises:
      ValueError: if a field has a value that no run can work with.
    """
    own = {name: value for name, value in config[stage].items() if name not in _OF_LEARNER}
    return build(
        Training,
        own,
        stage,
        folder=workdir / stage,
        seed=config.seed,
        fsdp=config.runtime.fsdp,
    )


# What the section says of the learner; see `assembly.learners`.
_OF_LEARNER = ("learner", "augmentation")


def read_batches(
    config: Config, run: Training, read: Callable[[range], Batch]
) -> Callable[[int], Iterator[Batch]]:
    """This process's batches of a training, from a step on.

    Args:
      config: with the runtime.
      run: how long, and in which batches.
      read: of the samples; see `pipeline.batches`.
    """
    return lambda first_step: batches(
        read,
        batch_size=run.batch_size,
        first_step=first_step,
        last_step=run.steps,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        read_threads=config.runtime.read_threads,
        prefetch=config.runtime.prefetch,
    )
