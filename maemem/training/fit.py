"""Trains with a learner: what all trainings share, from the mesh to checkpoints."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import pathlib
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from clu import parameter_overview
from jax.sharding import Mesh
from jaxtyping import PyTree

from maemem.fields import given
from maemem.learners.contract import Batch, Learner, Like
from maemem.training.checkpoint import Checkpoints
from maemem.training.loop import Schedule, train
from maemem.training.mesh import check_divisible, make_mesh, place
from maemem.training.metrics import MetricWriter
from maemem.training.optimizer import Optimizer
from maemem.training.step import (
    TrainState,
    compile_beside,
    make_init,
    make_state,
    make_train_step,
    state_like,
)

log = logging.getLogger(__name__)

Evaluate = Callable[[TrainState, int], dict[str, float]]


@dataclasses.dataclass(frozen=True)
class Training:
    """A training run; a config's sections `pretrain` and `finetune`, but for what is learnt.

    Attributes:
      steps: its length.
      batch_size: crops a step, over all devices.
      accumulation: compute the gradient in this many parts, to save memory.
      optimizer: how parameters follow the gradient.
      ema_decay: a step's decay of the average of parameters that is evaluated; 0: there is none.
      log_every: steps between rows of metrics.
      eval_every: steps between evaluations.
      eval_crops: held out; the same crops at every evaluation.
      checkpoint_every: steps between checkpoints.
      keep_checkpoints: how many of the last are kept.
      encoder: what the network starts from: a workdir or a checkpoint of a pre-training, a model
        folder, or 2-D weights (FILE.safetensors of timm or transformers); empty: scratch.
      inflation: how kernels of 2-D weights become those of patches of several sections: `centre`
        (in the middle one) or `average` (a part in each).
      min_foreground: draw a crop again where a smaller share of it is labelled as an object.
      folder: `checkpoints/` and `metrics.jsonl` are written there.
      seed: of the parameters and of all that is random in a step.
      fsdp: split parameters and optimizer state over the devices.
    """

    steps: int = 400_000
    batch_size: int = 128
    accumulation: int = 1
    optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
    ema_decay: float = 0.0
    log_every: int = 100
    eval_every: int = 5_000
    eval_crops: int = 128
    checkpoint_every: int = 5_000
    keep_checkpoints: int = 3
    encoder: str = ""
    inflation: Literal["centre", "average"] = "centre"
    min_foreground: float = 0.0
    folder: pathlib.Path = given()
    seed: int = given()
    fsdp: bool = given(default=False)

    def __post_init__(self):
        for name in (*_COUNTS, "log_every", "eval_every", "checkpoint_every"):
            if not 0 < getattr(self, name) < 2**31:
                raise ValueError(f"{name} is {getattr(self, name)}; expected: from 1 to 2**31 - 1")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}; expected: in [0, 1)")
        if not 0 <= self.min_foreground <= 1:
            raise ValueError(f"min_foreground is {self.min_foreground}; expected: from 0 to 1")
        warmup = self.optimizer.warmup_steps
        if not 0 <= warmup < self.steps:
            raise ValueError(
                f"optimizer.warmup_steps is {warmup}; expected: at least 0 and less than steps "
                f"{self.steps}"
            )
        if "encoder" in self.optimizer.frozen and not self.encoder:
            raise ValueError(
                f"optimizer.frozen is {self.optimizer.frozen}; expected: without encoder where "
                f"encoder is empty, or it would keep its random weights"
            )
        if "://" in self.encoder:
            raise ValueError(
                f"encoder is {self.encoder!r}; expected: a folder, not a URL; copy it to one"
            )

    @property
    def schedule(self) -> Schedule:
        """When to do what."""
        return Schedule(self.steps, self.log_every, self.eval_every, self.checkpoint_every)

    def check_devices(self, stage: str) -> None:
        """Checks that batches can be split over the devices.

        Raises:
          ValueError: if they cannot.
        """
        check_divisible(f"{stage}.batch_size", self.batch_size, self.accumulation)
        check_divisible(f"{stage}.eval_crops", self.eval_crops, 1)


_COUNTS = ("steps", "batch_size", "accumulation", "eval_crops", "keep_checkpoints")


class Prepared(NamedTuple):
    """What a run computes with.

    Attributes:
      mesh: that its states and batches lie on.
      like: what a state looks like, see `step.state_like`.
      make: makes the first one.
      train_step: see `step.make_train_step`.
    """

    mesh: Mesh
    like: TrainState
    make: Callable[[], TrainState]
    train_step: jax.stages.Wrapped


def prepare(learner: Learner, run: Training, like: Like) -> Prepared:
    """Makes the functions of a run; nothing is computed or compiled yet.

    Args:
      learner: what is minimised.
      run: how.
      like: shapes and dtypes of a global batch.

    Raises:
      ValueError: if the network does not fit the crops, or the run not the learner.
    """
    mesh = make_mesh()
    init = make_init(learner, run.optimizer, like, steps=run.steps, ema=run.ema_decay > 0)
    state = state_like(init, mesh, run.fsdp)
    train_step = make_train_step(
        learner,
        run.optimizer,
        state,
        steps=run.steps,
        seed=run.seed,
        ema_decay=run.ema_decay,
        accumulation=run.accumulation,
        mesh=mesh,
        fsdp=run.fsdp,
    )
    return Prepared(mesh, state, lambda: make_state(init, state, run.seed), train_step)


def fit(
    learner: Learner,
    run: Training,
    like: Like,
    read_batches: Callable[[int], Iterator[Batch]],
    make_evaluate: Callable[[Mesh, MetricWriter], Evaluate],
    start: Callable[[PyTree], PyTree] = lambda params: params,
) -> None:
    """Trains from the last checkpoint on, or from the start where there is none.

    Args:
      learner: what is minimised.
      run: where, how long and how.
      like: shapes and dtypes of a global batch.
      read_batches: this process's rows of the global batches, from a step on.
      make_evaluate: what makes the evaluation `(state, step) -> scalars`.
      start: what changes the first parameters, of a run without a checkpoint only.

    Raises:
      ValueError: if the network does not fit, or there are checkpoints that cannot be read.
      loop.NonFiniteLoss: if the loss diverges.
    """
    prepared = prepare(learner, run, like)
    run.folder.mkdir(parents=True, exist_ok=True)
    with Checkpoints(run.folder / "checkpoints", run.keep_checkpoints) as checkpoints:
        state = checkpoints.restore(prepared.like)
        first = 0 if state is None else int(state.step)
        batches = read_batches(first)
        if state is None:
            state, batches = _begun(
                prepared, batches, lambda made: _started(learner, made, like, start)
            )
        log.info("parameters:\n%s", parameter_overview.get_parameter_overview(state.params))
        log.info("training from step %d to %d on %s", first, run.steps, jax.devices())
        with MetricWriter(run.folder, first) as writer:
            train(
                state,
                prepared.train_step,
                batches,
                make_evaluate(prepared.mesh, writer),
                schedule=run.schedule,
                mesh=prepared.mesh,
                checkpoints=checkpoints,
                writer=writer,
            )


def _begun(
    prepared: Prepared, batches: Iterator[Batch], start: Callable[[TrainState], TrainState]
) -> tuple[TrainState, Iterator[Batch]]:
    """The first state, made while the step is compiled, and all batches, of which it saw one."""
    first = next(batches)
    state = compile_beside(
        prepared.train_step,
        prepared.like,
        place(first, prepared.mesh),
        lambda: start(prepared.make()),
    )
    return state, itertools.chain([first], batches)


def _started(
    learner: Learner, state: TrainState, like: Like, start: Callable[[PyTree], PyTree]
) -> TrainState:
    """A first state from other parameters; its average and the learner's state begin with them."""
    params = start(state.params)
    if params is state.params:
        return state
    # Copies, since a state is donated to the step.
    ema = None if state.ema is None else jax.tree.map(jnp.copy, params)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state.learner)
    begin = jax.jit(lambda params: learner.begin(params, like), out_shardings=shardings)
    begun = jax.tree.map(jnp.copy, begin(params))
    return TrainState(state.step, params, ema, state.opt_state, begun)
