"""A training section of a config, `pretrain` or `finetune`: its optimizer, schedule, batches."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax

from maemem.config import Config
from maemem.data.samples.pipeline import batches
from maemem.training.fit import Training
from maemem.training.loop import Schedule
from maemem.training.mesh import check_divisible
from maemem.training.optimizer import OptimizerSettings

Batch = TypeVar("Batch")

# Held-out crops and masks are the same whatever the run's seed, so that runs compare.
EVAL_SEED = 0


def optimizer_settings(optimizer: Config, steps: int, **of_encoder) -> OptimizerSettings:
    """An optimizer section of a config, for a run of so many steps."""
    return OptimizerSettings(steps=steps, **optimizer.to_dict(), **of_encoder)


def training(config: Config, settings: Config, folder: pathlib.Path, **of_encoder) -> Training:
    """A training section of a config, `pretrain` or `finetune`, as a run in a folder.

    Raises:
      ValueError: if the schedule is impossible.
    """
    return Training(
        folder,
        config.seed,
        config.data.crop_zyx,
        optimizer_settings(settings.optimizer, settings.steps, **of_encoder),
        Schedule(
            settings.steps, settings.log_every, settings.eval_every, settings.checkpoint_every
        ),
        settings.ema_decay,
        settings.accumulation,
        config.runtime.fsdp,
        settings.keep_checkpoints,
    )


def check_batches(stage: str, settings: Config) -> None:
    """Checks that batches can be split over the devices.

    Raises:
      ValueError: if they cannot.
    """
    check_divisible(f"{stage}.batch_size", settings.batch_size, settings.accumulation)
    check_divisible(f"{stage}.eval_crops", settings.eval_crops, 1)


def read_batches(
    config: Config, settings: Config, read: Callable[[range], Batch]
) -> Callable[[int], Iterator[Batch]]:
    """This process's batches of a training section, from a step on.

    Args:
      config: with the runtime.
      settings: the section.
      read: of the samples; see `pipeline.batches`.
    """
    return lambda first_step: batches(
        read,
        batch_size=settings.batch_size,
        first_step=first_step,
        last_step=settings.steps,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        read_threads=config.runtime.read_threads,
        prefetch=config.runtime.prefetch,
    )
