"""Predicts a volume of any size through overlapping windows.

Works block by block: reads the raw voxels of all windows that touch a block, adds up their weighted
predictions, writes the block, and records it as finished. Values do not depend on the blocks:
windows lie on one grid, and over each voxel they are added in the same order.

Predictions are added up on the device, layer by layer (all windows that begin at the same section).
Sections that the next layer does not reach are finished; converted to the stored dtype, a fraction
of the predictions, they leave the device.
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
from maemem.data.stores import ledger, omezarr
from maemem.data.stores.volumes import Volume
from maemem.geometry import Box, Zyx, blocks, format_zyx
from maemem.logs import showing_progress

log = logging.getLogger(__name__)

# Raw crops `[b z y x]`, of the volume's dtype, to probabilities `[b z y x c]`, in [0, 1].
Predict = Callable[[np.ndarray], ArrayLike]

_ROUNDING = 1e-5  # Division on an accelerator may exceed 1 by rounding.


@dataclasses.dataclass(frozen=True)
class _Job:
    """What all blocks of a prediction share."""

    predict: Predict
    volume: Volume
    windows: Windows
    weights: np.ndarray  # float32 [z y x c], see `blend_weights`
    batch_size: int
    dtype: str
    progress: bool  # whether to show a block's windows


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

    Windows reach over the region's border, and the volume is mirrored at its own, so border voxels
    are in as many windows as inner ones. A finished output is kept; a killed one goes on from its
    record in `output` + `.partial`.

    Args:
      predict: raw crops to probabilities. It gets `batch_size` crops, and must treat each on its
        own.
      volume: contains the region; nothing outside of `volume.region` is read.
      output: a local folder.
      region: what to predict, in voxels of the whole array, like `volume.region`.
      window_zyx: the shape of a crop.
      stride_zyx: from one window to the next, no larger than the window.
      batch_size: crops a call.
      channels: the name of each.
      identity: everything else that decides the values, such as the network; values as in JSON.
      dtype: one of `store.PREDICTION_DTYPES`.
      known: see `blend_weights` and `tta.share_known`; None: a window knows all of its voxels.
      memory_bytes: about the memory of a block, its sums on the device included, beside batches of
        windows in flight; a block has at least a chunk.
      chunk_zyx: the unit of reading, in voxels; None: see `omezarr.chunk_shape`.
      block_zyx: the shape of a block, which is one file of whole chunks; None: see `block_shape`.
      workers: see `workers.open_workers`; for other processes, `predict` must be picklable.
      progress: whether to show a progress bar on a terminal, and lines in the log elsewhere.

    Raises:
      FileExistsError: if the output exists with other settings.
      ValueError: if an option is wrong, the region leaves the volume, or `predict` does not return
        probabilities of the right shape; if an unfinished output has other settings, or another
        process writes it.
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
    """Everything that decides the values, as JSON has it."""
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
    """The shape of a block that fits the memory."""
    # Held twice each: raw voxels (read, mirrored), the finished block (as values, encoded), and the
    # sums of a layer in float32 (before and after an update).
    channels = job.weights.shape[-1]
    return block_shape(
        job.windows,
        chunk_zyx,
        memory_bytes,
        raw_bytes=2 * job.volume.dtype.itemsize,
        voxel_bytes=2 * channels * np.dtype(job.dtype).itemsize,
        layer_bytes=2 * channels * 4,
    )


def _write(
    job: _Job,
    target: Path,
    attributes: Mapping[str, Any],
    chunk: Zyx,
    block: Zyx,
    workers: Map,
    progress: bool,
) -> None:
    """Writes the missing blocks, then publishes the result."""
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
    """Predicts a block of the output, which is one file."""
    values = _predict_block(job, block.moved(job.windows.region.start_zyx))
    array[(slice(None), *block.slices)].write(values).result()


def _predict_block(job: _Job, block: Box) -> np.ndarray:
    """The blended probabilities of a block in the stored dtype, `[c z y x]`."""
    touching = job.windows.touching(block)
    read = Box(touching[0].start_zyx, touching[-1].stop_zyx)
    raw = read_mirrored(job.volume, read)
    crops = (raw[_within(window, read).slices] for window in touching)
    window_zyx, step, shape = job.windows.window_zyx, job.windows.stride_zyx[0], block.shape_zyx
    # The sums hold at least a window, also where it is larger than the block.
    plane = [max(sizes) for sizes in zip(window_zyx[1:], shape[1:], strict=True)]
    layer = (window_zyx[0], *plane, job.weights.shape[-1])
    sums = jnp.zeros(layer, jnp.float32, device=_device())
    values = np.empty((layer[-1], *shape), job.dtype)
    places = (_within(window, block).start_zyx for window in touching)
    predictions = zip(places, _predictions(job, crops), strict=True)
    count = len(touching)
    with showing_progress(
        log, "of a block", total=count, missing=count, shown=job.progress, unit="window"
    ) as advance:
        for begin, same in itertools.groupby(predictions, lambda each: each[0][0]):
            for (_, *start_yx), (batch, index) in same:
                sums = _add(sums, batch, index, start_yx)
                advance()
            finished, sums = _finish(sums, (step, *shape[1:]), job.dtype)
            # Outer layers reach over the block.
            first, last = max(begin, 0), min(begin + step, shape[0])
            if first < last:
                values[:, first:last] = np.asarray(finished)[:, first - begin : last - begin]
    return values


def _within(box: Box, outer: Box) -> Box:
    """A box relative to the first voxel of another."""
    z, y, x = outer.start_zyx
    return box.moved((-z, -y, -x))


def _device() -> jax.Device:
    """The device on which predictions are added up."""
    return jax.local_devices()[0]


@jax.jit
def _weighted(
    predictions: ArrayLike, weights: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Predictions times weights, `[b z y x c]`, and the unweighted minimum and maximum."""
    predictions = jnp.asarray(predictions, jnp.float32)
    return predictions * weights, (predictions.min(), predictions.max())


