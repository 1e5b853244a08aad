import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from maemem.scores.contingency import contingency
from maemem.scores.dice import Dice

labels = npst.arrays(np.int32, (4, 5, 6), elements=st.integers(0, 5))


def dice(truth, predicted):
    """Dice and intersection over union."""
    return tuple(Dice().values(contingency(truth, predicted)).values())


def row(*values):
    return np.array(values).reshape(1, 1, -1)


def test_by_hand():
    found = dice(row(1, 1, 2, 0, -1), row(1, 0, 3, 4, 4))
    assert found == pytest.approx((2 * 2 / (3 + 3), 2 / 4))


def test_a_foreground_where_the_truth_has_none_scores_nothing():
    assert dice(row(0, 0, 0), row(0, 1, 1)) == (0, 0)


@settings(max_examples=30, deadline=None)
@given(labels, labels)
def test_truth_and_prediction_may_be_swapped(truth, predicted):
    assert dice(truth, predicted) == pytest.approx(dice(predicted, truth), nan_ok=True)
