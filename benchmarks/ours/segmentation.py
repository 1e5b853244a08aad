"""Objects of a made-up prediction, block by block, from zarr to zarr."""

from __future__ import annotations

import functools
import itertools
import pathlib

import jax.numpy as jnp
import numpy as np
from scipy.ndimage import gaussian_filter

from maemem.blockwise import store
from maemem.blockwise.engine import Map
from maemem.blockwise.segment import segment_volume
from maemem.config import waterz
from maemem.data.sets.synthetic import make_tissue
from maemem.data.stores import ledger, omezarr
from maemem.geometry import Box, Zyx, blocks
from maemem.learners.targets.affinity import Affinity, Waterz

LIBRARIES = ("maemem", "scikit-image")
_CUBE: Zyx = (64, 64, 64)  # What is made up, and then repeated.
_VOXEL_SIZE_NM = (10.0, 10.0, 10.0)


def prepare(folder, side, fragments, block):
    prediction = write_prediction(pathlib.Path(folder) / "prediction.zarr", side)
    numbers = itertools.count()

    def step():
        output = pathlib.Path(folder) / f"{next(numbers)}.zarr"
        segment(prediction, output, fragments, tuple(block))

    return step, lambda: {"amount": side**3}


def segment(
    prediction: store.Stored,
    output: pathlib.Path,
    fragments: str,
    block_zyx: Zyx,
    workers: Map = map,
) -> None:
    """Segments it as `waterz` does, with the first thresholds of the default grid."""
    settings = waterz()
    cut, merging = cutting(fragments)
    segment_volume(
        prediction.read_probabilities,
        cut,
        output,
        region=prediction.region,
        voxel_size_nm=prediction.voxel_size_nm,
        block_zyx=block_zyx,
        halo_zyx=settings.halo_zyx,
        smallest=settings.smallest,
        identity={},
        merging=merging,
        workers=workers,
        progress=False,
    )


def cutting(fragments: str):
    """How blocks are cut up, and what is merged, by the first values of the default grid."""
    decoder = Waterz(fragments, target=Affinity())  # type: ignore
    first = {name: tried[0] for name, tried in decoder.grid().items()}
    cuts, merges = ({n: first[n] for n in names} for names in (decoder.cuts, decoder.merges))
    return functools.partial(decoder.cut, **cuts), decoder.merging(**merges)


def write_prediction(path: pathlib.Path, side: int) -> store.Stored:
    """Stores the made-up prediction for `waterz`, cube by cube; never all of it is in memory."""
    values = made_up(_CUBE[0])
    shape: Zyx = (side, side, side)
    chunk = omezarr.chunk_shape(_CUBE, _VOXEL_SIZE_NM)
    partial, target = store.unfinished(path), store.local_path(path)
    with ledger.held(partial, target, wait=False):
        array = omezarr.open_array(
            partial, shape, "uint8", chunk_zyx=chunk, shard_zyx=_CUBE, channels=len(values)
        )
        for cube in blocks(shape, _CUBE):
            z, y, x = cube.shape_zyx
            array[(slice(None), *cube.slices)].write(values[:, :z, :y, :x]).result()
        region = Box((0, 0, 0), shape)
        store.publish(partial, target, _VOXEL_SIZE_NM, region, {}, ("z", "y", "x"))
    return store.open_prediction(path)


def made_up(side: int) -> np.ndarray:
    """Affinities as they are stored, uint8 `[c z y x]`, of one cube over and over."""
    labels = make_tissue(_CUBE, _VOXEL_SIZE_NM).neurites
    maps, _ = Affinity().targets({"labels": jnp.asarray(labels[None], jnp.int32)})
    values = np.array(maps[0])
    random = np.random.default_rng(0)
    noise = gaussian_filter(random.normal(size=values.shape), 2.0, axes=(0, 1, 2))
    values += 0.15 * noise / noise.std()
    small = np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)
    small = small.transpose(3, 0, 1, 2)  # [z y x c] -> [c z y x]
    times = side // _CUBE[0]
    return np.tile(small, (1, times, times, times))
