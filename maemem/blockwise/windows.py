"""Overlapping windows over a region: their grid, their voxels, their blend weights."""

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
    """Windows on a regular grid that covers a region's border as densely as its middle.

    Along each axis window k begins at `start − (window − stride) + k · stride`, so the grid depends
    on the region alone, not on blocks. Outer windows reach over the region's border.

    Attributes:
      region: the box to cover, in voxels of the whole volume.
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
        """The number of windows that share a voxel with the region."""
        axes = zip(self.region.shape_zyx, self.window_zyx, self.stride_zyx, strict=True)
        return math.prod((size + window - 1) // stride for size, window, stride in axes)

    def touching(self, box: Box) -> list[Box]:
        """The windows that share a voxel with a box, in z y x order."""
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
        """The number of windows that touch each piece of the region, along one axis.

        Args:
          axis: 0 to 2.
          starts: of the pieces, from the region's start.
          size: of each piece; the last may be cut at the region's end.
        """
        stops = np.minimum(starts + size, self.region.shape_zyx[axis])
        window, stride = self.window_zyx[axis], self.stride_zyx[axis]
        return (stops - 1 + window) // stride - starts // stride

    def longest(self, shape_zyx: Zyx) -> Zyx:
        """The largest extent, in voxels, of all windows that touch a box of this shape."""
        sizes = zip(shape_zyx, self.window_zyx, self.stride_zyx, strict=True)
        z, y, x = ((n + window - 2) // stride * stride + window for n, window, stride in sizes)
        return z, y, x


def blend_weights(known: np.ndarray, stride_zyx: Zyx) -> np.ndarray:
    """Blend weights of a window's prediction: a partition of unity.

    They are a Gaussian around the middle of the window with a standard deviation of 1/8 of its size
    (nnU-Net, Isensee et al. 2021), 4e-11 in the corners, never 0. On a regular grid the sum of the
    weights over a voxel repeats with the stride, so weights are normalised here once, and no volume
    of sums is needed.

    Args:
      known: factors of the weights, float `[z y x c]`, not negative; see `tta.share_known`.
      stride_zyx: from one window to the next, no larger than the window.

    Returns:
      float32 `[z y x c]`. The weights of all windows over a voxel add up to 1.

    Raises:
      ValueError: if no window over a voxel knows one of its channels.
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
    # [z y x c] -> [repeat stride repeat stride repeat stride c] -> [stride stride stride c]
    sums = np.pad(weights, [*whole, (0, 0)]).reshape(*split, channels).sum((0, 2, 4))
    if not np.all(sums > 0):
        raise ValueError(
            f"{np.sum(sums <= 0)} of {sums.size} voxels and channels of a stride "
            f"{format_zyx(stride_zyx)} are known in no window over them; choose a smaller stride"
        )
    z, y, x = window_zyx
    return (weights / np.tile(sums, (*repeats, 1))[:z, :y, :x]).astype(np.float32)


def read_mirrored(volume: Volume, box: Box) -> np.ndarray:
    """The raw values `[z y x]` in a box, mirrored where it reaches over the volume's border.

    The border voxel is not repeated; small volumes are mirrored several times.

    Args:
      volume: only its region is read.
      box: in voxels of the whole array, like `volume.region`.
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
    """The shape of the blocks that a region is cut into: whole chunks, few and even.

    Windows at a block's faces are computed again in the next block. Of all shapes that fit the
    memory, it is the one with the fewest windows computed, and the largest of these.

    Args:
      windows: over the region.
      chunk_zyx: a block is a multiple of it; also the result where nothing fits.
      memory_bytes: for everything that a block needs.
      raw_bytes: bytes for each voxel of the block and of windows that reach over its faces.
      voxel_bytes: bytes for each voxel of the block.
      layer_bytes: bytes for each voxel of a layer: the block's part of all windows that begin at
        the same section.
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
    """The products `[z y x]` of one number of each axis."""
    z, y, x = np.ix_(*axes)
    return z * y * x
