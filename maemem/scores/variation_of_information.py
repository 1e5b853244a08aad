"""Variation of information, in bits, with its two halves."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import numpy as np

from maemem.scores.contingency import Contingency
from maemem.scores.contract import OVERLAPS, Column, Evidence


@dataclasses.dataclass(frozen=True)
class VariationOfInformation:
    """The two conditional entropies between a prediction S and the truth T, and their sum.

    Splits raise H(S|T), mergers H(T|S) (Meilă 2007). The prediction's background is one object.

    Attributes:
      ignore_background: leave out voxels that are background in the truth.
    """

    columns: ClassVar[tuple[Column, ...]] = (
        Column("voi", "VOI", "lower"),
        Column("voi_split", "VOI split", "lower"),
        Column("voi_merge", "VOI merge", "lower"),
    )
    compares: ClassVar[str] = "labels"
    evidence: ClassVar[Evidence] = OVERLAPS

    ignore_background: bool = True

    def values(self, table: Contingency, /) -> dict[str, float]:
        """See `Score`."""
        if self.ignore_background:
            table = table.select(table.truth > 0)
        split, merge = (_entropy(table, ids) for ids in (table.truth, table.predicted))
        return {"voi": split + merge, "voi_split": split, "voi_merge": merge}


def _entropy(table: Contingency, ids: np.ndarray) -> float:
    """The entropy of pairs given their object on one side, whose ids `[pairs]` these are."""
    if not table.voxels.size:
        return math.nan
    objects = np.unique(ids, return_inverse=True)[1]
    sizes = np.bincount(objects, table.voxels)[objects]  # [objects] -> [pairs]
    share = table.voxels / table.voxels.sum()
    return float(share @ np.log2(sizes / table.voxels))
