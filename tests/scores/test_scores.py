import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from skimage.metrics import adapted_rand_error
from skimage.metrics import variation_of_information as skimage_information

from maemem.scores.contingency import contingency
from maemem.scores.pairs import adapted_rand, overlap, variation_of_information

labels = npst.arrays(np.int32, (4, 5, 6), elements=st.integers(0, 5))
exactly = {"rel": 1e-12, "abs": 1e-12}


def row(*values):
    return np.array(values).reshape(1, 1, -1)


def test_adapted_rand_by_hand():
    # Pairs in common 2 + 2, in the prediction 2 + 6, in the truth 12.
    table = contingency(row(1, 1, 1, 1, 2), row(3, 3, 4, 4, 4))
    assert adapted_rand(table) == pytest.approx((1 - 4 / 10, 4 / 8, 4 / 12))


def test_a_split_costs_recall_and_a_merger_precision():
    split = adapted_rand(contingency(row(1, 1, 1, 1), row(1, 1, 2, 2)))
    assert (split.precision, split.recall) == pytest.approx((1, 1 / 3))
    merger = adapted_rand(contingency(row(1, 1, 2, 2), row(1, 1, 1, 1)))
    assert (merger.precision, merger.recall) == pytest.approx((1 / 3, 1))


def test_information_by_hand():
    # One true object in quarters: two bits to say which. Two true objects in one: one bit.
    assert variation_of_information(contingency(row(5, 5, 5, 5), row(1, 2, 3, 4))) == (2, 0)
    assert variation_of_information(contingency(row(5, 5, 6, 6), row(1, 1, 1, 1))) == (0, 1)


def test_background_of_the_truth_is_ignored_on_request_only():
    table = contingency(row(0, 0, 1, 1), row(1, 1, 1, 1))
    assert adapted_rand(table).error == 0
    assert variation_of_information(table).merge == 0
    assert adapted_rand(table, ignore_background=False).precision == pytest.approx(1 / 3)
    assert variation_of_information(table, ignore_background=False).merge == 1


def test_predicted_background_is_one_object_or_one_for_each_voxel():
    table = contingency(row(1, 1, 1, 2, 2), row(0, 0, 7, 0, 7))
    # Alone, each background voxel is a new object: the same as giving it an id of its own.
    alone = contingency(row(1, 1, 1, 2, 2), row(100, 101, 7, 102, 7))
    assert adapted_rand(table, lone_background=True) == adapted_rand(alone)
    assert adapted_rand(table).precision == pytest.approx(2 / 8)


def test_nothing_to_nothing_is_nan():
    score = adapted_rand(contingency(row(1, 2), row(1, 2)))
    assert np.isnan(score).all()
    assert np.isnan(overlap(contingency(row(0, 0), row(0, 0)))).all()


def test_overlap_by_hand():
    assert overlap(contingency(row(1, 1, 2, 0, -1), row(1, 0, 3, 4, 4))) == pytest.approx(
        (2 * 2 / (3 + 3), 2 / 4)
    )


@pytest.mark.parametrize("score", [adapted_rand, variation_of_information])
def test_nothing_to_score_is_an_error(score):
    with pytest.raises(ValueError, match="no voxel to score"):
        score(contingency(row(-1, 0), row(1, 2)))


@settings(max_examples=30, deadline=None)
@given(labels, labels, st.booleans())
def test_equals_scikit_image(truth, predicted, ignore):
    assume((truth > 0).any())
    table = contingency(truth, predicted)
    ignored = (0,) if ignore else ()
    # scikit-image 0.26 gives precision and recall the other way round (its issue 6485).
    with np.errstate(invalid="ignore"):
        error, recall, precision = adapted_rand_error(truth, predicted, ignore_labels=ignored)
    ours = adapted_rand(table, ignore)
    assert ours == pytest.approx((error, precision, recall), nan_ok=True, **exactly)
    information = skimage_information(truth, predicted, ignore_labels=ignored)
    assert variation_of_information(table, ignore) == pytest.approx(tuple(information), **exactly)


@settings(max_examples=30, deadline=None)
@given(labels, labels, st.permutations(range(1, 6)), st.permutations(range(1, 6)))
def test_names_of_objects_do_not_matter(truth, predicted, true_names, names):
    assume((truth > 0).any())
    renamed = contingency(np.array([0, *true_names])[truth], np.array([0, *names])[predicted])
    table = contingency(truth, predicted)
    for score in (adapted_rand, variation_of_information, overlap):
        assert score(renamed) == pytest.approx(score(table), nan_ok=True, **exactly)


@settings(max_examples=30, deadline=None)
@given(labels, labels)
def test_swapping_truth_and_prediction_swaps_their_errors(truth, predicted):
    one, other = contingency(truth, predicted), contingency(predicted, truth)
    a, b = (adapted_rand(table, ignore_background=False) for table in (one, other))
    assert (a.error, a.precision, a.recall) == pytest.approx(
        (b.error, b.recall, b.precision), nan_ok=True, **exactly
    )
    c, d = (variation_of_information(table, ignore_background=False) for table in (one, other))
    assert (c.split, c.merge) == pytest.approx((d.merge, d.split), **exactly)
    assert overlap(one) == pytest.approx(overlap(other), nan_ok=True)


@settings(max_examples=20, deadline=None)
@given(labels)
def test_the_truth_itself_is_perfect(truth):
    assume(np.bincount(truth[truth > 0], minlength=1).max() > 1)
    table = contingency(truth, truth)
    assert adapted_rand(table) == (0, 1, 1)
    assert variation_of_information(table) == (0, 0)
    assert overlap(table) == (1, 1)
