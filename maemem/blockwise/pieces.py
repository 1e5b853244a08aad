"""The pieces of fragments in a block, and the pieces in neighbouring blocks that continue them.

A block is cut with a margin, its halo. Where the halo decides the fragments of voxels at a face,
both blocks see the same fragments, and their joined pieces are the fragments of the whole volume.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fastremap
import numpy as np

from maemem.data.stores import damage, ledger
from maemem.durable import write_durably
from maemem.geometry import Box, Zyx

# A prediction, float32 `[c z y x]`, to ids `[z y x]`, 0 for background.
Cut = Callable[[np.ndarray], np.ndarray]

_LEAST_SHARE = 0.5  # Of the voxels at a face, see `joins_across`.
MEND = "delete the unfinished result that it lies in, and begin again"


@dataclasses.dataclass(frozen=True)
class Pieces:
    """The pieces of one block, 1 to n in order of first appearance."""

    ids: np.ndarray  # uint32 [z y x]
    sizes: np.ndarray  # int64 [n], in voxels
    firsts: np.ndarray  # int64 [n], flat index in the volume of the first voxel of each
    # For each axis, the plane of voxels just before and just after the block, uint32: the piece of
    # the block that each belongs to, as this block sees it; 0 for none, and where the volume ends.
    before: Sequence[np.ndarray]
    after: Sequence[np.ndarray]

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything but the ids by name, such as `before0`, for `save`."""
        planes = {"before": self.before, "after": self.after}
        named = {f"{name}{axis}": p for name, each in planes.items() for axis, p in enumerate(each)}
        return {"sizes": self.sizes, "firsts": self.firsts, **named}


def save(folder: Path, block: Box, **arrays: Any) -> None:
    """Saves arrays of a block in a file of its own."""
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(folder / f"{ledger.block_name(block)}.npz", content.getvalue())


def load(folder: Path, block: Box, *names: str) -> list[np.ndarray]:
    """Loads some of the saved arrays of a block."""
    path = folder / f"{ledger.block_name(block)}.npz"
    with damage.naming_file(path, MEND), np.load(path, allow_pickle=False) as arrays:
        return [arrays[name] for name in names]


def grown(block: Box, halo_zyx: Zyx, shape_zyx: Zyx) -> Box:
    """A block with its halo, cut at the volume's border."""
    sides = zip(block.start_zyx, block.stop_zyx, halo_zyx, shape_zyx, strict=True)
    ends = [(max(0, a - halo), min(size, b + halo)) for a, b, halo, size in sides]
    (a, d), (b, e), (c, f) = ends
    return Box((a, b, c), (d, e, f))


def cut_block(labels: np.ndarray, outer: Box, block: Box, shape_zyx: Zyx) -> Pieces:
    """Numbers the pieces of a block, and finds where they continue.

    Args:
      labels: ids `[z y x]` of the block with its halo; 0 is background.
      outer: the box of the labels.
      block: the box of the block.
      shape_zyx: of the volume.
    """
    a, b, c = outer.start_zyx
    inside = block.moved((-a, -b, -c)).slices
    ids, names = fastremap.renumber(np.ascontiguousarray(labels[inside]), in_place=False)
    number = np.zeros(int(labels.max()) + 1, np.uint32)
    for old, new in names.items():
        number[int(old)] = new
    count = int(ids.max())
    # Pieces are numbered by first appearance, so the running maximum grows where one first appears.
    firsts = np.flatnonzero(np.diff(np.maximum.accumulate(ids.reshape(-1)), prepend=0))
    places = np.unravel_index(firsts, block.shape_zyx)
    moved = [place + start for place, start in zip(places, block.start_zyx, strict=True)]
    before, after = [], []
    for axis in range(3):
        for planes, at in ((before, inside[axis].start - 1), (after, inside[axis].stop)):
            where = list(inside)
            where[axis] = at
            there = 0 <= at < outer.shape_zyx[axis]
            shape = [n for other, n in enumerate(block.shape_zyx) if other != axis]
            planes.append(number[labels[tuple(where)]] if there else np.zeros(shape, np.uint32))
    return Pieces(
        ids.astype(np.uint32),
        np.bincount(ids.reshape(-1), minlength=count + 1)[1:],
        np.ravel_multi_index(moved, shape_zyx),
        before,
        after,
    )


def joins_across(
    lower: np.ndarray, after: np.ndarray, upper: np.ndarray, before: np.ndarray
) -> np.ndarray:
    """The pieces of two blocks to join across their face.

    Two voxels across the face agree where both blocks put them in one fragment. Two pieces are
    joined if at least half of the voxels agree through which the smaller one, as its own block sees
    it, crosses the face. If the halo decides the fragments, all of these voxels agree or none do. A
    mutex watershed can depend on edges far away: a single agreeing voxel would join large pieces.

    Args:
      lower: pieces in the last plane of the lower block.
      after: pieces of the lower block in the first plane of the upper one.
      upper: pieces in the first plane of the upper block.
      before: pieces of the upper block in the last plane of the lower one.

    Returns:
      int64 `[joins 2]`, a piece of the lower block and one of the upper.
    """
    on, back = (lower > 0) & (lower == after), (upper > 0) & (upper == before)
    both = np.stack([lower, upper])[:, on & back].T  # [2 a b] -> [voxels 2]
    pairs, agreeing = np.unique(both, axis=0, return_counts=True)
    crossing = [_counts(lower[on], pairs[:, 0]), _counts(upper[back], pairs[:, 1])]
    return pairs[agreeing >= _LEAST_SHARE * np.min(crossing, axis=0)]


def _counts(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """How often each wanted id occurs among ids."""
    names, counts = np.unique(ids, return_counts=True)
    return counts[np.searchsorted(names, wanted)]
