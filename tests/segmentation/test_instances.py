import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from maemem.segmentation.instances import compact, remove_small

labels = npst.arrays(np.int64, st.tuples(*[st.integers(1, 5)] * 3), elements=st.integers(0, 9))


def test_remove_small_counts_ids_not_parts():
    given_labels = np.array([[[4, 0, 4, 7, -1, 9, 9]]], np.int32)
    kept = remove_small(given_labels, 2)
    assert kept.tolist() == [[[4, 0, 4, 0, -1, 9, 9]]]
    assert kept.dtype == np.int32
    assert given_labels[0, 0, 3] == 7


@pytest.mark.parametrize("smallest", [0, 1])
def test_remove_small_may_remove_nothing(smallest):
    given_labels = np.array([[[4, 0, 7]]], np.uint64)
    assert remove_small(given_labels, smallest).tolist() == given_labels.tolist()


def test_remove_small_refuses_negative_sizes():
    with pytest.raises(ValueError, match="smallest is -1"):
        remove_small(np.zeros((1, 1, 1), int), -1)


def test_compact_numbers_by_first_appearance():
    given_labels = np.array([[[0, 2**40, 7], [7, 2**40, 3]]], np.uint64)
    for order in "CF":
        numbered = compact(np.asarray(given_labels, order=order))
        assert numbered.tolist() == [[[0, 1, 2], [2, 1, 3]]]
        assert numbered.dtype == np.uint32


def test_compact_refuses_unlabelled_voxels():
    with pytest.raises(ValueError, match="the lowest label is -1"):
        compact(np.array([[[-1, 1]]]))


@settings(max_examples=30, deadline=None)
@given(labels, st.permutations(range(1, 10)))
def test_compact_forgets_the_names(given_labels, names):
    numbered = compact(given_labels)
    np.testing.assert_array_equal(numbered, compact(np.array([0, *names])[given_labels]))
    np.testing.assert_array_equal(numbered == 0, given_labels == 0)
    firsts = list(dict.fromkeys(numbered[numbered > 0].tolist()))
    assert firsts == list(range(1, len(np.unique(given_labels[given_labels > 0])) + 1))
