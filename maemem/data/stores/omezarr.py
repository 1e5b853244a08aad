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
    """The shape of a chunk, the unit of reading: 32,768 voxels, shaped like a training crop.

    A cube for isotropic voxels, flat for thick sections; never larger than the volume.
    """
    z, y, x = voxel_size_nm
    wanted = (32, 32, 32) if z < 2 * min(y, x) else (8, 64, 64)
    chunk = [min(want, size) for want, size in zip(wanted, shape_zyx, strict=True)]
    return chunk[0], chunk[1], chunk[2]


def shard_shape(
    shape_zyx: Zyx, chunk_zyx: Zyx, itemsize: int, shard_bytes: int, slab_bytes: int
) -> Zyx:
    """The shape of a shard, which is one file: a chunk, doubled along x, y and z in turn.

    Args:
      shape_zyx: the volume's shape.
      chunk_zyx: the shape of a chunk.
      itemsize: bytes a voxel.
      shard_bytes: the most a shard may hold, unless a chunk holds more.
      slab_bytes: the most that all whole sections which a shard crosses may hold, unless those of a
        chunk hold more.
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
    """The array `0` of a group, created if need be; write it a shard at a time.

    Args:
      group: the folder of the group.
      shape_zyx: the volume's shape.
      dtype: numpy's name of the type of voxels.
      chunk_zyx: the unit of reading.
      shard_zyx: the shape of a file, a multiple of chunk_zyx.
      channels: how many, for an array `[c z y x]` with each channel in its own chunks and all in
        one file; None for an array `[z y x]`.
      with_zeros: also write chunks of zeros, and refuse to read missing ones. Otherwise zeros take
        no space, and lost chunks read as zeros.
    """
    little_endian = {"name": "bytes", "configuration": {"endian": "little"}}
    # One-byte grey values of EM are mostly noise: zstd saves 3 to 15 % and makes crops two to three
    # times slower (benchmarks/pipeline.py). Labels and predictions (with channels) compress well.
    compressor = {
        "name": "blosc",
        "configuration": {"cname": "zstd", "clevel": 3, "shuffle": "shuffle"},
    }
    noise = np.dtype(dtype).itemsize == 1 and channels is None
    # Detects flipped bits. Not for grey values: a flipped bit changes one voxel, and crops outside
    # of the cache would take 1.5 to 1.7 times the CPU time (benchmarks/pipeline.py).
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
    """The content of a group's `zarr.json`.

    Args:
      name: of the image, shown by viewers.
      voxel_size_nm: z y x.
      start_zyx: its first voxel in a larger volume, in voxels; viewers place it there.
      channels: whether the array is `[c z y x]`.
      attributes: further ones beside OME's.
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
