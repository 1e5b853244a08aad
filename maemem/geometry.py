"""Boxes in a volume, in voxels, always in z y x order."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

Zyx = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Box:
    """A box of voxels, half open: `start_zyx` belongs to it, `stop_zyx` does not."""

    start_zyx: Zyx
    stop_zyx: Zyx

    @classmethod
    def parse(cls, text: str, shape_zyx: Zyx) -> Box:
        """The box that a slice expression such as `"0:120, :, 16:"` selects in a volume.

        Args:
          text: three comma-separated ranges `start:stop` in z, y, x, in voxels; an omitted bound is
            the volume's own. The empty text is the whole volume.
          shape_zyx: the volume's shape, in voxels.

        Raises:
          ValueError: if the text is malformed, or the box is empty or leaves the volume.
        """
        if not text.strip():
            return cls((0, 0, 0), shape_zyx)
        ranges = [part.strip().split(":") for part in text.split(",")]
        try:
            if [len(r) for r in ranges] != [2, 2, 2]:
                raise ValueError
            z, y, x = (int(r[0] or 0) for r in ranges)
            start = (z, y, x)
            z, y, x = (int(r[1] or size) for r, size in zip(ranges, shape_zyx, strict=True))
            stop = (z, y, x)
        except ValueError:
            raise ValueError(
                f"region {text!r} is not three ranges in z, y, x; write it like '0:120, :, 16:512'"
            ) from None
        if not all(0 <= a < b <= size for a, b, size in zip(start, stop, shape_zyx, strict=True)):
            raise ValueError(
                f"region {text!r} is empty or leaves the volume, whose shape zyx is "
                f"{format_zyx(shape_zyx)}"
            )
        return cls(start, stop)

    @property
    def shape_zyx(self) -> Zyx:
        """The shape, in voxels."""
        z, y, x = (b - a for a, b in zip(self.start_zyx, self.stop_zyx, strict=True))
        return z, y, x

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The slices that select the box from an array `[z y x]`."""
        z, y, x = (slice(a, b) for a, b in zip(self.start_zyx, self.stop_zyx, strict=True))
        return z, y, x

    def moved(self, by_zyx: Zyx) -> Box:
        """The box, translated."""
        (a, b, c), (d, e, f), (z, y, x) = self.start_zyx, self.stop_zyx, by_zyx
        return Box((a + z, b + y, c + x), (d + z, e + y, f + x))

    def contains(self, other: Box) -> bool:
        """Whether the other lies in this one."""
        starts = zip(self.start_zyx, other.start_zyx, strict=True)
        stops = zip(self.stop_zyx, other.stop_zyx, strict=True)
        return all(a <= b for a, b in starts) and all(a >= b for a, b in stops)

    def intersection(self, other: Box) -> Box | None:
        """The voxels of both; None where there are none."""
        if not self.overlaps(other):
            return None
        (a, b, c), (d, e, f) = (
            map(end, *pair)
            for end, pair in (
                (max, (self.start_zyx, other.start_zyx)),
                (min, (self.stop_zyx, other.stop_zyx)),
            )
        )
        return Box((a, b, c), (d, e, f))

    def overlaps(self, other: Box) -> bool:
        """Whether the two share a voxel."""
        pairs = zip(self.start_zyx, self.stop_zyx, other.start_zyx, other.stop_zyx, strict=True)
        return all(max(a, c) < min(b, d) for a, b, c, d in pairs)

    def __str__(self) -> str:
        pairs = zip(self.start_zyx, self.stop_zyx, strict=True)
        return ", ".join(f"{a}:{b}" for a, b in pairs)


def format_zyx(zyx: Sequence[float]) -> str:
    """`(6, 96, 96)` as `6x96x96`."""
    return "x".join(str(n) for n in zyx)


def blocks(shape_zyx: Zyx, block_zyx: Zyx) -> Iterator[Box]:
    """Tiles a volume with blocks in z y x order; the last along each axis are cut at the border.

    Args:
      shape_zyx: the volume's shape, in voxels.
      block_zyx: the shape of a whole block, in voxels.
    """
    starts = [range(0, size, step) for size, step in zip(shape_zyx, block_zyx, strict=True)]
    for z, y, x in itertools.product(*starts):
        start = (z, y, x)
        stop = tuple(
            min(a + step, size) for a, step, size in zip(start, block_zyx, shape_zyx, strict=True)
        )
        yield Box(start, (stop[0], stop[1], stop[2]))


@dataclasses.dataclass(frozen=True)
class View:
    """A rotation or reflection of a crop: permutes its axes, then flips some.

    Works on numpy and JAX arrays whose last axes are z y x, or z y x and `trailing` others.

    Attributes:
      axes_zyx: which axis of the crop becomes z, y and x of the view.
      flips_zyx: which axes of the view are then reversed.
    """

    axes_zyx: Zyx = (0, 1, 2)
    flips_zyx: tuple[bool, bool, bool] = (False, False, False)

    def apply(self, array, trailing: int = 0):
        """The view of an array `[... z y x (trailing)]`."""
        # [... z y x (trailing)] -> [... axes_zyx (trailing)]
        array = array.transpose(self._order(array.ndim, trailing, self.axes_zyx))
        return array[self._reverse(trailing)]

    def invert(self, array, trailing: int = 0):
        """The inverse of `apply`."""
        z, y, x = (self.axes_zyx.index(axis) for axis in range(3))
        array = array[self._reverse(trailing)]
        # [... axes_zyx (trailing)] -> [... z y x (trailing)]
        return array.transpose(self._order(array.ndim, trailing, (z, y, x)))

    def offset(self, offset_zyx: Zyx) -> Zyx:
        """An offset between two voxels of the crop, as an offset in the view."""
        turned = [offset_zyx[axis] for axis in self.axes_zyx]
        z, y, x = (-n if flip else n for n, flip in zip(turned, self.flips_zyx, strict=True))
        return z, y, x

    def _reverse(self, trailing: int) -> tuple:
        steps = [slice(None, None, -1 if flip else 1) for flip in self.flips_zyx]
        return (..., *steps, *[slice(None)] * trailing)

    @staticmethod
    def _order(rank: int, trailing: int, axes_zyx: Zyx) -> list[int]:
        leading = rank - trailing - 3
        return [
            *range(leading),
            *(leading + axis for axis in axes_zyx),
            *range(rank - trailing, rank),
        ]


def views(axes: Sequence[Zyx] = ((0, 1, 2), (0, 2, 1))) -> list[View]:
    """All views with one of these permutations and any flips; the plain one comes first."""
    flips = itertools.product((False, True), repeat=3)
    return [View(order, (z, y, x)) for z, y, x in flips for order in axes]


def alike_axes(*sizes_zyx: Sequence[float]) -> list[Zyx]:
    """The permutations of z, y and x that leave each of these triples unchanged.

    With a voxel size and a crop's shape, thick sections allow (0, 1, 2) and (0, 2, 1) only.
    """
    return [
        (z, y, x)
        for z, y, x in itertools.permutations(range(3))
        if all(list(size) == [size[z], size[y], size[x]] for size in sizes_zyx)
    ]