@functools.partial(jax.jit, donate_argnums=0)
def _add(sums: jax.Array, batch: jax.Array, index: int, start_yx: Sequence[int]) -> jax.Array:
    """Adds the part of a weighted prediction that lies in the block to its layer, `[z y x c]`."""
    part = batch[index]
    start: list[Any] = [0]
    for axis, wanted in zip((1, 2), start_yx, strict=True):
        size = part.shape[axis]
        start.append(jnp.clip(wanted, 0, sums.shape[axis] - size))
        beyond = [(0, 0)] * part.ndim
        beyond[axis] = (size, size)
        # Shifts the part outside of the block out, and zeros in, so that slices have one shape.
        shifted = size - (wanted - start[-1])
        part = jax.lax.dynamic_slice_in_dim(jnp.pad(part, beyond), shifted, size, axis)
    there = jax.lax.dynamic_slice(sums, (*start, 0), part.shape)
    return jax.lax.dynamic_update_slice(sums, there + part, (*start, 0))


@functools.partial(jax.jit, donate_argnums=0, static_argnums=(1, 2))
def _finish(sums: jax.Array, shape_zyx: Zyx, dtype: str) -> tuple[jax.Array, jax.Array]:
    """The finished sections of a layer in the stored dtype, `[c z y x]`; the next layer's sums."""
    step, y, x = shape_zyx
    # Weights add up to 1 up to rounding.
    probabilities = jnp.clip(sums[:step, :y, :x], 0, 1)
    rest = jnp.concatenate([sums[step:], jnp.zeros_like(sums[:step])])
    return to_stored(probabilities, dtype).transpose(3, 0, 1, 2), rest  # [z y x c] -> [c z y x]


def to_stored(probabilities: ArrayLike, dtype: str) -> jax.Array:
    """Probabilities in the stored dtype; uint8 counts 255ths."""
    probabilities = jnp.asarray(probabilities)
    if dtype == "uint8":
        probabilities = jnp.rint(probabilities * 255)
    return probabilities.astype(dtype)


def _predictions(job: _Job, crops: Iterator[np.ndarray]) -> Iterator[tuple[jax.Array, int]]:
    """For each crop, a batch of weighted predictions, float32 `[b z y x c]`, and its index."""
    weights = jnp.asarray(job.weights)

    def started() -> Iterator[tuple[int, Any]]:
        answer: Any = 0
        while batch := list(itertools.islice(crops, job.batch_size)):
            # Always a full batch, so that the network compiles for one shape.
            full = np.stack(batch + batch[-1:] * (job.batch_size - len(batch)))
            # Otherwise a CPU computes two batches at once, with the memory of both.
            jax.block_until_ready(answer)
            answer = job.predict(full)
            expected = (job.batch_size, *weights.shape)
            if np.shape(answer) != expected:
                raise ValueError(f"predict gave the shape {np.shape(answer)}, expected {expected}")
            answer = _weighted(answer, weights)
            yield len(batch), answer

    # The device works on the next batch while this one is checked.
    for (size, (weighted, extremes)), _ in itertools.pairwise(
        itertools.chain(started(), [(0, (0, 0))])
    ):
        low, high = jax.device_get(extremes)
        if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):  # False for NaN.
            raise ValueError(
                f"predict gave values from {low} to {high}, expected probabilities in [0, 1]"
            )
        # Each device has a part of the batch; parts go from device to device, not through the host.
        shards = sorted(weighted.addressable_shards, key=lambda shard: shard.index[0].start or 0)
        some = [jax.device_put(shard.data, _device()) for shard in shards]
        every = ((part, index) for part in some for index in range(len(part)))
        yield from itertools.islice(every, size)
