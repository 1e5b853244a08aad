"""Objects of a made-up prediction, block by block, from zarr to zarr."""

from __future__ import annotations

import itertools
import pathlib

import jax.numpy as jnp
import numpy as np
from scipy.ndimage import gaussian_filter

from maemem.blockwise import store
from maemem.blockwise.engine import Map
from maemem.blockwise.segment import segment_volume
from maemem.config import markers, mutex, waterz
from maemem.data.sets.synthetic import make_tissue
from maemem.data.stores import ledger, omezarr
from maemem.doctor.samples import SURE, UNSURE
from maemem.geometry import Box, Zyx, blocks
from maemem.learners.targets.affinity import LEE, NEAREST, Affinity
from maemem.learners.targets.bcd import Bcd
from maemem.segmentation.decoders import cutter

LIBRARIES = ("maemem", "scikit-image")
METHODS = {
    "waterz": (waterz, Affinity(NEAREST)),
    "mutex": (mutex, Affinity(LEE)),
    "markers": (markers, Bcd()),
}
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
    """How blocks are cut up, and what is merged: see `decoders.cutter`."""
    thresholds = {name: tried[0] for name, tried in waterz().grid.to_dict().items()}
    return cutter("waterz", thresholds, sectionwise=False, fragments=fragments)


def write_prediction(path: pathlib.Path, side: int) -> store.Stored:
    """Stores the made-up prediction for `waterz`, cube by cube; never all of it is in memory."""
    values, _ = made_up("waterz", _CUBE[0])
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


def made_up(method: str, side: int, unsure: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A prediction as it is stored, uint8 `[c z y x]`, and the truth, of one cube over and over.

    Of an unsure network it is less far from one half, and differs from voxel to voxel, which leaves
    far more fragments.
    """
    labels = make_tissue(_CUBE, _VOXEL_SIZE_NM).neurites
    target = METHODS[method][1]
    values = np.array(target.targets(jnp.asarray(labels[None], jnp.int32))[0][0])
    low, high, grain = UNSURE if unsure else SURE
    random = np.random.default_rng(0)
    noise = gaussian_filter(random.normal(size=values.shape), 2.0, axes=(0, 1, 2))
    values = low + (high - low) * values + 0.15 * noise / noise.std()
    values += grain * random.normal(size=values.shape)
    small = np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8).transpose(3, 0, 1, 2)
    times = side // _CUBE[0]
    return np.tile(small, (1, times, times, times)), np.tile(labels, (times, times, times))
