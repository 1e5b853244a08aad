"""Splits and merges of a segmentation against the truth, by voxel and by pair.

The main segment of a true object is the one that shares most voxels with it; the main object of a
segment likewise. Voxels of an object outside of its main segment are split; voxels of a segment
outside of its main object are merged. A voxel can be both, as along a shifted border.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import NamedTuple

import fastremap
import numpy as np

from maemem.geometry import Zyx
from maemem.scores.contingency import Contingency, contingency

# Bits of an error map.
SPLIT = 1
MERGE = 2

KINDS = {SPLIT: "split", MERGE: "merge", SPLIT | MERGE: "both"}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A segmentation beside the truth.

    Attributes:
      table: pairs of an object and a segment that share voxels, without background.
      kinds: uint8 `[pairs]`; 0 where each is the other's main one, else SPLIT, MERGE or both bits.
      errors: uint8 `[z y x]`; the kind of each voxel's pair, 0 where there is none.
    """

    table: Contingency
    kinds: np.ndarray
    errors: np.ndarray

    def matches(self) -> dict[int, int]:
        """True objects by segment, where each is the other's main one."""
        right = self.kinds == 0
        return _lookup(self.table.predicted[right], self.table.truth[right])


class Spot(NamedTuple):
    """An error: the voxels that a true object and a segment share wrongly."""

    kind: str  # of KINDS
    truth: int  # id of the object
    predicted: int  # id of the segment
    voxels: int
    centre_zyx: Zyx  # the voxel nearest to their centre of mass


def compare(truth: np.ndarray, predicted: np.ndarray) -> Comparison:
    """Finds all pairs of an object and a segment, with the kind of error of each.

    Ties between main ones go to the lowest id.

    Args:
      truth: integer ids `[z y x]`; 0 is background, −1 unlabelled: neither is compared.
      predicted: integer ids of the same shape, not negative; 0 is background, and not compared.

    Raises:
      ValueError: as `contingency` does.
    """
    table = contingency(truth, predicted)
    table = table.select((table.truth > 0) & (table.predicted > 0))
    of_object, of_segment = (_mains(ids, table.voxels) for ids in (table.truth, table.predicted))
    kinds = (SPLIT * ~of_object + MERGE * ~of_segment).astype(np.uint8)
    main_segments = _lookup(table.truth[of_object], table.predicted[of_object])
    main_objects = _lookup(table.predicted[of_segment], table.truth[of_segment])
    errors = np.zeros(truth.shape, np.uint8)
    for z in range(len(truth)):
        here = (truth[z] > 0) & (predicted[z] > 0)
        ids, segments = truth[z][here].astype(np.int64), predicted[z][here].astype(np.int64)
        split = fastremap.remap(ids, main_segments) != segments
        merged = fastremap.remap(segments, main_objects) != ids
        errors[z][here] = SPLIT * split + MERGE * merged
    return Comparison(table, kinds, errors)


def _lookup(ids: np.ndarray, values: np.ndarray) -> dict[int, int]:
    return dict(zip(ids.tolist(), values.tolist(), strict=True))


def _mains(owners: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    """Whether each pair `[n]` is the largest of its owner; one of each owner is."""
    by_size = np.argsort(-voxels, kind="stable")
    _, largest = np.unique(owners[by_size], return_index=True)
    mains = np.zeros(len(owners), bool)
    mains[by_size[largest]] = True
    return mains


def error_spots(
    truth: np.ndarray, predicted: np.ndarray, count: int, comparison: Comparison | None = None
) -> list[Spot]:
    """The largest errors, up to `count` splits and `count` merges; largest first.

    Args:
      truth: as in `compare`.
      predicted: as in `compare`.
      count: of each kind; an error that is both counts for either.
      comparison: of the two, if it was computed before.
    """
    found = comparison or compare(truth, predicted)
    table, by_size = found.table, np.argsort(-found.table.voxels, kind="stable")
    chosen = set()
    for kind in (SPLIT, MERGE):
        chosen |= set(by_size[(found.kinds[by_size] & kind) > 0][:count].tolist())
    spots = []
    for pair in (i for i in by_size.tolist() if i in chosen):
        ids = int(table.truth[pair]), int(table.predicted[pair])
        centre = _centre((truth == ids[0]) & (predicted == ids[1]))
        kind = KINDS[int(found.kinds[pair])]
        spots.append(Spot(kind, *ids, int(table.voxels[pair]), centre))
    return spots


def _centre(mask: np.ndarray) -> Zyx:
    """The voxel of a mask that is nearest to the mask's centre of mass."""
    places = np.argwhere(mask)
    z, y, x = places[((places - places.mean(0)) ** 2).sum(1).argmin()].tolist()
    return z, y, x


def share_ids(truth: np.ndarray, predicted: np.ndarray, comparison: Comparison) -> np.ndarray:
    """Renames segments so that correct ones have the id, hence the colour, of their true object.

    A segment gets the id of an object if each is the other's main one; others get ids above all
    objects.

    Args:
      truth: as in `compare`.
      predicted: as in `compare`; 0 stays 0.
      comparison: of the two.

    Returns:
      int64 ids of the same shape.
    """
    table, right = comparison.table, comparison.kinds == 0
    above = max(0, int(truth.max(initial=0))) + 1
    names = np.where(predicted > 0, predicted.astype(np.int64) + above, 0)
    shared = _lookup(table.predicted[right] + above, table.truth[right])
    return fastremap.remap(names, shared, preserve_missing_labels=True)


def telling_sections(errors: np.ndarray, count: int) -> list[int]:
    """Sections of an error map `[z y x]` to show: in each of `count` slabs, that with most errors.

    In a slab without errors, the middle one.
    """
    depth = len(errors)
    bounds = np.linspace(0, depth, min(count, depth) + 1).round().astype(int).tolist()
    sections = []
    for start, stop in itertools.pairwise(bounds):
        erring = np.count_nonzero(errors[start:stop], axis=(1, 2))
        middle = (stop - start) // 2
        sections.append(start + (int(erring.argmax()) if erring.any() else middle))
    return sections
