"""Checks of a training: its memory and its pace, by a few of its own steps."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
import math
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from maemem.assembly.encoders import start_encoder
from maemem.assembly.trainings import read_batches
from maemem.assembly.volumes import open_labelled_mix, open_mix
from maemem.config import WORKDIR, Config
from maemem.doctor.machine import fits, memory_of_device
from maemem.doctor.verdict import Verdict, amount, duration
from maemem.learners.mae import Reconstruction
from maemem.learners.supervised import Segmentation
from maemem.stages import finetune, pretrain
from maemem.training.fit import Prepared, Training, prepare
from maemem.training.mesh import place
from maemem.training.step import TrainState

log = logging.getLogger(__name__)

# By stage: what opens all that is learnt from, and what is held out.
PREPARE = {
    "pretrain": (pretrain.prepare, open_mix),
    "finetune": (finetune.prepare, open_labelled_mix),
}

_SECONDS, _STEPS = 3.0, 20  # Something is timed so long, and no more often.


@dataclasses.dataclass(frozen=True)
class Trial:
    """A training of a config, ready to do a few steps; it writes nothing."""

    stage: str
    config: Config
    objective: Reconstruction | Segmentation
    run: Training
    read: Callable[[range], Any]

    @functools.cached_property
    def prepared(self) -> Prepared:
        """What it computes with."""
        return prepare(self.objective, self.run)

    @property
    def settings(self) -> Config:
        """Its section of the config."""
        return self.config[self.stage]

    @functools.cached_property
    def batch(self) -> PyTree:
        """The first one, on the host."""
        return self.read(range(self.settings.batch_size))

    @functools.cached_property
    def compiled(self) -> jax.stages.Compiled:
        """One step."""
        log.info("compiling a step of %s; the run will find it compiled", self.stage)
        mesh, like, _, train_step = self.prepared
        return train_step.lower(like, place(self.batch, mesh)).compile()

    @property
    def state_bytes(self) -> int:
        """Of parameters and optimizer: what a checkpoint holds."""
        leaves = jax.tree.leaves(self.prepared.like)
        return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)

    @property
    def parameters(self) -> int:
        """How many."""
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(self.prepared.like.params))


def open_trial(config: Config, stage: str, workdir: pathlib.Path) -> Trial:
    """Checks what the stage checks, and opens what it opens.

    Raises:
      ValueError: if the config is inconsistent or a volume cannot serve.
    """
    make, open_held_out = PREPARE[stage]
    made = make(config, workdir)
    open_held_out(config, "validation", workdir)
    return Trial(stage, config, *made)


def describe(trial: Trial) -> Verdict:
    """What is trained."""
    settings = trial.settings
    return Verdict(
        "ok",
        f"{trial.parameters:,} parameters, {settings.steps:,} steps of {settings.batch_size} crops",
    )


def memory(trial: Trial) -> Verdict:
    """Whether a step fits the memory of a device, as XLA has planned it."""
    return planned(
        trial.compiled,
        "a step, {} of it state and batch",
        f"--config.{trial.stage}.accumulation=2 or more, --config.runtime.remat=True, or a smaller "
        f"--config.{trial.stage}.batch_size",
    )


def planned(compiled: jax.stages.Compiled, what: str, mend: str) -> Verdict:
    """Whether what XLA has planned fits the memory of a device.

    Args:
      compiled: the plan.
      what: is done by it, with {} for the bytes of its arguments.
      mend: how to need less.
    """
    plan: Any = compiled.memory_analysis()
    if plan is None:
        return Verdict("ok", "not known: XLA does not say it on this platform")
    given = plan.argument_size_in_bytes
    needed = given + plan.temp_size_in_bytes + plan.output_size_in_bytes
    needed -= plan.alias_size_in_bytes
    there, where = memory_of_device()
    return fits(f"{amount(needed)} {what.format(amount(given))}", needed, there, where, mend)


def pace(trial: Trial) -> Verdict:
    """How fast steps are, how fast crops come, and how long the stage will take."""
    batches = read_batches(trial.config, trial.settings, trial.read)(0)
    crops = trial.settings.batch_size * per_second(batches)
    step = seconds_of_step(trial)
    return foretell(step, crops, trial.stage, trial.settings)


def foretell(step: float, crops: float, stage: str, settings: Config) -> Verdict:
    """How long a stage will take, and whether it waits for its input.

    Args:
      step: seconds of one.
      crops: that are read a second, while nothing else is done.
      stage: its name.
      settings: its section of the config.
    """
    used = settings.batch_size / step
    training = settings.steps * max(step, settings.batch_size / crops)
    # A forward pass is about a third of a step.
    evaluations = math.ceil(settings.steps / settings.eval_every)
    evaluating = evaluations * settings.eval_crops / settings.batch_size * step / 3
    said = (
        f"{duration(step)} a step, {used:.3g} crops a second; {crops:.3g} can be read; about "
        f"{duration(training + evaluating)} for {settings.steps:,} steps and their evaluations"
    )
    if crops < 1.2 * used:
        return Verdict(
            "warn",
            f"{said}; steps wait for crops",
            "more --config.runtime.read_threads, a larger --config.runtime.cache_bytes, or "
            "converted volumes (see the lines `chunks`)",
            training + evaluating,
        )
    return Verdict("ok", said, seconds=training + evaluating)


def total(stages: Sequence[str], foretold: Mapping[str, float]) -> Verdict:
    """How long a run will take.

    Args:
      stages: all that it does.
      foretold: the seconds of those of which they are known, by stage.
    """
    known = [stage for stage in stages if stage in foretold]
    others = ", ".join(stage for stage in stages if stage not in foretold)
    if not known:
        return Verdict("ok", f"not foretold: {others}")
    said = f"about {duration(sum(foretold[stage] for stage in known))} for {', '.join(known)}"
    return Verdict("ok", f"{said}; not foretold, so it comes on top: {others}" if others else said)


def per_second(items: Iterator[Any]) -> float:
    """How many items come a second, for a few seconds, once the first is there."""
    next(items)
    began, count = time.perf_counter(), 0
    for _ in items:
        count += 1
        if time.perf_counter() - began > _SECONDS:
            break
    return max(count, 1) / (time.perf_counter() - began)


def seconds_of_step(trial: Trial) -> float:
    """The median of a few steps, the first left out."""
    mesh, _, make_state, _ = trial.prepared
    state, times = make_state(), []
    for count in itertools.count(1):
        began = time.perf_counter()
        state, metrics = trial.compiled(state, place(trial.batch, mesh))
        jax.block_until_ready((state, metrics))
        times.append(time.perf_counter() - began)
        if count > 1 and (sum(times[1:]) > _SECONDS or count > _STEPS):
            break
    if not math.isfinite(float(metrics["loss"])):
        raise ValueError(
            f"the loss is not finite after {count} steps; look for NaNs in the volumes, and try a "
            f"smaller learning rate"
        )
    return float(np.median(times[1:]))


def encoder(trial: Trial, workdir: pathlib.Path) -> Verdict:
    """Whether the encoder that the training starts from is there, and fits.

    Raises:
      FileNotFoundError: if there is none where the config says.
      ValueError: if it is another one than the config describes.
    """
    config, name = trial.config, trial.settings.encoder
    if not name:
        return Verdict("ok", "from scratch")
    made = WORKDIR in name and "pretrain" in config.stages
    if made and not (workdir / "pretrain" / "checkpoints").exists():
        return Verdict("ok", "the stage pretrain makes it first")
    start_encoder(state_of(trial).params, config, name, workdir)
    return Verdict("ok", f"{name.replace(WORKDIR, str(workdir))} fits")


def state_of(trial: Trial) -> TrainState:
    """As the training begins."""
    return trial.prepared.make_state()
