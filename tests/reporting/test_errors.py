"""Splits and merges: small cases by hand, and the definition voxel by voxel."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from maemem.reporting.errors import (
    KINDS,
    MERGE,
    SPLIT,
    Spot,
    compare,
    error_spots,
    share_ids,
    telling_sections,
)

quick = hypothesis.settings(max_examples=30, deadline=None)


def line(*ids: int) -> np.ndarray:
    """Ids along x."""
    return np.array(ids, np.int32)[None, None]


@st.composite
def segmentations(draw):
    """Truth with unlabelled voxels, and a segmentation of it, of one shape."""
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6)))
    truth = draw(arrays.arrays(np.int32, shape, elements=st.integers(-1, 4)))
    predicted = draw(arrays.arrays(np.uint32, shape, elements=st.integers(0, 4)))
    return truth, predicted


def main_of(ids: np.ndarray, others: np.ndarray, wanted: int) -> int:
    """The other id that shares most voxels with this one; of several, the lowest."""
    found, counts = np.unique(others[(ids == wanted) & (others > 0)], return_counts=True)
    return int(found[counts.argmax()])


@quick
@hypothesis.given(segmentations())
def test_every_voxel_has_the_kind_that_the_definition_gives_it(pair):
    truth, predicted = pair
    errors = compare(truth, predicted).errors
    for place in np.ndindex(truth.shape):
        object_, segment = int(truth[place]), int(predicted[place])
        expected = 0
        if object_ > 0 and segment > 0:
            expected += SPLIT * (main_of(truth, predicted, object_) != segment)
            expected += MERGE * (main_of(predicted, truth, segment) != object_)
        assert errors[place] == expected


@quick
@hypothesis.given(segmentations(), st.integers(1, 4))
def test_spots_are_the_largest_pairs_and_lie_in_them(pair, count):
    truth, predicted = pair
    found = compare(truth, predicted)
    spots = error_spots(truth, predicted, count)
    assert spots == error_spots(truth, predicted, count, found)
    assert [s.voxels for s in spots] == sorted((s.voxels for s in spots), reverse=True)
    for spot in spots:
        mask = (truth == spot.truth) & (predicted == spot.predicted)
        assert mask[spot.centre_zyx]
        assert np.count_nonzero(mask) == spot.voxels
        assert KINDS[int(found.errors[spot.centre_zyx])] == spot.kind
    for kind, name in ((SPLIT, "split"), (MERGE, "merge")):
        sizes = sorted(found.table.voxels[(found.kinds & kind) > 0].tolist(), reverse=True)
        listed = [s.voxels for s in spots if s.kind in (name, "both")]
        assert listed[:count] == sizes[:count]


@quick
@hypothesis.given(segmentations())
def test_shared_ids_keep_the_partition(pair):
    truth, predicted = pair
    shared = share_ids(truth, predicted, compare(truth, predicted))
    np.testing.assert_array_equal(shared == 0, predicted == 0)
    names = set(zip(predicted.ravel().tolist(), shared.ravel().tolist(), strict=True))
    assert len(names) == len(np.unique(predicted)) == len(np.unique(shared))


@quick
@hypothesis.given(segmentations(), st.permutations([10, 20, 30, 40]))
def test_the_truth_under_other_ids_has_no_errors(pair, names):
    truth, _ = pair
    renamed = np.array([0, *names])[truth.clip(0)]
    found = compare(truth, renamed)
    assert not found.errors.any()
    assert not found.kinds.any()
    assert error_spots(truth, renamed, 3) == []
    np.testing.assert_array_equal(share_ids(truth, renamed, found), truth.clip(0))


def test_a_split_a_merge_and_both():
    truth = line(1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 0, -1)
    predicted = line(5, 5, 5, 6, 6, 7, 7, 7, 7, 7, 7, 5)
    found = compare(truth, predicted)
    assert found.errors[0, 0].tolist() == [0, 0, 0, 1, 1, 0, 0, 0, 2, 2, 0, 0]
    assert error_spots(truth, predicted, 5) == [
        Spot("split", 1, 6, 2, (0, 0, 3)),
        Spot("merge", 3, 7, 2, (0, 0, 8)),
    ]
    assert share_ids(truth, predicted, found)[0, 0].tolist() == [
        *(1, 1, 1, 10, 10),
        *(2, 2, 2, 2, 2, 2, 1),
    ]
    shifted = compare(line(1, 1, 1, 2, 2), line(1, 1, 2, 2, 2))
    assert shifted.errors[0, 0].tolist() == [0, 0, SPLIT | MERGE, 0, 0]


def test_the_centre_of_a_ring_lies_on_the_ring():
    truth = np.ones((1, 7, 7), np.int32)
    predicted = np.full_like(truth, 1)
    predicted[0, 1:6, 1:6] = 2
    predicted[0, 2:5, 2:5] = 1
    (spot,) = error_spots(truth, predicted, 3)
    assert (spot.kind, spot.predicted, spot.voxels) == ("split", 2, 16)
    assert spot.centre_zyx in {(0, 1, 3), (0, 3, 1), (0, 3, 5), (0, 5, 3)}


def test_nothing_in_common_is_no_error():
    truth, predicted = line(1, 0, -1), line(0, 3, 4)
    found = compare(truth, predicted)
    assert not found.errors.any()
    assert found.table.voxels.size == 0
    assert error_spots(truth, predicted, 2) == []
    assert share_ids(truth, predicted, found)[0, 0].tolist() == [0, 5, 6]


def test_telling_sections_err_most_in_their_slab():
    errors = np.zeros((9, 2, 2), np.uint8)
    errors[1, 0] = 1
    errors[5] = 2
    errors[4, 0, 0] = 3
    assert telling_sections(errors, 3) == [1, 5, 7]
    assert telling_sections(errors[:2], 3) == [0, 1]
    assert telling_sections(np.zeros((5, 1, 1)), 1) == [2]


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="shape"):
        compare(line(1, 2), line(1))
