"""Detection scores of instances, from a contingency table: average precision, and plain counts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64

from maemem.scores.contingency import Contingency

# The thresholds of intersection over union over which COCO averages: AP-50 first, AP-75 sixth.
COCO_IOUS = tuple(n / 100 for n in range(50, 100, 5))
_RECALLS = np.linspace(0, 1, 101)


@dataclasses.dataclass(frozen=True)
class Detections:
    """How many objects were found, made up and missed."""

    true_positives: int
    false_positives: int
    false_negatives: int

    @property
    def precision(self) -> float:
        """The share of predicted objects that are true; 0 if there are none."""
        return self.true_positives / max(1, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """The share of true objects that were found; 0 if there are none."""
        return self.true_positives / max(1, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float:
        """The harmonic mean of both."""
        wrong = self.false_positives + self.false_negatives
        return 2 * self.true_positives / max(1, 2 * self.true_positives + wrong)


def average_precision(
    table: Contingency,
    ious: Sequence[float] = COCO_IOUS,
    confidences: Mapping[int, float] | None = None,
) -> Float64[np.ndarray, " ious"]:
    """COCO's average precision, with the instances of a volume for the boxes of an image.

    Predicted instances, surest first, each take the true instance with which they overlap most
    among those still free, if the intersection over union reaches the threshold. Precision, made to
    fall with recall, is averaged over 101 recalls from 0 to 1 (Lin et al. 2014).

    Args:
      table: of truth and prediction; voxels of unlabelled truth are not part of any instance.
      ious: the thresholds of intersection over union. The mean over the default ones is COCO's AP.
      confidences: of each predicted id; any numbers, higher is surer, and of equals the lower id
        comes first. By default the size in voxels, as the evaluation of MitoEM has it: a
        segmentation has no confidence of its own, and small pieces are the doubtful ones.

    Returns:
      one score for each threshold; NaN if there is no true instance.

    Raises:
      ValueError: if a predicted id has no confidence, or a threshold is not in (0, 1].
    """
    pairs = _Pairs.of(table)
    if not pairs.truths:
        return np.full(len(ious), np.nan)
    order = pairs.ranking(confidences)
    return np.array([_interpolated(pairs.found(iou, order)[order], pairs.truths) for iou in ious])


def detections(
    table: Contingency, iou: float, confidences: Mapping[int, float] | None = None
) -> Detections:
    """Counts the instances that match at one threshold of intersection over union.

    Above 0.5 there is but one way to match; up to there it depends on the confidences. See
    `average_precision` for those, and for what it raises.
    """
    pairs = _Pairs.of(table)
    found = pairs.found(iou, pairs.ranking(confidences))
    hits = int(found.sum())
    return Detections(hits, len(found) - hits, pairs.truths - hits)


@dataclasses.dataclass(frozen=True)
class _Pairs:
    """The overlapping pairs of instances, which are numbered by rising id."""

    truths: int  # how many true instances
    ids: np.ndarray  # of the predicted instances
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
            ids[background:],
            sizes[background:],
            truth - true_background,
            predicted - background,
            iou,
        )

    def ranking(self, confidences: Mapping[int, float] | None) -> np.ndarray:
        """The numbers of the predicted instances, surest first."""
        if confidences is None:
            return np.argsort(-self.sizes, kind="stable")
        missing = [int(i) for i in self.ids if int(i) not in confidences]
        if missing:
            raise ValueError(
                f"{len(missing)} predicted instances have no confidence, such as {missing[:3]}; "
                f"give one for each of the {len(self.ids)} ids"
            )
        return np.argsort([-confidences[int(i)] for i in self.ids], kind="stable")

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
