import math

import numpy as np

from maemem.scores.contingency import contingency
from maemem.scores.pairs import adapted_rand
from maemem.scores.summary import score_all


def row(*values):
    return np.array(values).reshape(1, 1, -1)


def test_the_predicted_background_is_one_object_or_many():
    table = contingency(row(1, 1, 1, 2, 2, 2), row(3, 3, 0, 0, 4, 4))
    for lone in (False, True):
        found = score_all(table, lone_background=lone)["adapted_rand"]
        assert found == adapted_rand(table, lone_background=lone).error
    assert score_all(table, lone_background=True)["adapted_rand"] == 1 - 4 / ((12 + 4) / 2)
    assert score_all(table)["adapted_rand"] > score_all(table, lone_background=True)["adapted_rand"]


def test_a_truth_without_objects_leaves_nothing_to_score():
    scores = score_all(contingency(row(0, 0, 0), row(0, 0, 0)))
    assert all(math.isnan(scores[name]) for name in ("adapted_rand", "voi_split", "ap75", "dice"))
    scores = score_all(contingency(row(0, 0, 0), row(0, 1, 1)))
    assert math.isnan(scores["adapted_rand"])
    assert scores["dice"] == 0
    assert score_all(contingency(row(0, 0), row(1, 1)), ignore_background=False)["voi_split"] == 0
