"""Checkpoints; the only file that knows Orbax."""

from __future__ import annotations

import json
import logging
import pathlib
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jaxtyping import Array, PyTree, UInt

from maemem import layout
from maemem.training.mesh import lost_others
from maemem.training.model_folder import WEIGHTS, is_model, read_weights

log = logging.getLogger(__name__)
State = TypeVar("State")

# Orbax's, in the folder of a checkpoint.
_RECORD = "_CHECKPOINT_METADATA"


def read_parameters(path: pathlib.Path, stage: str) -> tuple[PyTree, pathlib.Path]:
    """The parameters alone; see `read_network`."""
    (params, _), found = read_network(path, stage)
    return params, found


def read_network(path: pathlib.Path, stage: str) -> tuple[tuple[PyTree, PyTree], pathlib.Path]:
    """The parameters and the learner's state of a run's newest checkpoint, as numpy arrays.

    Of a run that kept an average of its parameters, it is the average. A model folder has no state.

    Args:
      path: a workdir, a folder of checkpoints, one checkpoint `…/checkpoints/STEP`, or a model
        folder.
      stage: the stage of a workdir whose checkpoints are meant.

    Returns:
      Parameters and state, and the folder of the checkpoint, or the file, that they are from.

    Raises:
      FileNotFoundError: if there is no checkpoint.
      ValueError: if it cannot be read.
    """
    if is_model(path):
        return (read_weights(path), ()), path / WEIGHTS
    folders = (layout.checkpoints_folder(path, stage), path / layout.CHECKPOINTS, path)
    checkpoint = next((found for folder in folders if (found := _newest(folder))), None)
    if checkpoint is None:
        raise FileNotFoundError(
            f"there is no checkpoint at {path}; expected a workdir with {stage}/checkpoints, or "
            f"such a folder, or one checkpoint of it"
        )
    item = (checkpoint / "default").absolute()
    try:
        # Asked of the handler: the checkpointer would warn that a step's item has no step's record.
        handler: Any = ocp.PyTreeCheckpointHandler()
        tree = handler.metadata(item).tree
        part = "params" if tree.get("ema") is None else "ema"
        wanted = [part, *(["learner"] if tree.get("learner") else [])]
        like = {name: jax.tree.map(lambda _: 0, tree[name]) for name in wanted}
        kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), like)
        restored = ocp.PyTreeCheckpointer().restore(
            item, args=ocp.args.PyTreeRestore(like, restore_args=kinds, partial_restore=True)
        )
        _check(restored, checkpoint)
    except Exception as error:  # Whatever a damaged file makes Orbax raise.
        raise ValueError(f"the checkpoint {checkpoint} cannot be read: {error}") from error
    return (restored[part], restored.get("learner", ())), checkpoint


def _is_step(folder: pathlib.Path) -> bool:
    return folder.name.isdecimal() and (folder / "default").is_dir()


def _newest(folder: pathlib.Path) -> pathlib.Path | None:
    """The newest checkpoint in a folder, or the folder itself if it is one."""
    if not folder.is_dir():
        return None
    if _is_step(folder):
        return folder
    return max(filter(_is_step, folder.iterdir()), key=lambda step: int(step.name), default=None)


@jax.jit
def _checksum(array: Array) -> UInt[Array, ""]:
    """The bits of all elements, each times an odd number, modulo 2**32.

    Any one flipped bit changes it; how the array is split over devices does not.
    """
    place = jnp.zeros(array.shape, jnp.uint32)
    for axis, size in enumerate(array.shape):
        place = place * size + jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis)
    whole = array.astype(jnp.uint8) if array.dtype == bool else array
    bits = jax.lax.bitcast_convert_type(whole, f"uint{8 * whole.dtype.itemsize}")
    return jnp.sum(bits.astype(jnp.uint32) * (2 * place + 1), dtype=jnp.uint32)


