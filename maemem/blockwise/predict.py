"""Predicts a volume of any size through overlapping windows.

The volume is worked on block by block. Of a block, the raw voxels of all windows that touch it are
read; their predictions, weighted, are added up; the block is written, and recorded as finished. No
voxel depends on how the volume is cut into blocks: the windows lie on one grid, and over each voxel
they are added in the same order.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tensorstore as ts
from jax.typing import ArrayLike

from maemem.blockwise import store
from maemem.blockwise.engine import Map, do_blocks
from maemem.blockwise.windows import Windows, blend_weights, block_shape, read_mirrored
from maemem.data import ledger, omezarr
from maemem.data.volumes import Volume
from maemem.geometry import Box, Zyx, blocks, format_zyx
from maemem.logs import showing_progress

log = logging.getLogger(__name__)

# Raw crops `[b z y x]`, of the volume's dtype, to probabilities `[b z y x c]`, in [0, 1].
Predict = Callable[[np.ndarray], ArrayLike]

_ROUNDING = 1e-5  # An accelerator's division may exceed 1 by some last places.


@jax.jit
def _weighted(
    predictions: ArrayLike, weights: ArrayLike
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Predictions times weights, where they were made; and their own least and greatest value."""
    predictions = jnp.asarray(predictions, jnp.float32)
    return predictions * weights, (predictions.min(), predictions.max())


@dataclasses.dataclass(frozen=True)
class _Job:
    """What to predict, and how: all that the blocks have in common."""

    predict: Predict
    volume: Volume
    windows: Windows
    weights: np.ndarray  # float32 [z y x c], see `blend_weights`
    batch_size: int
    dtype: str
    progress: bool  # whether to show that of a block's windows


def predict_volume(
    predict: Predict,
    volume: Volume,
    output: str | Path,
    *,
    region: Box,
    window_zyx: Zyx,
    stride_zyx: Zyx,
    batch_size: int,
    channels: Sequence[str],
    identity: Mapping[str, Any],
    dtype: str = "uint8",
    known: np.ndarray | None = None,
    memory_bytes: int = 1 << 30,
    chunk_zyx: Zyx | None = None,
    block_zyx: Zyx | None = None,
    workers: Map = map,
    progress: bool = True,
) -> None:
    """Writes the probabilities of every channel in a region, as OME-Zarr 0.5 `[c z y x]`.

    The volume is read around the region too, and mirrored where it ends, so that a voxel at the
    border is covered as fully as one in the middle. What is there as a whole is kept; what was
    killed goes on from its record in `output` + `.partial`.

    Args:
      predict: raw crops to probabilities. It always gets `batch_size` crops, and treats each alike,
        whatever the others are.
      volume: in which the region lies; nothing outside of `volume.region` is read.
      output: a local folder.
      region: what to predict, in voxels of the whole array, as `volume.region` is.
      window_zyx: the shape of a crop.
      stride_zyx: from one window to the next, no larger than the window.
      batch_size: crops a call.
      channels: the name of each.
      identity: whatever else decides the values, as JSON has it, such as the network's checkpoint.
      dtype: one of `store.PREDICTION_DTYPES`.
      known: see `blend_weights` and `tta.share_known`; None: a window knows all of its voxels.
      memory_bytes: about what is held of a block; at least a chunk is.
      chunk_zyx: what is read at once later, in voxels; None: see `omezarr.chunk_shape`.
      block_zyx: what is worked on at once, and is one file, whole chunks; None: see `block_shape`.
      workers: who predicts the blocks, see `engine.open_workers`; for others than this process,
        `predict` has to be picklable.
      progress: whether to show a progress bar on a terminal, and lines in the log elsewhere.

    Raises:
      FileExistsError: if the output holds something that was made otherwise.
      ValueError: if an option is wrong, the region leaves the volume, `predict` gives anything but
        probabilities of the right shape, or a partial output is another one's or being worked on.
    """
    _check(region, volume, dtype)
    windows = Windows(region, window_zyx, stride_zyx)
    known = np.ones((*window_zyx, len(channels))) if known is None else known
    weights = blend_weights(known, stride_zyx)
    here = progress and workers is map  # Several workers would write over each other's bars.
    job = _Job(predict, volume, windows, weights, batch_size, dtype, here)
    attributes = _attributes(job, channels, identity)
    target = store.local_path(output)
    if target.exists():
        store.keep(target, attributes)
        return
    chunk = chunk_zyx or omezarr.chunk_shape(region.shape_zyx, volume.voxel_size_nm)
    block = block_zyx or _block_shape(job, chunk, memory_bytes)
    _write(job, target, attributes, chunk, block, workers, progress)


def _check(region: Box, volume: Volume, dtype: str) -> None:
    if dtype not in store.PREDICTION_DTYPES:
        expected = ", ".join(store.PREDICTION_DTYPES)
        raise ValueError(f"dtype is {dtype!r}, expected one of {expected}")
    if min(region.shape_zyx) < 1 or not volume.region.contains(region):
        raise ValueError(
            f"region [{region}] is empty or leaves the volume {volume.source} [{volume.region}]; "
            f"choose one inside it"
        )


