import dataclasses
from typing import ClassVar

import numpy as np
import pytest

from maemem.config import segmenting
from maemem.scores import SCORES
from maemem.scores.contract import OVERLAPS, Column, Evidence
from maemem.scores.registry import columns, compare, make_scores, make_selected


@dataclasses.dataclass(frozen=True)
class Branches:
    columns: ClassVar = (Column("branches", "branches", "higher"),)
    compares: ClassVar = "trees"
    evidence: ClassVar = OVERLAPS

    shortest: float = 1.5

    def values(self, evidence, /):
        return {"branches": self.shortest}


def test_nan_ranks_last_whichever_way_is_better():
    for better, order in (("lower", [1.0, 2.0]), ("higher", [2.0, 1.0])):
        column = Column("made_up", "made up", better)
        assert sorted([float("nan"), 2.0, 1.0], key=column.rank)[:2] == order
    assert Column("a", "A", "lower").heading == "A ↓"
    assert Column("b", "B", "higher").heading == "B ↑"


def test_options_are_those_of_the_config():
    section = segmenting().evaluate
    assert section.adapted_rand.lone_background is False
    section.adapted_rand.lone_background = True
    assert make_scores(section)["adapted_rand"] == SCORES["adapted_rand"](lone_background=True)
    assert make_scores({}) == {name: score() for name, score in SCORES.items()}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"lone_background": True}, "evaluate has the fields lone_background; expected: options"),
        ({"dice": {"soft": True}}, r"evaluate\.dice has the fields soft"),
        ({"adapted_rand": {"lone_background": 1.5}}, "True or False"),
    ],
)
def test_refuses_options_that_there_are_none_of(section, message):
    with pytest.raises(ValueError, match=message):
        make_scores(section)


def test_scores_are_selected_by_a_column():
    score, column = make_selected({}, "voi")
    assert score == SCORES["variation_of_information"]()
    assert column == columns()["voi"]
    with pytest.raises(ValueError, match=r"segment\.select_by is 'arand'; expected: one of ad"):
        make_selected({}, "arand")


def test_scores_of_another_truth_are_left_out(monkeypatch):
    monkeypatch.setitem(SCORES, "branches", Branches)
    assert "branches" in columns()
    assert "branches" not in make_scores({})
    assert list(make_scores({"branches": {"shortest": 2.0}}, compares="trees")) == ["branches"]
    with pytest.raises(ValueError, match=r"segment\.select_by is 'branches'"):
        make_selected({}, "branches")


def test_evidence_that_scores_share_is_counted_once(monkeypatch):
    counted = []
    shared = Evidence(
        part=lambda truth, pieces: counted.append(truth.shape), merge=list, rename=max
    )
    for name in ("first", "second"):
        fake = type(name, (Branches,), {"compares": "labels", "evidence": shared})
        monkeypatch.setitem(SCORES, name, fake)
    compare(make_scores({}), *[np.ones((1, 2, 2), int)] * 2)
    assert counted == [(1, 2, 2)]
