"""Checks of a training: its memory and its pace, by a few of its own steps."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
import math
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from maemem.assembly.starts import start_from
from maemem.assembly.trainings import read_batches
from maemem.config import Config
from maemem.doctor.machine import fits, memory_of_device
from maemem.doctor.verdict import Verdict, amount, duration
from maemem.layout import WORKDIR
from maemem.learners.contract import Batch
from maemem.stages import train
from maemem.training.fit import Prepared, Training, prepare
from maemem.training.mesh import place
from maemem.training.step import TrainState

log = logging.getLogger(__name__)

_SECONDS, _STEPS = 3.0, 20  # Something is timed so long, and no more often.
_OPERATIONS = 1e12  # What two cores do in some ten seconds: no more is timed at once on CPUs.


@dataclasses.dataclass(frozen=True)
class Trial:
    """A training of a config, ready to do a few steps; it writes nothing."""

    stage: str
    config: Config
    ready: train.Prepared

    @functools.cached_property
    def prepared(self) -> Prepared:
        """What it computes with."""
        return prepare(self.ready.learner, self.ready.run, self.ready.like)

    @functools.cached_property
    def batch(self) -> Batch:
        """The first one, on the host."""
        return self.ready.read(range(self.ready.run.batch_size))

    @functools.cached_property
    def compiled(self) -> jax.stages.Compiled:
        """One step."""
        log.info("compiling a step of %s; the run will find it compiled", self.stage)
        mesh, like, _, train_step = self.prepared
        return train_step.lower(like, place(self.batch, mesh)).compile()

    def of_fewer_crops(self, count: int) -> Trial:
        """The same training in batches of so many crops."""
        run = dataclasses.replace(self.ready.run, batch_size=count, accumulation=1)
        like = {
            name: jax.ShapeDtypeStruct((count, *each.shape[1:]), each.dtype)
            for name, each in self.ready.like.items()
        }
        return dataclasses.replace(self, ready=dataclasses.replace(self.ready, run=run, like=like))

    @property
    def state_bytes(self) -> int:
        """Of parameters, optimizer and learner: what a checkpoint holds."""
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
    return Trial(stage, config, train.prepare(config, workdir, stage))


def describe(trial: Trial) -> Verdict:
    """What is trained."""
    run = trial.ready.run
    return Verdict(
        "ok",
        f"{trial.parameters:,} parameters, {run.steps:,} steps of {run.batch_size} crops",
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
    run = trial.ready.run
    batches = read_batches(trial.config, run, trial.ready.read)(0)
    crops = run.batch_size * per_second(batches)
    count = timed_crops(trial.compiled, run.batch_size, run.accumulation)
    if count == run.batch_size:
        return foretell(seconds_of_step(trial), crops, run)
    step = seconds_of_step(trial.of_fewer_crops(count)) * run.batch_size / count
    verdict = foretell(step, crops, run)
    said = f"{verdict.found}, by steps of {count} of {run.batch_size} crops"
    return dataclasses.replace(verdict, found=said)


def timed_crops(compiled: jax.stages.Compiled, crops: int, parts: int = 1) -> int:
    """How many of a batch's crops to time: all, but where they would take minutes on a CPU.

    Args:
      compiled: what is to be timed.
      crops: of the batch.
      parts: that are computed one after the other, of which XLA counts the operations of one.
    """
    cost: Any = compiled.cost_analysis()
    operations = parts * (cost or {}).get("flops", 0.0)
    if jax.default_backend() != "cpu" or operations <= 2 * _OPERATIONS:
        return crops
    devices = jax.device_count()
    fitting = int(crops * _OPERATIONS / operations) // devices * devices
    return min(crops, max(devices, fitting))


def foretell(step: float, crops: float, run: Training) -> Verdict:
    """How long a stage will take, and whether it waits for its input.

    Args:
      step: seconds of one.
      crops: that are read a second, while nothing else is done.
      run: the training.
    """
    used = run.batch_size / step
    training = run.steps * max(step, run.batch_size / crops)
    # A forward pass is about a third of a step.
    evaluations = math.ceil(run.steps / run.eval_every)
    evaluating = evaluations * run.eval_crops / run.batch_size * step / 3
    said = (
        f"{duration(step)} a step, {used:.3g} crops a second; {crops:.3g} can be read; about "
        f"{duration(training + evaluating)} for {run.steps:,} steps and their evaluations"
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
    mesh, _, make, _ = trial.prepared
    state, times = make(), []
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


def start(trial: Trial, workdir: pathlib.Path) -> Verdict:
    """Whether what the training starts from is there, and fits.

    Raises:
      FileNotFoundError: if there is nothing where the config says.
      ValueError: if it is of another network than the config describes.
    """
    config, name = trial.config, trial.ready.run.encoder
    if not name:
        return Verdict("ok", "from scratch")
    made = WORKDIR in name and trial.stage != "pretrain" and "pretrain" in config.stages
    if made and not (workdir / "pretrain" / "checkpoints").exists():
        return Verdict("ok", "the stage pretrain makes it first")
    start_from(state_of(trial).params, config, trial.ready.run, workdir)
    return Verdict("ok", f"{name.replace(WORKDIR, str(workdir))} fits")


def state_of(trial: Trial) -> TrainState:
    """As the training begins."""
    return trial.prepared.make()