def _attributes(job: _Job, channels: Sequence[str], identity: Mapping[str, Any]) -> dict[str, Any]:
    """All that decides the values, as it is read back from JSON."""
    own = {
        "source": job.volume.source,
        "source_stamp": job.volume.stamp,
        "source_region": str(job.volume.region),
        "region": str(job.windows.region),
        "window_zyx": job.windows.window_zyx,
        "stride_zyx": job.windows.stride_zyx,
        "channels": list(channels),
        "dtype": job.dtype,
    }
    if twice := sorted(own.keys() & identity.keys()):
        raise ValueError(f"identity has {', '.join(twice)}, kept for what is given otherwise")
    return json.loads(json.dumps({**own, **identity}))


def _block_shape(job: _Job, chunk_zyx: Zyx, memory_bytes: int) -> Zyx:
    """The block of which everything held at once fits the memory."""
    # Raw voxels are held as read and as mirrored; sums as float32, as stored, and encoded. As much
    # as the sums again is left for windows on their way.
    stored_bytes = 2 * np.dtype(job.dtype).itemsize
    voxel_bytes = job.weights.shape[-1] * (4 + 4 + stored_bytes)
    raw_bytes = 2 * job.volume.dtype.itemsize
    return block_shape(job.windows, chunk_zyx, memory_bytes, raw_bytes, voxel_bytes)


def _write(
    job: _Job,
    target: Path,
    attributes: Mapping[str, Any],
    chunk: Zyx,
    block: Zyx,
    workers: Map,
    progress: bool,
) -> None:
    """Writes the blocks that are missing, then gives the whole its name."""
    if any(b % c for b, c in zip(block, chunk, strict=True)):
        raise ValueError(
            f"block {format_zyx(block)} is not a multiple of chunk {format_zyx(chunk)} along each "
            f"axis; give both, or leave both out"
        )
    region, channels = job.windows.region, attributes["channels"]
    partial = store.unfinished(target)
    with ledger.held(partial, target, wait=False):
        grid = {"chunk_zyx": list(chunk), "block_zyx": list(block)}
        finished = ledger.claim(partial, {**attributes, **grid})
        array = omezarr.open_array(
            *(partial, region.shape_zyx, job.dtype),
            chunk_zyx=chunk,
            shard_zyx=block,
            channels=len(channels),
            with_zeros=True,
        )
        do_blocks(
            functools.partial(_write_block, job, array),
            list(blocks(region.shape_zyx, block)),
            finished,
            verb="predicted",
            log=log,
            workers=workers,
            progress=progress,
        )
        store.publish(partial, target, job.volume.voxel_size_nm, region, attributes, channels)
    log.info("wrote %s: [%s], channels %s", target, region, ", ".join(channels))


def _write_block(job: _Job, array: ts.TensorStore, block: Box) -> None:
    """Predicts a block of the output, which is one file of its own."""
    sums = _predict_block(job, block.moved(job.windows.region.start_zyx))
    values = store.to_stored(sums, job.dtype)
    array[(slice(None), *block.slices)].write(values.transpose(3, 0, 1, 2)).result()


def _predict_block(job: _Job, block: Box) -> np.ndarray:
    """The blended probabilities of a block of the volume, float32 `[z y x c]`, in [0, 1]."""
    touching = job.windows.touching(block)
    start = touching[0].start_zyx
    raw = read_mirrored(job.volume, Box(start, touching[-1].stop_zyx))
    z, y, x = start
    crops = (raw[window.moved((-z, -y, -x)).slices] for window in touching)
    sums = np.zeros((*block.shape_zyx, job.weights.shape[-1]), np.float32)
    count = len(touching)
    with showing_progress(
        log, "of a block", total=count, missing=count, shown=job.progress, unit="window"
    ) as advance:
        for window, prediction in zip(touching, _predictions(job, crops), strict=True):
            _add(sums, block, window, prediction)
            advance()
    return np.clip(sums, 0, 1, out=sums)  # The weights, too, add up to 1 but for rounding.


def _predictions(job: _Job, crops: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The prediction of each crop, float32 `[z y x c]`, weighted."""
    weights = jnp.asarray(job.weights)

    def started() -> Iterator[tuple[int, Any]]:
        answer: Any = 0
        while batch := list(itertools.islice(crops, job.batch_size)):
            # Always a full batch, so that a network is compiled for one shape.
            full = np.stack(batch + batch[-1:] * (job.batch_size - len(batch)))
            # A CPU would compute two batches at a time, and hold what both take.
            jax.block_until_ready(answer)
            answer = job.predict(full)
            expected = (job.batch_size, *weights.shape)
            if np.shape(answer) != expected:
                raise ValueError(f"predict gave the shape {np.shape(answer)}, expected {expected}")
            answer = _weighted(answer, weights)
            answer[0].copy_to_host_async()
            yield len(batch), answer

    # One batch is started ahead: the device works on it while the one before is added up.
    for (size, answer), _ in itertools.pairwise(itertools.chain(started(), [(0, 0)])):
        predictions, (low, high) = jax.device_get(answer)
        if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):  # Not a number is neither.
            raise ValueError(
                f"predict gave values from {low} to {high}, expected probabilities in [0, 1]"
            )
        yield from predictions[:size]


def _add(sums: np.ndarray, block: Box, window: Box, prediction: np.ndarray) -> None:
    """Adds the part of a window that lies in the block."""
    into, part = [], []
    for axis in range(3):
        a = max(block.start_zyx[axis], window.start_zyx[axis])
        b = min(block.stop_zyx[axis], window.stop_zyx[axis])
        into.append(slice(a - block.start_zyx[axis], b - block.start_zyx[axis]))
        part.append(slice(a - window.start_zyx[axis], b - window.start_zyx[axis]))
    sums[tuple(into)] += prediction[tuple(part)]
