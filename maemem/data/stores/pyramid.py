"""The scales of a multi-resolution volume, down to one that fits a chunk."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from maemem.data.stores.formats import VoxelSize
from maemem.geometry import Box, Zyx


def chunk_shape(voxel_size_nm: VoxelSize) -> Zyx:
    """The shape of a chunk: 262,144 voxels, flat where sections are thick."""
    z, y, x = voxel_size_nm
    return (64, 64, 64) if z < 2 * min(y, x) else (16, 128, 128)


def coarser(voxel_size_nm: VoxelSize) -> Zyx:
    """Downsampling factors to the next scale, 1 or 2 along each axis.

    They make voxels as nearly cubic as possible; of equal choices, the coarsest.
    """

    def unlike_a_cube(factors: Zyx) -> tuple[float, int]:
        sizes = [nm * n for nm, n in zip(voxel_size_nm, factors, strict=True)]
        return max(sizes) / min(sizes), -sum(factors)

    _, *some = itertools.product((1, 2), repeat=3)
    return min(((z, y, x) for z, y, x in some), key=unlike_a_cube)


def pyramid(voxel_size_nm: VoxelSize, box: Box) -> Iterator[tuple[VoxelSize, Box, Zyx]]:
    """The scales of a volume: voxel size in nm, box in voxels, and factors to the next scale.

    The last is the first that fits a chunk. Voxel v of a scale covers voxels `factors * v` to
    `factors * (v + 1)` of the scale before it, cut at the volume's border.
    """
    size = voxel_size_nm
    while True:
        factors = coarser(size)
        yield size, box, factors
        if all(n <= c for n, c in zip(box.shape_zyx, chunk_shape(size), strict=True)):
            return
        (dz, dy, dx), (z, y, x) = size, factors
        size = (dz * z, dy * y, dx * x)
        (a, b, c), (d, e, f) = box.start_zyx, box.stop_zyx
        box = Box((a // z, b // y, c // x), (-(-d // z), -(-e // y), -(-f // x)))
