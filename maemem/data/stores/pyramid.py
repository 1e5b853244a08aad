"""The scales that a viewer wants of a volume: which voxels become one, until a chunk holds all."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from maemem.data.stores.formats import VoxelSize
from maemem.geometry import Box, Zyx


def chunk_shape(voxel_size_nm: VoxelSize) -> Zyx:
    """What a viewer loads at once: 262,144 voxels, flat where sections are thick."""
    z, y, x = voxel_size_nm
    return (64, 64, 64) if z < 2 * min(y, x) else (16, 128, 128)


def coarser(voxel_size_nm: VoxelSize) -> Zyx:
    """How many voxels, 1 or 2 along each axis, become one in the next scale.

    So many that it is as nearly a cube as it can be; of equals, most.
    """

    def unlike_a_cube(factors: Zyx) -> tuple[float, int]:
        sizes = [nm * n for nm, n in zip(voxel_size_nm, factors, strict=True)]
        return max(sizes) / min(sizes), -sum(factors)

    _, *some = itertools.product((1, 2), repeat=3)
    return min(((z, y, x) for z, y, x in some), key=unlike_a_cube)


def pyramid(voxel_size_nm: VoxelSize, box: Box) -> Iterator[tuple[VoxelSize, Box, Zyx]]:
    """The scales of a volume, each with its voxel size, its place, and the factors to the next.

    The last one is the first that fits a chunk. A voxel at `place` covers, of the scale before it,
    those from `factors * place` on, as far as the volume has them.
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
