"""Dice coefficient and intersection over union of the foregrounds."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

from maemem.scores.contingency import Contingency
from maemem.scores.contract import OVERLAPS, Column, Evidence


@dataclasses.dataclass(frozen=True)
class Dice:
    """How far the two foregrounds agree, whatever the objects; NaN if neither has any."""

    columns: ClassVar[tuple[Column, ...]] = (
        Column("dice", "Dice", "higher"),
        Column("iou", "IoU", "higher"),
    )
    compares: ClassVar[str] = "labels"
    evidence: ClassVar[Evidence] = OVERLAPS

    def values(self, table: Contingency, /) -> dict[str, float]:
        """See `Score`."""
        truth, predicted = table.truth > 0, table.predicted > 0
        both, either = (
            int(table.voxels[rows].sum()) for rows in (truth & predicted, truth | predicted)
        )
        if not either:
            return {"dice": math.nan, "iou": math.nan}
        return {"dice": 2 * both / (both + either), "iou": both / either}
