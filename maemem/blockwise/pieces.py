"""The pieces of objects that lie in a block, and which of them go on in the blocks beside it.

A block is cut with a margin around it, its halo, so that what decides about its voxels is seen.
Where the fragments in which two voxels lie are decided within the halo, both blocks see the same,
and their pieces, joined, are the fragments of the whole.
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

# What is predicted, float32 `[c z y x]`, to ids `[z y x]`, 0 for background.
Cut = Callable[[np.ndarray], np.ndarray]

_LEAST_SHARE = 0.5  # Of the voxels of a face, see `joins_across`.
MEND = "delete the unfinished result that it lies in, and begin again"


@dataclasses.dataclass(frozen=True)
class Pieces:
    """The pieces of one block, 1 to n in order of first appearance."""

    ids: np.ndarray  # uint32 [z y x]
    sizes: np.ndarray  # int64 [n], in voxels
    firsts: np.ndarray  # int64 [n], where each first appears: its voxel's number in the volume
    # Along each axis, the plane of voxels right before the block, and the one right after it: to
    # which of the block's pieces each belongs, as this block sees it; 0 for none, and for all where
    # there is no such plane. uint32.
    before: Sequence[np.ndarray]
    after: Sequence[np.ndarray]

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything but the ids, by name, such as `before0`, for `save`."""
        planes = {"before": self.before, "after": self.after}
        named = {f"{name}{axis}": p for name, each in planes.items() for axis, p in enumerate(each)}
        return {"sizes": self.sizes, "firsts": self.firsts, **named}


def save(folder: Path, block: Box, **arrays: Any) -> None:
    """Keeps arrays of a block in a file of its own."""
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(folder / f"{ledger.block_name(block)}.npz", content.getvalue())


def load(folder: Path, block: Box, *names: str) -> list[np.ndarray]:
    """Some of the arrays that are kept of a block."""
    path = folder / f"{ledger.block_name(block)}.npz"
    with damage.naming_file(path, MEND), np.load(path, allow_pickle=False) as arrays:
        return [arrays[name] for name in names]


def grown(block: Box, halo_zyx: Zyx, shape_zyx: Zyx) -> Box:
    """A block and its halo, as far as the volume reaches."""
    sides = zip(block.start_zyx, block.stop_zyx, halo_zyx, shape_zyx, strict=True)
    ends = [(max(0, a - halo), min(size, b + halo)) for a, b, halo, size in sides]
    (a, d), (b, e), (c, f) = ends
    return Box((a, b, c), (d, e, f))


def cut_block(labels: np.ndarray, outer: Box, block: Box, shape_zyx: Zyx) -> Pieces:
    """Numbers what lies in a block, and sees where it goes on.

    Args:
      labels: ids `[z y x]` of the block with its halo; 0 is background.
      outer: where they lie.
      block: the part that is the block.
      shape_zyx: of the volume in which both lie.
    """
    a, b, c = outer.start_zyx
    inside = block.moved((-a, -b, -c)).slices
    ids, names = fastremap.renumber(np.ascontiguousarray(labels[inside]), in_place=False)
    number = np.zeros(int(labels.max()) + 1, np.uint32)
    for old, new in names.items():
        number[int(old)] = new
    count = int(ids.max())
    # Numbered as they appear, the highest so far grows by one where a piece appears.
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
    """Which pieces of two blocks are one across their face.

    A voxel and the next one are one fragment where both blocks say so. Two pieces are joined if
    that holds for at least half of the voxels through which the one crosses the face that does so
    through fewer of them, each as its own block has it. Where fragments are decided within the
    halo, both blocks see the same, and it holds for all of these voxels or for none; elsewhere, as
    of a mutex watershed, which may hang on an edge far away, one voxel would join the largest.

    Args:
      lower: the last plane of pieces of the lower block, in its own numbers.
      after: to which of them the lower block counts the first plane of the upper one.
      upper: the first plane of the upper block, in its own numbers.
      before: to which of them the upper block counts the last plane of the lower one.

    Returns:
      int64 `[joins 2]`, a piece of the lower block and one of the upper.
    """
    on, back = (lower > 0) & (lower == after), (upper > 0) & (upper == before)
    both = np.stack([lower, upper])[:, on & back].T  # [2 a b] -> [voxels 2]
    pairs, agreeing = np.unique(both, axis=0, return_counts=True)
    crossing = [_counts(lower[on], pairs[:, 0]), _counts(upper[back], pairs[:, 1])]
    return pairs[agreeing >= _LEAST_SHARE * np.min(crossing, axis=0)]


def _counts(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """How often each of some ids is among others."""
    names, counts = np.unique(ids, return_counts=True)
    return counts[np.searchsorted(names, wanted)]
