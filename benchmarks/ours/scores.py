"""Adapted Rand error and variation of information, true background ignored."""

from __future__ import annotations

from benchmarks.labels import label_pair
from maemem.scores.adapted_rand import AdaptedRand
from maemem.scores.contingency import contingency
from maemem.scores.variation_of_information import VariationOfInformation

LIBRARIES = ("maemem", "numpy")


def prepare(size, bodies):
    truth, predicted = label_pair(size, bodies)
    scores = []

    def step():
        table = contingency(truth, predicted)
        _, split, merge = VariationOfInformation().values(table).values()
        scores[:] = [*AdaptedRand().values(table).values(), split, merge]

    return step, lambda: {"amount": truth.size, "result": [float(score) for score in scores]}
