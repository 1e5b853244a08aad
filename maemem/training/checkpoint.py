"""Checkpoints; the only file that knows Orbax."""

from __future__ import annotations

import logging
import pathlib
from typing import TypeVar, cast

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jaxtyping import PyTree

log = logging.getLogger(__name__)
State = TypeVar("State")


class Checkpoints:
    """The last few states of a run, one folder `FOLDER/STEP` each.

    Written in the background, under a temporary name until they are whole. Use it as a context: on
    leaving, it waits until the last one is written.
    """

    def __init__(self, folder: pathlib.Path, keep: int):
        self._folder = folder.absolute()
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True),
        )

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_) -> None:
        self._manager.close()

    def save(self, step: int, state: PyTree) -> None:
        """Writes a state, unless that step is there already; returns once it may be donated."""
        if step != self._manager.latest_step():
            # force: Orbax would else let its own interval policy decide.
            self._manager.save(step, args=ocp.args.StandardSave(state), force=True)

    def describe_last(self) -> str:
        """The newest whole checkpoint in words, once all are written."""
        self._manager.wait_until_finished()
        step = self._manager.latest_step()
        return "none yet" if step is None else f"step {step} in {self._folder / str(step)}"

    def restore(self, like: State) -> State | None:
        """The newest state that can be read, or None where there is no checkpoint yet.

        A damaged one is moved out of the way, into a folder `damaged` beside the checkpoints.

        Args:
          like: a state of the same shapes and dtypes, lying on the devices as the result shall.

        Raises:
          ValueError: if there are checkpoints, but none can be read.
        """
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
        )
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                state = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
            except Exception as error:  # Whatever a damaged file makes Orbax raise.
                log.warning("checkpoint of step %d cannot be read (%s)", step, _first_line(error))
                self._set_aside(step)
                continue
            if step != steps[0]:
                log.warning("falling back to the checkpoint of step %d", step)
            return cast(State, state)
        if steps:
            raise ValueError(
                f"none of the checkpoints in {self._folder} can be read; they were moved to "
                f"{self._folder.parent / 'damaged'}. Start again in a new workdir"
            )
        return None

    def _set_aside(self, step: int) -> None:
        """Moves a damaged checkpoint out of the manager's sight."""
        if jax.process_index() == 0:
            damaged = self._folder.parent / "damaged"
            damaged.mkdir(exist_ok=True)
            free = (damaged / f"{step}-{i}" for i in range(1_000_000))
            target = next(path for path in free if not path.exists())
            (self._folder / str(step)).rename(target)
            log.warning("moved it to %s", target)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(f"damaged checkpoint {step}")
        self._manager.reload()


def _first_line(error: Exception) -> str:
    text = str(error).strip().split("\n")[0][:200]
    return f"{type(error).__name__}: {text}"
