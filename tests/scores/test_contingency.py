import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from maemem.scores.contingency import contingency, merge

shapes = st.tuples(*[st.integers(1, 6)] * 3)


@st.composite
def label_pairs(draw):
    shape = draw(shapes)
    truth = draw(npst.arrays(np.int32, shape, elements=st.integers(-1, 4)))
    predicted = draw(npst.arrays(np.uint64, shape, elements=st.integers(0, 4)))
    return truth, predicted


def rows(table):
    return list(zip(table.truth, table.predicted, table.voxels, strict=True))


def test_counts_pairs_and_leaves_out_unlabelled_truth():
    truth = np.array([[[1, 1, 2], [-1, 0, 0], [1, 1, 1]]])
    predicted = np.array([[[7, 7, 7], [7, 7, 0], [7, 8, 8]]])
    table = contingency(truth, predicted)
    assert rows(table) == [(0, 0, 1), (0, 7, 1), (1, 7, 3), (1, 8, 2), (2, 7, 1)]


@settings(max_examples=30, deadline=None)
@given(label_pairs(), st.integers(1, 300))
def test_equals_a_count_voxel_by_voxel_for_any_chunk(pair, chunk_voxels):
    truth, predicted = pair
    expected = {}
    for t, p in zip(truth.flat, predicted.flat, strict=True):
        if t >= 0:
            expected[int(t), int(p)] = expected.get((int(t), int(p)), 0) + 1
    table = contingency(truth, predicted, chunk_voxels)
    assert rows(table) == [(*pair, count) for pair, count in sorted(expected.items())]


@settings(max_examples=20, deadline=None)
@given(label_pairs(), st.integers(0, 6))
def test_tables_of_parts_merge_to_that_of_the_whole(pair, cut):
    truth, predicted = pair
    parts = [contingency(truth[s], predicted[s]) for s in (slice(0, cut), slice(cut, None))]
    assert rows(merge(parts)) == rows(contingency(truth, predicted))


def test_many_tables_hold_no_more_memory_than_an_eighth_of_them():
    def table():
        return contingency(np.arange(4096).reshape(16, 16, 16), np.ones((16, 16, 16), int))

    peaks = []
    for count in (25, 200):
        tracemalloc.start()
        whole = merge(table() for _ in range(count))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert whole.voxels.tolist() == [count] * 4096
    assert peaks[1] < 1.1 * peaks[0]


def test_counts_beyond_float_precision_are_exact():
    one = contingency(np.ones((1, 1, 1), int), np.ones((1, 1, 1), int))
    many = type(one)(one.truth, one.predicted, np.array([2**60]))
    assert merge([many, one]).voxels.tolist() == [2**60 + 1]


def test_ids_may_be_large_and_memory_not_contiguous():
    truth = np.full((2, 3, 4), 2**62, np.uint64).transpose(2, 0, 1)
    predicted = np.full((4, 2, 6), 2**63 - 1, np.uint64)[..., ::2]
    assert rows(contingency(truth, predicted)) == [(2**62, 2**63 - 1, 24)]


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        (np.zeros((2, 2, 2), int), np.zeros((2, 2, 3), int), "of the same region"),
        (np.zeros((1, 1, 1), int), np.full((1, 1, 1), -1), "prediction labels go from -1"),
        (np.full((1, 1, 1), -2), np.zeros((1, 1, 1), int), "truth labels go from -2"),
        (np.zeros((1, 1, 1), int), np.full((1, 1, 1), 2**63, np.uint64), "give 0 to"),
    ],
)
def test_refuses_what_are_no_labels(truth, predicted, message):
    with pytest.raises(ValueError, match=message):
        contingency(truth, predicted)
