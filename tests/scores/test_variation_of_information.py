import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from skimage.metrics import variation_of_information

from maemem.scores.contingency import contingency
from maemem.scores.variation_of_information import VariationOfInformation

labels = npst.arrays(np.int32, (4, 5, 6), elements=st.integers(0, 5))
exactly = {"rel": 1e-12, "abs": 1e-12}


def row(*values):
    return np.array(values).reshape(1, 1, -1)


def voi(truth, predicted, **options):
    """Sum, split and merge."""
    return tuple(VariationOfInformation(**options).values(contingency(truth, predicted)).values())


def test_by_hand():
    # One true object in quarters: two bits to say which. Two true objects in one: one bit.
    assert voi(row(5, 5, 5, 5), row(1, 2, 3, 4)) == (2, 2, 0)
    assert voi(row(5, 5, 6, 6), row(1, 1, 1, 1)) == (1, 0, 1)


def test_background_of_the_truth_is_ignored_on_request_only():
    labels = row(0, 0, 1, 1), row(1, 1, 1, 1)
    assert voi(*labels) == (0, 0, 0)
    assert voi(*labels, ignore_background=False) == (1, 0, 1)


def test_the_truth_itself_is_perfect_also_as_background():
    assert voi(row(0, 0), row(1, 1), ignore_background=False) == (0, 0, 0)


@settings(max_examples=30, deadline=None)
@given(labels, labels, st.booleans())
def test_equals_scikit_image(truth, predicted, ignore):
    assume((truth > 0).any())
    split, merge = variation_of_information(truth, predicted, ignore_labels=(0,) if ignore else ())
    ours = voi(truth, predicted, ignore_background=ignore)
    assert ours == pytest.approx((split + merge, split, merge), **exactly)


@settings(max_examples=30, deadline=None)
@given(labels, labels)
def test_swapping_truth_and_prediction_swaps_the_halves(truth, predicted):
    both, split, merge = voi(truth, predicted, ignore_background=False)
    swapped = voi(predicted, truth, ignore_background=False)
    assert swapped == pytest.approx((both, merge, split), **exactly)
