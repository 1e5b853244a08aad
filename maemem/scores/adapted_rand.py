"""Adapted Rand error, with the precision and recall that it combines."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import numpy as np

from maemem.scores.contingency import Contingency
from maemem.scores.contract import OVERLAPS, Column, Evidence


@dataclasses.dataclass(frozen=True)
class AdaptedRand:
    """One minus the F-score of pairs of voxels that share an object (Arganda-Carreras et al. 2015).

    Precision is the share of the prediction's pairs that are the truth's too; recall the share of
    the truth's pairs that are the prediction's. A voxel is no pair with itself. A ratio of nothing
    to nothing is NaN. Equals scikit-image's.

    Attributes:
      ignore_background: leave out voxels that are background in the truth.
      lone_background: the prediction's background is one object a voxel (True), as in the script of
        the SNEMI3D challenge, or one object (False).
    """

    columns: ClassVar[tuple[Column, ...]] = (
        Column("adapted_rand", "adapted Rand error", "lower"),
        Column("precision", "precision", "higher"),
        Column("recall", "recall", "higher"),
    )
    compares: ClassVar[str] = "labels"
    evidence: ClassVar[Evidence] = OVERLAPS

    ignore_background: bool = True
    lone_background: bool = False

    def values(self, table: Contingency, /) -> dict[str, float]:
        """See `Score`."""
        if self.ignore_background:
            table = table.select(table.truth > 0)
        truth = _pairs(_sizes(table.truth, table.voxels))
        if self.lone_background:
            table = table.select(table.predicted > 0)
        predicted = _pairs(_sizes(table.predicted, table.voxels))
        both = _pairs(table.voxels)
        return {
            "adapted_rand": 1 - _ratio(both, (predicted + truth) / 2),
            "precision": _ratio(both, predicted),
            "recall": _ratio(both, truth),
        }


def _sizes(ids: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    """Voxels of each object, float64, exact below 2**53."""
    return np.bincount(np.unique(ids, return_inverse=True)[1], voxels)


def _pairs(sizes: np.ndarray) -> float:
    """Ordered pairs of two different voxels of one object; int64 would overflow at 3e9 voxels."""
    sizes = sizes.astype(np.float64)
    return float(sizes @ (sizes - 1))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
