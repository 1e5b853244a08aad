"""Adapted Rand error and variation of information, true background ignored."""

from __future__ import annotations

from benchmarks.labels import label_pair
from maemem.scores.contingency import contingency
from maemem.scores.pairs import adapted_rand, variation_of_information

LIBRARIES = ("maemem", "numpy")


def prepare(size, bodies):
    truth, predicted = label_pair(size, bodies)
    scores = []

    def step():
        table = contingency(truth, predicted)
        scores[:] = [*adapted_rand(table), *variation_of_information(table)]

    return step, lambda: {"amount": truth.size, "result": [float(score) for score in scores]}
