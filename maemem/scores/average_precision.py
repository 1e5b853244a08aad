"""Average precision of instances."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from maemem.scores.contingency import Contingency
from maemem.scores.contract import OVERLAPS, Column, Evidence

# The thresholds of intersection over union over which COCO averages: AP-50 first, AP-75 sixth.
COCO_IOUS = tuple(n / 100 for n in range(50, 100, 5))
_RECALLS = np.linspace(0, 1, 101)


@dataclasses.dataclass(frozen=True)
class AveragePrecision:
    """COCO's average precision, see `average_precision`; `ap` is the mean over its thresholds.

    Background counts: an object there is a false positive.
    """

    columns: ClassVar[tuple[Column, ...]] = (
        Column("ap50", "AP-50", "higher"),
        Column("ap75", "AP-75", "higher"),
        Column("ap", "AP", "higher"),
    )
    compares: ClassVar[str] = "labels"
    evidence: ClassVar[Evidence] = OVERLAPS

    def values(self, table: Contingency, /) -> dict[str, float]:
        """See `Score`."""
        found = average_precision(table)
        return {"ap50": float(found[0]), "ap75": float(found[5]), "ap": float(found.mean())}


def average_precision(
    table: Contingency, ious: Sequence[float] = COCO_IOUS
) -> Float64[np.ndarray, " ious"]:
    """COCO's average precision, with the instances of a volume for the boxes of an image.

    Predicted instances, largest first, each take the true instance with which they overlap most
    among those still free, if the intersection over union reaches the threshold. Precision, made to
    fall with recall, is averaged over 101 recalls from 0 to 1 (Lin et al. 2014). The size in voxels
    stands for the confidence, as in the evaluation of MitoEM: a segmentation has no confidence of
    its own, and small pieces are the doubtful ones. Of equal sizes the lower id comes first.

    Args:
      table: of truth and prediction; voxels of unlabelled truth are not part of any instance.
      ious: the thresholds of intersection over union. The mean over the default ones is COCO's AP.

    Returns:
      one score for each threshold; NaN if there is no true instance.

    Raises:
      ValueError: if a threshold is not in (0, 1].
    """
    pairs = _Pairs.of(table)
    if not pairs.truths:
        return np.full(len(ious), np.nan)
    order = np.argsort(-pairs.sizes, kind="stable")
    return np.array([_interpolated(pairs.found(iou, order)[order], pairs.truths) for iou in ious])


@dataclasses.dataclass(frozen=True)
class _Pairs:
    """The overlapping pairs of instances, which are numbered by rising id."""

    truths: int  # how many true instances
    sizes: np.ndarray  # of the predicted instances, in voxels
    truth: np.ndarray  # of each pair, the number of the true instance
    predicted: np.ndarray  # of each pair, the number of the predicted instance
    iou: np.ndarray  # of each pair

    @classmethod
    def of(cls, table: Contingency) -> _Pairs:
        true_ids, truth = np.unique(table.truth, return_inverse=True)
        ids, predicted = np.unique(table.predicted, return_inverse=True)
        true_sizes = np.bincount(truth, table.voxels)
        sizes = np.bincount(predicted, table.voxels)
        both = (table.truth > 0) & (table.predicted > 0)
        truth, predicted, shared = truth[both], predicted[both], table.voxels[both]
        iou = shared / (true_sizes[truth] + sizes[predicted] - shared)
        background, true_background = (int((x == 0).sum()) for x in (ids, true_ids))
        return cls(
            len(true_ids) - true_background,
            sizes[background:],
            truth - true_background,
            predicted - background,
            iou,
        )

    def found(self, iou: float, order: np.ndarray) -> np.ndarray:
        """Which predicted instances `[n]` take a true one, if they choose in this order."""
        if not 0 < iou <= 1:
            raise ValueError(f"the threshold of intersection over union is {iou}; give (0, 1]")
        rank = np.argsort(order)
        near = np.flatnonzero(self.iou >= iou)
        near = near[np.lexsort((-self.iou[near], rank[self.predicted[near]]))]
        found, taken = np.zeros(len(order), bool), np.zeros(self.truths, bool)
        for predicted, truth in zip(self.predicted[near], self.truth[near], strict=True):
            if not found[predicted] and not taken[truth]:
                found[predicted] = taken[truth] = True
        return found


def _interpolated(found: np.ndarray, truths: int) -> float:
    """The mean over recalls of the best precision at that recall or a higher one."""
    hits = np.cumsum(found)
    precision = hits / np.arange(1, len(found) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    reached = np.searchsorted(hits / truths, _RECALLS)
    return float(np.append(best, 0.0)[reached].mean())