def _checksums(tree: PyTree) -> dict[str, int]:
    """Those of all arrays, by name."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    sums = {
        jax.tree_util.keystr(path, simple=True, separator="/"): _checksum(leaf)
        for path, leaf in leaves
    }
    return {name: int(value) for name, value in sums.items()}


def _check(tree: PyTree, checkpoint: pathlib.Path) -> None:
    """Checks what was read of a checkpoint against the checksums that were saved with it, if any.

    The storage below Orbax has none for the arrays themselves.

    Raises:
      ValueError: if some differ.
    """
    record = checkpoint / _RECORD
    known = json.loads(record.read_text()) if record.exists() else {}
    saved = (known.get("custom_metadata") or {}).get("checksums", {})
    read = _checksums(tree)
    damaged = [name for name in read if name in saved and read[name] != saved[name]]
    if damaged:
        raise ValueError(
            f"{len(damaged)} arrays are not what was saved, their checksums say; the first is "
            f"{damaged[0]}"
        )


class Checkpoints:
    """The last few states of a run, one folder `FOLDER/STEP` each.

    Written in the background, under a temporary name until they are whole. Use it as a context: on
    leaving, it waits until the last one is written, unless other processes were lost.
    """

    def __init__(self, folder: pathlib.Path, keep: int):
        """Opens a folder of checkpoints, made if need be.

        Raises:
          ValueError: if what Orbax keeps beside one of them is damaged.
        """
        self._folder = folder.absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
        try:
            self._manager = ocp.CheckpointManager(self._folder, options=options)
        except ValueError as error:
            raise ValueError(
                f"a checkpoint in {self._folder} has a damaged {_RECORD} ({error}); move that "
                f"checkpoint elsewhere, and the one before is used"
            ) from error

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        if not lost_others(kind):  # They would be waited for.
            self._manager.close()

    def save(self, step: int, state: PyTree) -> None:
        """Writes a state, unless that step is there already; returns once it may be donated."""
        if step != self._manager.latest_step():
            # force: Orbax would else let its own interval policy decide.
            self._manager.save(
                step,
                args=ocp.args.StandardSave(state),
                custom_metadata={"checksums": _checksums(state)},
                force=True,
            )

    def wait(self) -> None:
        """Returns once all that was saved is on disk."""
        self._manager.wait_until_finished()

    def describe_last(self) -> str:
        """The newest whole checkpoint in words, once all are written."""
        self.wait()
        step = self._manager.latest_step()
        return "none yet" if step is None else f"step {step} in {self._folder / str(step)}"

    def restore(self, like: State) -> State | None:
        """The newest state that can be read, or None where there is no checkpoint yet.

        Newer ones that cannot be read are then moved to a folder `damaged` beside the checkpoints.
        Where none can be read, all stay where they are.

        Args:
          like: the `jax.ShapeDtypeStruct`s of a state, with the shardings that it shall have.

        Raises:
          ValueError: if there are checkpoints, but none can be read.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        unreadable = []
        for step in steps:
            try:
                state = self._manager.restore(step, args=ocp.args.StandardRestore(like))
                _check(state, self._folder / str(step))
            except Exception as error:  # Whatever a damaged file makes Orbax raise.
                reason = f"{type(error).__name__}: {str(error).strip()[:300]}"
                log.warning("checkpoint of step %d cannot be read (%s)", step, reason)
                unreadable.append(step)
                continue
            if unreadable:
                log.warning("falling back to the checkpoint of step %d", step)
                self._set_aside(unreadable)
            return cast(State, state)
        if steps:
            raise ValueError(
                f"none of the checkpoints in {self._folder} can be read (see above); nothing was "
                f"changed. If they are lost, start again in a new workdir"
            )
        return None

    def _set_aside(self, steps: list[int]) -> None:
        """Moves damaged checkpoints out of the manager's sight."""
        if jax.process_index() == 0:
            damaged = self._folder.parent / "damaged"
            damaged.mkdir(exist_ok=True)
            for step in steps:
                free = (damaged / f"{step}-{i}" for i in range(1_000_000))
                target = next(path for path in free if not path.exists())
                (self._folder / str(step)).rename(target)
                log.warning("moved the damaged one to %s", target)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("damaged checkpoints are set aside")
        self._manager.reload()
