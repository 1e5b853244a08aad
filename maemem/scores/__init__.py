"""Scores of a segmentation against the truth, one file each.

What a score is, is said in `scores.contract`. A config gives its options in `evaluate.KEY`, by its
key in `SCORES`; tables show its columns in this order.
"""

from maemem.scores.adapted_rand import AdaptedRand
from maemem.scores.average_precision import AveragePrecision
from maemem.scores.contract import Score
from maemem.scores.dice import Dice
from maemem.scores.variation_of_information import VariationOfInformation

SCORES: dict[str, type[Score]] = {
    "adapted_rand": AdaptedRand,
    "variation_of_information": VariationOfInformation,
    "average_precision": AveragePrecision,
    "dice": Dice,
}
