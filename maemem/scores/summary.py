"""All scores of a segmentation at once, by name."""

from __future__ import annotations

import math

from maemem.scores.average_precision import average_precision
from maemem.scores.contingency import Contingency
from maemem.scores.pairs import (
    AdaptedRand,
    VariationOfInformation,
    adapted_rand,
    overlap,
    variation_of_information,
)


def score_all(
    table: Contingency, ignore_background: bool = True, lone_background: bool = False
) -> dict[str, float]:
    """Every score of a contingency table; NaN is what the table leaves nothing to score for.

    Args:
      table: of truth and prediction.
      ignore_background: whether voxels that are background in the truth are left out of
        `adapted_rand` and `voi`. Instance and mask scores always see them: there an object in the
        background is a mistake.
      lone_background: see `scores.adapted_rand`.

    Returns:
      `adapted_rand` with `precision` and `recall`; `voi_split` and `voi_merge` in bits; `ap50`,
      `ap75` and `ap`, their mean over COCO's thresholds; `dice` and `iou` of the foreground.
    """
    rand, voi = AdaptedRand(*[math.nan] * 3), VariationOfInformation(*[math.nan] * 2)
    if (table.truth > 0).any() or (table.voxels.size and not ignore_background):
        rand = adapted_rand(table, ignore_background, lone_background)
        voi = variation_of_information(table, ignore_background)
    precisions, mask = average_precision(table), overlap(table)
    return {
        "adapted_rand": rand.error,
        "precision": rand.precision,
        "recall": rand.recall,
        "voi_split": voi.split,
        "voi_merge": voi.merge,
        "ap50": float(precisions[0]),
        "ap75": float(precisions[5]),
        "ap": float(precisions.mean()),
        "dice": mask.dice,
        "iou": mask.iou,
    }
