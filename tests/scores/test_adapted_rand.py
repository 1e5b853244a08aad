import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from skimage.metrics import adapted_rand_error

from maemem.scores.adapted_rand import AdaptedRand
from maemem.scores.contingency import contingency

labels = npst.arrays(np.int32, (4, 5, 6), elements=st.integers(0, 5))
exactly = {"rel": 1e-12, "abs": 1e-12}


def row(*values):
    return np.array(values).reshape(1, 1, -1)


def rand(truth, predicted, **options):
    """Error, precision and recall."""
    return tuple(AdaptedRand(**options).values(contingency(truth, predicted)).values())


def test_by_hand():
    # Pairs in common 2 + 2, in the prediction 2 + 6, in the truth 12.
    found = rand(row(1, 1, 1, 1, 2), row(3, 3, 4, 4, 4))
    assert found == pytest.approx((1 - 4 / 10, 4 / 8, 4 / 12))


def test_a_split_costs_recall_and_a_merger_precision():
    assert rand(row(1, 1, 1, 1), row(1, 1, 2, 2))[1:] == pytest.approx((1, 1 / 3))
    assert rand(row(1, 1, 2, 2), row(1, 1, 1, 1))[1:] == pytest.approx((1 / 3, 1))


def test_background_of_the_truth_is_ignored_on_request_only():
    labels = row(0, 0, 1, 1), row(1, 1, 1, 1)
    assert rand(*labels) == (0, 1, 1)
    assert rand(*labels, ignore_background=False)[1] == pytest.approx(1 / 3)


def test_predicted_background_is_one_object_or_one_for_each_voxel():
    truth, predicted = row(1, 1, 1, 2, 2), row(0, 0, 7, 0, 7)
    # Alone, each background voxel is a new object: the same as giving it an id of its own.
    alone = rand(truth, row(100, 101, 7, 102, 7))
    assert rand(truth, predicted, lone_background=True) == alone
    assert rand(truth, predicted)[1] == pytest.approx(2 / 8)


def test_nothing_to_nothing_is_nan():
    assert np.isnan(rand(row(1, 2), row(1, 2))).all()


@settings(max_examples=30, deadline=None)
@given(labels, labels, st.booleans())
def test_equals_scikit_image(truth, predicted, ignore):
    assume((truth > 0).any())
    # scikit-image 0.26 gives precision and recall the other way round (its issue 6485).
    with np.errstate(invalid="ignore"):
        error, recall, precision = adapted_rand_error(
            truth, predicted, ignore_labels=(0,) if ignore else ()
        )
    ours = rand(truth, predicted, ignore_background=ignore)
    assert ours == pytest.approx((error, precision, recall), nan_ok=True, **exactly)


@settings(max_examples=30, deadline=None)
@given(labels, labels)
def test_swapping_truth_and_prediction_swaps_precision_and_recall(truth, predicted):
    error, precision, recall = rand(truth, predicted, ignore_background=False)
    swapped = rand(predicted, truth, ignore_background=False)
    assert swapped == pytest.approx((error, recall, precision), nan_ok=True, **exactly)
