"""Scores of a segmentation against the truth, each a function of their contingency table alone."""

from typing import NamedTuple

import numpy as np

from maemem.scores.contingency import Contingency


class AdaptedRand(NamedTuple):
    """The adapted Rand error, 0 at best, and the precision and recall that it is made of."""

    error: float
    precision: float
    recall: float


class VariationOfInformation(NamedTuple):
    """In bits, 0 at best."""

    split: float  # H(S|T): what the prediction still leaves open, given the truth.
    merge: float  # H(T|S): what the truth still leaves open, given the prediction.


class Overlap(NamedTuple):
    """How far the two foregrounds agree, 1 at best."""

    dice: float
    iou: float


def adapted_rand(
    table: Contingency, ignore_background: bool = True, lone_background: bool = False
) -> AdaptedRand:
    """One minus the F-score of pairs of voxels that share an object (Arganda-Carreras et al. 2015).

    Precision is the share of the prediction's pairs that are the truth's too; recall the share of
    the truth's that are the prediction's. A voxel is no pair with itself. A ratio of nothing to
    nothing is NaN. As scikit-image has it.

    Args:
      table: of truth and prediction.
      ignore_background: whether voxels that are background in the truth are left out.
      lone_background: what the prediction's background is: one object (False), or one object for
        each of its voxels (True), as the script of the SNEMI3D challenge has it.

    Raises:
      ValueError: if no voxel is left to count.
    """
    table = _counted(table, ignore_background)
    truth = _pairs(_sizes(table.truth, table.voxels)[0])
    if lone_background:
        table = table.select(table.predicted > 0)
    predicted = _pairs(_sizes(table.predicted, table.voxels)[0])
    both = _pairs(table.voxels)
    with np.errstate(invalid="ignore"):
        precision, recall, f_score = both / np.array([predicted, truth, (predicted + truth) / 2])
    return AdaptedRand(float(1 - f_score), float(precision), float(recall))


def variation_of_information(
    table: Contingency, ignore_background: bool = True
) -> VariationOfInformation:
    """The two conditional entropies between a prediction S and the truth T (Meilă 2007).

    The prediction's background counts as one object.

    Args:
      table: of truth and prediction.
      ignore_background: whether voxels that are background in the truth are left out.

    Raises:
      ValueError: if no voxel is left to count.
    """
    table = _counted(table, ignore_background)
    share = table.voxels / table.voxels.sum()
    split, merge = (
        float(share @ np.log2(sizes[objects] / table.voxels))
        for sizes, objects in (_sizes(ids, table.voxels) for ids in (table.truth, table.predicted))
    )
    return VariationOfInformation(split, merge)


def overlap(table: Contingency) -> Overlap:
    """Dice coefficient and intersection over union of the foregrounds, whatever the objects.

    NaN if neither has a foreground.
    """
    truth, predicted = table.truth > 0, table.predicted > 0
    both, either = (
        int(table.voxels[rows].sum()) for rows in (truth & predicted, truth | predicted)
    )
    if not either:
        return Overlap(float("nan"), float("nan"))
    return Overlap(dice=2 * both / (both + either), iou=both / either)


def _counted(table: Contingency, ignore_background: bool) -> Contingency:
    if ignore_background:
        table = table.select(table.truth > 0)
    if not table.voxels.size:
        raise ValueError(
            "there is no voxel to score: all truth is unlabelled or ignored background; "
            "choose a region with labels"
        )
    return table


def _sizes(ids: np.ndarray, voxels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Voxels of each object, float64 and exact below 2**53, and the number of each row's object."""
    objects = np.unique(ids, return_inverse=True)[1]
    return np.bincount(objects, voxels), objects


def _pairs(sizes: np.ndarray) -> float:
    """Ordered pairs of two different voxels of one object; int64 would overflow at 3e9 voxels."""
    sizes = sizes.astype(np.float64)
    return float(sizes @ (sizes - 1))
