"""Trains a network for an objective: what all trainings share, from the mesh to checkpoints."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import pathlib
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import jax
from clu import parameter_overview
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key, PyTree

from maemem.geometry import Zyx
from maemem.training.checkpoint import Checkpoints
from maemem.training.loop import Schedule, train
from maemem.training.mesh import make_mesh, place
from maemem.training.metrics import MetricWriter
from maemem.training.optimizer import OptimizerSettings
from maemem.training.step import TrainState, compile_beside, make_train_step, state_maker

log = logging.getLogger(__name__)


class Objective(Protocol):
    """What a network is trained to do; see `maemem.learners`."""

    def init(self, key: Key[Array, ""], crop_zyx: Zyx, /) -> PyTree:
        """The network's first parameters, float32."""
        ...

    def loss(self, params: PyTree, batch: PyTree, keys: Key[Array, " b"], /) -> Float[Array, ""]:
        """The mean loss of a batch; what is random comes from each crop's own key."""
        ...


Evaluate = Callable[[TrainState, int], dict[str, float]]


@dataclasses.dataclass(frozen=True)
class Training:
    """A training run.

    Attributes:
      folder: `checkpoints/` and `metrics.jsonl` are written there.
      seed: of the parameters and of all that is random in a step.
      crop_zyx: shape of a crop, in voxels.
      optimizer: how parameters follow the gradient.
      schedule: when to do what.
      ema_decay: a step's decay of the average of parameters that is evaluated; 0: there is none.
      accumulation: compute the gradient in this many parts.
      fsdp: split parameters and optimizer state over the devices.
      keep_checkpoints: how many of the last are kept.
    """

    folder: pathlib.Path
    seed: int
    crop_zyx: Zyx
    optimizer: OptimizerSettings
    schedule: Schedule
    ema_decay: float
    accumulation: int
    fsdp: bool
    keep_checkpoints: int


class Prepared(NamedTuple):
    """What a run computes with.

    Attributes:
      mesh: that its states and batches lie on.
      like: what a state looks like, see `step.state_maker`.
      make_state: makes the first one.
      train_step: see `step.make_train_step`.
    """

    mesh: Mesh
    like: TrainState
    make_state: Callable[[], TrainState]
    train_step: jax.stages.Wrapped


def prepare(objective: Objective, run: Training) -> Prepared:
    """Makes the functions of a run; nothing is computed or compiled yet."""
    mesh, optimizer = make_mesh(), run.optimizer.transformation()
    like, make_state = state_maker(
        lambda key: objective.init(key, run.crop_zyx),
        optimizer,
        seed=run.seed,
        ema=run.ema_decay > 0,
        mesh=mesh,
        fsdp=run.fsdp,
    )
    train_step = make_train_step(
        objective.loss,
        optimizer,
        run.optimizer.schedule(),
        like,
        seed=run.seed,
        ema_decay=run.ema_decay,
        accumulation=run.accumulation,
        mesh=mesh,
        fsdp=run.fsdp,
    )
    return Prepared(mesh, like, make_state, train_step)


def fit(
    objective: Objective,
    run: Training,
    read_batches: Callable[[int], Iterator[PyTree]],
    make_evaluate: Callable[[Mesh, MetricWriter], Evaluate],
    start: Callable[[PyTree], PyTree] = lambda params: params,
) -> None:
    """Trains from the last checkpoint on, or from the start where there is none.

    Args:
      objective: with its network.
      run: where, how long and how.
      read_batches: this process's rows of the global batches, from a step on.
      make_evaluate: what makes the evaluation `(state, step) -> scalars`.
      start: what changes the first parameters, of a run without a checkpoint only.

    Raises:
      ValueError: if there are checkpoints that cannot be read.
      loop.NonFiniteLoss: if the loss diverges.
    """
    prepared = prepare(objective, run)
    mesh, like, _, train_step = prepared
    run.folder.mkdir(parents=True, exist_ok=True)
    with Checkpoints(run.folder / "checkpoints", run.keep_checkpoints) as checkpoints:
        state = checkpoints.restore(like)
        first = 0 if state is None else int(state.step)
        batches = read_batches(first)
        if state is None:
            state, batches = _begun(prepared, batches, start)
        log.info("parameters:\n%s", parameter_overview.get_parameter_overview(state.params))
        log.info("training from step %d to %d on %s", first, run.schedule.steps, jax.devices())
        with MetricWriter(run.folder, first) as writer:
            train(
                state,
                train_step,
                batches,
                make_evaluate(mesh, writer),
                schedule=run.schedule,
                mesh=mesh,
                checkpoints=checkpoints,
                writer=writer,
            )


def _begun(
    prepared: Prepared, batches: Iterator[PyTree], start: Callable[[PyTree], PyTree]
) -> tuple[TrainState, Iterator[PyTree]]:
    """The first state, made while the step is compiled, and all batches, of which it saw one."""
    mesh, like, make_state, train_step = prepared
    first = next(batches)
    state = compile_beside(
        train_step, like, place(first, mesh), lambda: _started(make_state(), start)
    )
    return state, itertools.chain([first], batches)


def _started(state: TrainState, start: Callable[[PyTree], PyTree]) -> TrainState:
    """A first state from other parameters; its average, if it has one, begins with them, too."""
    params = start(state.params)
    ema = None if state.ema is None else jax.tree.map(lambda leaf: leaf.copy(), params)
    return TrainState(state.step, params, ema, state.opt_state)
