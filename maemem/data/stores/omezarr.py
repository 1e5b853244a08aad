"""The format that maemem writes: OME-Zarr 0.5, one scale, an array of sharded zarr 3."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from maemem.data.stores.formats import VoxelSize
from maemem.geometry import Zyx


def chunk_shape(shape_zyx: Zyx, voxel_size_nm: VoxelSize) -> Zyx:
    """What to read at once: 32,768 voxels of about the shape of a training crop.

    Crops of isotropic tissue are cubes; those of thick sections are thin and wide. A chunk is never
    larger than the volume.
    """
    z, y, x = voxel_size_nm
    wanted = (32, 32, 32) if z < 2 * min(y, x) else (8, 64, 64)
    chunk = [min(want, size) for want, size in zip(wanted, shape_zyx, strict=True)]
    return chunk[0], chunk[1], chunk[2]


def shard_shape(
    shape_zyx: Zyx, chunk_zyx: Zyx, itemsize: int, shard_bytes: int, slab_bytes: int
) -> Zyx:
    """What to store as one file: chunks, doubled along x, y and z in turn while that is allowed.

    Args:
      shape_zyx: the volume's shape.
      chunk_zyx: the shape of a chunk.
      itemsize: bytes a voxel.
      shard_bytes: no shard is larger than this, unless a single chunk is.
      slab_bytes: the whole sections that a shard runs through are no more than this, unless those
        of a single chunk are.
    """
    whole = [-(-size // chunk) * chunk for size, chunk in zip(shape_zyx, chunk_zyx, strict=True)]
    section_bytes = shape_zyx[1] * shape_zyx[2] * itemsize
    shard = list(chunk_zyx)
    grown = True
    while grown:
        grown = False
        for axis in (2, 1, 0):
            larger = shard.copy()
            larger[axis] = min(2 * shard[axis], whole[axis])
            fits = math.prod(larger) * itemsize <= shard_bytes
            if axis == 0:
                fits = fits and larger[0] * section_bytes <= slab_bytes
            if fits and larger != shard:
                shard, grown = larger, True
    return shard[0], shard[1], shard[2]


def open_array(
    group: Path,
    shape_zyx: Zyx,
    dtype: str,
    *,
    chunk_zyx: Zyx,
    shard_zyx: Zyx,
    channels: int | None = None,
    with_zeros: bool = False,
) -> ts.TensorStore:
    """The array `0` of a group, made if need be, to be written a shard at a time.

    Args:
      group: the folder of the group.
      shape_zyx: the volume's shape.
      dtype: numpy's name of the type of voxels.
      chunk_zyx: the shape of what is read at once.
      shard_zyx: the shape of a file, a multiple of chunk_zyx.
      channels: of an array `[c z y x]`, each in chunks of its own, all in one file; None for an
        array `[z y x]`.
      with_zeros: also write chunks of nothing but zeros, and refuse to read what is missing. Else
        zeros take no space, and what was lost reads as zeros.
    """
    little_endian = {"name": "bytes", "configuration": {"endian": "little"}}
    # One-byte grey values of EM are mostly noise: zstd saves 3 to 15 % of them, and costs crops two
    # to three times the time (benchmarks/pipeline.py). Labels shrink to little, and so do
    # predictions, which are what has channels.
    compressor = {
        "name": "blosc",
        "configuration": {"cname": "zstd", "clevel": 3, "shuffle": "shuffle"},
    }
    noise = np.dtype(dtype).itemsize == 1 and channels is None
    # With it, a flipped bit is an error where it is read. Crops of grey values that are not in the
    # cache would take 1.5 to 1.7 times the CPU time (benchmarks/pipeline.py), to find one voxel.
    checksum = {"name": "crc32c"}
    each, every = ((), ()) if channels is None else ((1,), (channels,))
    sharding = {
        "chunk_shape": (*each, *chunk_zyx),
        "codecs": [little_endian] if noise else [little_endian, compressor, checksum],
        "index_codecs": [little_endian, checksum],
        "index_location": "end",
    }
    metadata = {
        "shape": (*every, *shape_zyx),
        "data_type": dtype,
        "dimension_names": list("zyx" if channels is None else "czyx"),
        "fill_value": 0,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": (*every, *shard_zyx)}},
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
    }
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{group}/0/"},
        "metadata": metadata,
        "store_data_equal_to_fill_value": with_zeros,
        "fill_missing_data_reads": not with_zeros,
    }
    return ts.open(spec, open=True, create=True).result()


def group_metadata(
    name: str,
    voxel_size_nm: VoxelSize,
    *,
    start_zyx: Zyx = (0, 0, 0),
    channels: bool = False,
    attributes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What the `zarr.json` of the group holds.

    Args:
      name: of the image, for viewers to show.
      voxel_size_nm: z y x.
      start_zyx: where it begins in a larger volume, in voxels; viewers put it there.
      channels: whether the array is `[c z y x]`.
      attributes: what to keep beside OME's.
    """
    first = [1.0] if channels else []
    transforms: list[dict[str, Any]] = [{"type": "scale", "scale": [*first, *voxel_size_nm]}]
    if any(start_zyx):
        start_nm = [n * size for n, size in zip(start_zyx, voxel_size_nm, strict=True)]
        translation = [*(0.0 for _ in first), *start_nm]
        transforms.append({"type": "translation", "translation": translation})
    axes = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    if channels:
        axes.insert(0, {"name": "c", "type": "channel"})
    dataset = {"path": "0", "coordinateTransformations": transforms}
    multiscale = {"name": name, "axes": axes, "datasets": [dataset]}
    ome = {"version": "0.5", "multiscales": [multiscale]}
    return {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {"ome": ome, **(attributes or {})},
    }
