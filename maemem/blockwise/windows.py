"""Overlapping windows over a region: where they lie, what they show, how much each counts."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np

from maemem.data.stores.volumes import Volume
from maemem.geometry import Box, Zyx, format_zyx

_SIGMA = 1 / 8  # of a window's size
_MOST_CHUNKS = 64  # of a block, along each axis


@dataclasses.dataclass(frozen=True)
class Windows:
    """Windows on one regular grid that cover a region's border as fully as its middle.

    Along each axis window k begins at `start − (window − stride) + k · stride`, so the grid depends
    on the region alone, not on how the work is cut into blocks. Its outer windows reach over the
    region's border.

    Attributes:
      region: what is to be covered, in voxels of the whole volume.
      window_zyx: the shape of a window, in voxels.
      stride_zyx: from one window to the next.

    Raises:
      ValueError: if a stride is not from 1 to the window's size.
    """

    region: Box
    window_zyx: Zyx
    stride_zyx: Zyx

    def __post_init__(self) -> None:
        if not all(1 <= s <= w for s, w in zip(self.stride_zyx, self.window_zyx, strict=True)):
            raise ValueError(
                f"stride {format_zyx(self.stride_zyx)} does not cover a volume with windows "
                f"{format_zyx(self.window_zyx)}; choose it from 1 to the window along each axis"
            )

    @property
    def count(self) -> int:
        """How many windows of the grid share a voxel with the region."""
        axes = zip(self.region.shape_zyx, self.window_zyx, self.stride_zyx, strict=True)
        return math.prod((size + window - 1) // stride for size, window, stride in axes)

    def touching(self, box: Box) -> list[Box]:
        """The windows of the grid that share a voxel with a box, in z y x order."""
        starts = []
        for axis in range(3):
            window, stride = self.window_zyx[axis], self.stride_zyx[axis]
            origin = self.region.start_zyx[axis] - (window - stride)
            first = (box.start_zyx[axis] - origin - window) // stride + 1
            last = (box.stop_zyx[axis] - origin - 1) // stride
            starts.append([origin + k * stride for k in range(first, last + 1)])
        z, y, x = self.window_zyx
        return [Box((a, b, c), (a + z, b + y, c + x)) for a, b, c in itertools.product(*starts)]

    def counts(self, axis: int, starts: np.ndarray, size: int) -> np.ndarray:
        """How many places of windows touch each piece of the region, along one axis.

        Args:
          axis: 0 to 2.
          starts: of the pieces, from the region's start.
          size: of each; the region may end before.
        """
        stops = np.minimum(starts + size, self.region.shape_zyx[axis])
        window, stride = self.window_zyx[axis], self.stride_zyx[axis]
        return (stops - 1 + window) // stride - starts // stride

    def longest(self, shape_zyx: Zyx) -> Zyx:
        """From end to end of the windows that touch a box of this shape, at most, in voxels."""
        sizes = zip(shape_zyx, self.window_zyx, self.stride_zyx, strict=True)
        z, y, x = ((n + window - 2) // stride * stride + window for n, window, stride in sizes)
        return z, y, x


def blend_weights(known: np.ndarray, stride_zyx: Zyx) -> np.ndarray:
    """How much of a window's prediction goes into each voxel: a partition of unity.

    The weight falls off from the middle of a window as a Gaussian does, with a standard deviation
    of 1/8 of the window (nnU-Net, Isensee et al. 2021), down to 4e-11 in its corners, never to 0.
    On a regular grid the weights of all windows over a voxel repeat with the stride, so that their
    sum is divided out here, once, and no volume of sums is needed.

    Args:
      known: how far a window's prediction counts beside that, float `[z y x c]`, not negative.
      stride_zyx: from one window to the next, no larger than the window.

    Returns:
      float32 `[z y x c]`. Over each voxel, the weights of the windows there add up to 1.

    Raises:
      ValueError: if some voxel's channel is known in none of the windows over it.
    """
    *window_zyx, channels = known.shape
    profiles = []
    for size in window_zyx:
        from_middle = np.arange(size) - (size - 1) / 2
        profiles.append(np.exp(-0.5 * (from_middle / (_SIGMA * size)) ** 2))
    weights = np.einsum("z,y,x,zyxc->zyxc", *profiles, known.astype(np.float64))

    repeats = [-(-w // s) for w, s in zip(window_zyx, stride_zyx, strict=True)]
    whole = [(0, n * s - w) for n, s, w in zip(repeats, stride_zyx, window_zyx, strict=True)]
    split = [n for pair in zip(repeats, stride_zyx, strict=True) for n in pair]
    sums = np.pad(weights, [*whole, (0, 0)]).reshape(*split, channels).sum((0, 2, 4))
    if not np.all(sums > 0):
        raise ValueError(
            f"{np.sum(sums <= 0)} of {sums.size} voxels and channels of a stride "
            f"{format_zyx(stride_zyx)} are known in no window over them; choose a smaller stride"
        )
    z, y, x = window_zyx
    return (weights / np.tile(sums, (*repeats, 1))[:z, :y, :x]).astype(np.float32)


def read_mirrored(volume: Volume, box: Box) -> np.ndarray:
    """The raw voxels of a box that may reach over the volume's border; they are mirrored there.

    The voxel at the border is not repeated. A volume smaller than what reaches over its border is
    mirrored again and again.

    Args:
      volume: of which only `volume.region` is read.
      box: in voxels of the whole array, as that region is.
    """
    indices = []
    for axis, size in enumerate(volume.shape_zyx):
        there = np.arange(box.start_zyx[axis], box.stop_zyx[axis]) - volume.region.start_zyx[axis]
        period = max(2 * (size - 1), 1)
        indices.append(np.minimum(there % period, -there % period))
    a, b, c = (int(i.min()) for i in indices)
    d, e, f = (int(i.max()) + 1 for i in indices)
    raw = volume.read(Box((a, b, c), (d, e, f)))
    return raw[np.ix_(*(i - start for i, start in zip(indices, (a, b, c), strict=True)))]


def block_shape(
    windows: Windows,
    chunk_zyx: Zyx,
    memory_bytes: int,
    *,
    raw_bytes: int,
    voxel_bytes: int,
    layer_bytes: int,
) -> Zyx:
    """How to cut a region into few, even blocks that fit the memory: whole chunks.

    The windows at a block's faces are computed again in the next block. So of all blocks that fit
    it is the one with which the fewest windows are computed, and the largest of such.

    Args:
      windows: over the region.
      chunk_zyx: what a block is a multiple of; it may be larger than the memory allows.
      memory_bytes: for all that is held of a block.
      raw_bytes: held a voxel of the block and of the windows that reach over its faces.
      voxel_bytes: held a voxel of the block.
      layer_bytes: held a voxel of a layer, the block's part of all windows that begin at the same
        section.
    """
    region = windows.region.shape_zyx
    sizes, reads, counts = [], [], []
    for axis, (length, chunk) in enumerate(zip(region, chunk_zyx, strict=True)):
        most = min(_MOST_CHUNKS, -(-length // chunk))
        pieces = {-(-length // (chunks * chunk)) for chunks in range(1, most + 1)}
        even = sorted({-(-length // (n * chunk)) * chunk for n in pieces}, reverse=True)
        sizes.append(even)
        reads.append([windows.longest((size, size, size))[axis] for size in even])
        counts.append(
            [windows.counts(axis, np.arange(0, length, size), size).sum() for size in even]
        )
    (z, y, x), window = np.ix_(*sizes), windows.window_zyx
    layer = window[0] * np.maximum(y, window[1]) * np.maximum(x, window[2])
    held = _product(reads) * raw_bytes + z * y * x * voxel_bytes + layer * layer_bytes
    computed = _product(counts).astype(float)
    computed[held > memory_bytes] = np.inf
    best = np.unravel_index(np.argmin(computed), computed.shape)
    if np.isinf(computed[best]):
        return chunk_zyx
    a, b, c = (each[n] for each, n in zip(sizes, best, strict=True))
    return a, b, c


def _product(axes: Sequence[Sequence[int]]) -> np.ndarray:
    """Of each combination of one number an axis."""
    z, y, x = np.ix_(*axes)
    return z * y * x
