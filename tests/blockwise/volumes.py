"""Volumes for the tests, on disk."""

import json
from pathlib import Path

import numpy as np

from maemem.data import omezarr
from maemem.data.volumes import Volume, open_volume

SIZE = (30.0, 6.0, 5.0)


def stored_volume(path: Path, array: np.ndarray, region: str = "") -> Volume:
    """Writes an array as an OME-Zarr image, and opens a region of it."""
    name, chunk = array.dtype.name, omezarr.chunk_shape(array.shape, SIZE)
    store = omezarr.open_array(path, array.shape, name, chunk_zyx=chunk, shard_zyx=chunk)
    store.write(array).result()
    (path / "zarr.json").write_text(json.dumps(omezarr.group_metadata("raw", SIZE)))
    return open_volume(str(path), region=region)


def grey_values(shape, dtype=np.uint8) -> np.ndarray:
    """Noise over all 256 grey values."""
    return np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
