"""Volumes for the tests, on disk."""

import json
from pathlib import Path

import numpy as np

from maemem.blockwise import store
from maemem.data.stores import ledger, omezarr
from maemem.data.stores.volumes import Volume, open_volume

SIZE = (30.0, 6.0, 5.0)


def stored_volume(path: Path, array: np.ndarray, region: str = "") -> Volume:
    """Writes an array as an OME-Zarr image, and opens a region of it."""
    name, chunk = array.dtype.name, omezarr.chunk_shape(array.shape, SIZE)
    store = omezarr.open_array(path, array.shape, name, chunk_zyx=chunk, shard_zyx=chunk)
    store.write(array).result()
    (path / "zarr.json").write_text(json.dumps(omezarr.group_metadata("raw", SIZE)))
    return open_volume(str(path), region=region)


def write_labels(path: Path, labels: np.ndarray, *, voxel_size_nm, region, attributes) -> None:
    """Writes a label volume as segmentation leaves it."""
    partial, target = store.unfinished(path), store.local_path(path)
    with ledger.held(partial, target, wait=False):
        chunk = omezarr.chunk_shape(labels.shape, voxel_size_nm)
        layout = {"chunk_zyx": chunk, "shard_zyx": chunk}
        omezarr.open_array(partial, labels.shape, "uint32", **layout).write(labels).result()
        store.publish(partial, target, voxel_size_nm, region, attributes)


def grey_values(shape, dtype=np.uint8) -> np.ndarray:
    """Noise over all 256 grey values."""
    return np.random.default_rng(0).integers(0, 256, shape).astype(dtype)


def files(folder: Path) -> dict[Path, bytes]:
    """All that is in a folder."""
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
