"""The one training loop."""

from __future__ import annotations

import dataclasses
import logging
import math
import signal
import time
from collections.abc import Callable, Iterable

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import PyTree

from maemem.training.checkpoint import Checkpoints
from maemem.training.mesh import place
from maemem.training.metrics import MetricWriter
from maemem.training.progress import progress_bar
from maemem.training.step import Metrics, TrainState, batch_size

log = logging.getLogger(__name__)


class NonFiniteLoss(FloatingPointError):
    """The loss, its gradient or the parameters became infinite or not a number."""


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When a run does what, in steps; whatever is due is also done after the last step.

    Attributes:
      steps: the run's length.
      log_every: a row of metrics.
      eval_every: an evaluation.
      checkpoint_every: a checkpoint.
    """

    steps: int
    log_every: int
    eval_every: int
    checkpoint_every: int

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")

    def due(self, every: int, step: int) -> bool:
        """Whether something is due when `step` steps are done."""
        return step % every == 0 or step == self.steps


class StopSignal:
    """Whether somebody asked this run to stop: SIGTERM (pre-emption) or SIGINT (Ctrl-C)."""

    def __init__(self):
        self.number = 0
        self._before = {}

    def __enter__(self) -> StopSignal:
        # Where there are many processes, JAX itself watches for SIGTERM and makes all stop at the
        # same step.
        if jax.process_count() == 1:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _) -> None:
        # Ctrl-C twice: somebody does not want to wait for the checkpoint. Schedulers, however, may
        # well send SIGTERM twice.
        if self.number == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number

    def asked(self, step: int) -> bool:
        """The same answer on all processes, of which only SIGTERM can stop more than one."""
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
            self.number = signal.SIGTERM
        return self.number != 0


def train(
    state: TrainState,
    train_step: Callable[[TrainState, PyTree], tuple[TrainState, Metrics]],
    batches: Iterable[PyTree],
    evaluate: Callable[[TrainState, int], dict[str, float]],
    *,
    schedule: Schedule,
    mesh: Mesh,
    checkpoints: Checkpoints,
    writer: MetricWriter,
) -> TrainState:
    """Trains from `state.step` to the schedule's end.

    A row of metrics holds what its own step measured, so that a resumed run writes the same rows.

    Args:
      state: to start from; it is consumed.
      train_step: of `step.make_train_step`.
      batches: this process's rows of the global batches, from step `state.step` on.
      evaluate: `(state, step) -> scalars`, for the rows where an evaluation is due.
      schedule: when to do what.
      mesh: that state and batches lie on.
      checkpoints: to save to.
      writer: of the metrics.

    Returns:
      The last state.

    Raises:
      NonFiniteLoss: naming the step, the learning rate and the last good checkpoint.
      SystemExit: after a signal, with status 128 + its number, once a checkpoint is written.
    """
    first = int(state.step)
    # The first step may compile; it starts the clock.
    rate = _Rate(first + 1)
    before: Metrics | None = None
    with progress_bar(schedule.steps, first, "step") as bar, StopSignal() as stop:
        for step, batch in zip(range(first + 1, schedule.steps + 1), batches, strict=False):
            state, metrics = train_step(state, place(batch, mesh))
            # Looking at the step before keeps one step queued behind an accelerator's running one.
            if before is not None:
                _check_finite(before, step - 1, checkpoints)
            before = metrics
            stopping = stop.asked(step)
            saving = stopping or schedule.due(schedule.checkpoint_every, step)
            evaluating = schedule.due(schedule.eval_every, step)
            if saving or evaluating or schedule.due(schedule.log_every, step):
                _check_finite(metrics, step, checkpoints)
            bar.update()
            if evaluating or schedule.due(schedule.log_every, step):
                row = {name: float(value) for name, value in metrics.items()}
                steps_per_second = rate.per_second(step)
                if steps_per_second:
                    row["crops_per_second"] = (
                        steps_per_second * batch_size(batch) * jax.process_count()
                    )
                bar.set_postfix(loss=f"{row['loss']:.4f}", refresh=False)
                if evaluating:
                    row |= evaluate(state, step)
                writer.write_scalars(step, row)
            if saving:
                checkpoints.save(step, state)
            if saving or evaluating or step == first + 1:
                rate.pause(step)
            if stopping:
                log.warning("stopped after step %d: %s", step, signal.strsignal(stop.number))
                log.warning("saved %s; the same command goes on there", checkpoints.describe_last())
                raise SystemExit(128 + stop.number)
        checkpoints.wait()
    if stop.number:  # It came while the last step was evaluated and saved.
        raise SystemExit(128 + stop.number)
    return state


def _check_finite(metrics: Metrics, step: int, checkpoints: Checkpoints) -> None:
    """Looks at the loss, and at the parameters that the step made of it."""
    values = {name: float(value) for name, value in metrics.items()}
    if not all(map(math.isfinite, values.values())):
        described = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        raise NonFiniteLoss(
            f"step {step} is not finite: {described}. The last good checkpoint is "
            f"{checkpoints.describe_last()}; nothing was overwritten. Try a smaller learning rate, "
            f"a longer warm-up or clip_norm, in a new workdir, and look for NaNs in the volumes"
        )


class _Rate:
    """Steps a second since it was last asked.

    Evaluations, checkpoints and the first step, which may compile, are left out.
    """

    def __init__(self, step: int):
        self.pause(step)

    def pause(self, step: int) -> None:
        self._step, self._time = step, time.perf_counter()

    def per_second(self, step: int) -> float:
        """0.0 while there is nothing to measure by."""
        rate = (step - self._step) / (time.perf_counter() - self._time)
        self.pause(step)
        return rate
