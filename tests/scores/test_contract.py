"""What holds of every score."""

import dataclasses
import math

import numpy as np
import pytest

from maemem.fields import own_fields
from maemem.geometry import blocks
from maemem.scores import SCORES
from maemem.scores.registry import columns, compare, make_scores, options


def tissue():
    """Nine objects of different sizes in 6×20×20 voxels, with background and unlabelled voxels."""
    labels = np.zeros((6, 20, 20), np.int64)
    starts = (0, 5, 11, 18)
    for number in range(9):
        y, x = divmod(number, 3)
        labels[:, starts[y] : starts[y + 1], starts[x] : starts[x + 1]] = number + 1
    labels[0, :4] = -1
    return labels


def errors(labels, size):
    """Every kind of error: a split, a merger, lost voxels, a lost object, and one made up."""
    wrong = np.maximum(labels, 0)
    wrong[:, 5 : 5 + size, 5:11][wrong[:, 5 : 5 + size, 5:11] == 5] = 21
    wrong[:size][wrong[:size] == 2] = 3
    wrong[(wrong == 9) & (np.arange(6) < size)[:, None, None]] = 0
    wrong[wrong == 1] = 0
    wrong[:size, 18:] = 22
    return wrong


# By what scores compare: a truth, and predictions that are perfect, bad and worse.
LABELS = tissue()
SCENES = {
    "labels": (LABELS, [np.maximum(LABELS, 0), errors(LABELS, 2), errors(LABELS, 4)]),
}
# Of the bad prediction.
GOLDEN = {
    "adapted_rand": 0.134829,
    "precision": 0.898431,
    "recall": 0.834285,
    "voi": 0.510463,
    "voi_split": 0.315123,
    "voi_merge": 0.195341,
    "ap50": 0.881188,
    "ap75": 0.617987,
    "ap": 0.644307,
    "dice": 0.914349,
    "iou": 0.842213,
}


def found(name, truth, predicted):
    score = SCORES[name]()
    return score.values(score.evidence.part(truth, predicted))


def test_names_of_columns_are_those_of_one_score():
    names = [column.name for score in SCORES.values() for column in score.columns]
    assert names == list(columns())
    assert list(GOLDEN) == names, "every column has its golden value"


@pytest.mark.parametrize("name", SCORES)
def test_a_score_describes_itself(name):
    score = SCORES[name]
    assert dataclasses.is_dataclass(score)
    assert score.__dataclass_params__.frozen
    assert score.compares in SCENES
    for column in score.columns:
        assert column.label
        assert column.better in ("lower", "higher")
    assert all(f"{field.name}:" in score.__doc__ for field in own_fields(score))


@pytest.mark.parametrize("name", SCORES)
def test_values_are_those_of_the_columns(name):
    truth, (_, bad, _) = SCENES[SCORES[name].compares]
    values = found(name, truth, bad)
    assert list(values) == [column.name for column in SCORES[name].columns]
    assert all(isinstance(value, float) for value in values.values())
    assert values == pytest.approx({key: GOLDEN[key] for key in values}, abs=1e-6)


@pytest.mark.parametrize("name", SCORES)
def test_worse_predictions_are_worse_in_the_direction_of_the_column(name):
    truth, predictions = SCENES[SCORES[name].compares]
    values = [found(name, truth, predicted) for predicted in predictions]
    for column in SCORES[name].columns:
        ranks = [column.rank(each[column.name]) for each in values]
        assert ranks[0] < ranks[1] < ranks[2], column.name


@pytest.mark.parametrize("name", SCORES)
def test_no_prediction_is_better_than_the_truth(name):
    truth, (perfect, *_) = SCENES[SCORES[name].compares]
    best, rng = found(name, truth, perfect), np.random.default_rng(0)
    predictions = [
        *(np.zeros_like(perfect), np.ones_like(perfect)),
        np.arange(perfect.size).reshape(perfect.shape),
        *(np.where(rng.random(truth.shape) < share, perfect, 7) for share in (0.1, 0.5, 0.9)),
    ]
    for predicted in predictions:
        values = found(name, truth, predicted)
        for column in SCORES[name].columns:
            assert column.rank(best[column.name]) <= column.rank(values[column.name])


@pytest.mark.parametrize("name", SCORES)
def test_ids_do_not_matter(name):
    truth, (_, bad, _) = SCENES[SCORES[name].compares]
    rng = np.random.default_rng(0)
    expected = found(name, truth, bad)
    for _ in range(5):
        of_truth, of_bad = (np.array([0, *(rng.permutation(30) + 1), -1]) for _ in range(2))
        of_bad[1:-1] += 2**40
        assert found(name, of_truth[truth], of_bad[bad]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("block_zyx", [(6, 20, 20), (4, 7, 20), (1, 3, 5)])
def test_parts_merge_to_the_whole(name, block_zyx):
    truth, (_, bad, _) = SCENES[SCORES[name].compares]
    score = SCORES[name]()
    boxes = list(blocks(truth.shape, block_zyx))[::-1]
    parts = (score.evidence.part(truth[box.slices], bad[box.slices]) for box in boxes)
    assert score.values(score.evidence.merge(parts)) == found(name, truth, bad)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("nothing", [-1, 0])
def test_a_truth_with_nothing_to_score_gives_nan(name, nothing):
    truth, _ = SCENES[SCORES[name].compares]
    empty = np.zeros_like(truth)
    values = found(name, np.full_like(truth, nothing), empty)
    assert all(map(math.isnan, values.values()))


def test_all_scores_at_once_have_the_values_of_each():
    truth, (_, bad, _) = SCENES["labels"]
    together = compare(make_scores(options()), truth, bad)
    assert together == {key: v for name in SCORES for key, v in found(name, truth, bad).items()}
    assert list(together) == list(columns())
