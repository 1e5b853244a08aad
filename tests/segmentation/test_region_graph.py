"""Graphs of touching fragments: the same from any blocks; merging: what the definition says."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from maemem.geometry import blocks
from maemem.segmentation.instances import compact
from maemem.segmentation.region_graph import SCORES, RegionGraph, joined, merge, region_graph


def tissue(seed, shape, count):
    """Random ids, background among them, and affinities without ties."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, count + 1, shape), rng.random((3, *shape), np.float32)


def together(graphs, score, names=None):
    return joined([g.pairs for g in graphs], (g.statistics for g in graphs), score, names)


def padded(ids):
    return np.pad(ids, [(1, 0)] * 3)


def boundaries(ids, affinities):
    """The affinities across each pair of ids."""
    found = {}
    for axis in range(3):
        a, b = (np.moveaxis(ids, axis, 0)[s] for s in (slice(1, None), slice(None, -1)))
        values = np.moveaxis(affinities[axis], axis, 0)[1:]
        for u, v, value in zip(a.ravel(), b.ravel(), values.ravel(), strict=True):
            if u != v and u and v:
                found.setdefault((min(u, v), max(u, v)), []).append(value)
    return found


def by_definition(values, score):
    if score == "mean":
        return np.mean(values, dtype=np.float64)
    share = {"median": 0.5, "quantile85": 0.85}[score]
    return sorted(values)[int(share * len(values) + 1e-9)]


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(
    seed=st.integers(0, 2**32),
    shape=st.tuples(*[st.integers(1, 7)] * 3),
    block=st.tuples(*[st.integers(1, 7)] * 3),
    score=st.sampled_from(SCORES),
)
def test_the_graph_of_blocks_is_the_graph_of_the_whole(seed, shape, block, score):
    ids, affinities = tissue(seed, shape, 9)
    whole = region_graph(affinities, padded(ids), score)
    parts = []
    for box in blocks(shape, block):
        longer = [slice(a, b + 1) for a, b in zip(box.start_zyx, box.stop_zyx, strict=True)]
        here = affinities[(slice(None), *box.slices)]
        parts.append(region_graph(here, padded(ids)[tuple(longer)], score))
    found = together(parts, score)
    np.testing.assert_array_equal(found.pairs, whole.pairs)
    np.testing.assert_array_equal(found.statistics, whole.statistics)
    assert {tuple(pair) for pair in whole.pairs.tolist()} == boundaries(ids, affinities).keys()


def test_names_join_regions():
    ids, affinities = tissue(0, (4, 5, 6), 6)
    names = np.array([0, 2, 1, 1, 2, 3, 3])
    renamed = together([region_graph(affinities, padded(ids), "mean")], "mean", names)
    direct = region_graph(affinities, padded(names[ids]), "mean")
    np.testing.assert_array_equal(renamed.pairs, direct.pairs)
    np.testing.assert_array_equal(renamed.statistics, direct.statistics)


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(
    seed=st.integers(0, 2**32), threshold=st.floats(0.2, 0.8), score=st.sampled_from(SCORES)
)
def test_merges_the_best_pair_until_none_is_above_the_threshold(seed, threshold, score):
    ids, affinities = tissue(seed, (3, 5, 5), 14)
    if score != "mean":  # Their scores are known to 1/256, in the middle of a bin.
        affinities = ((affinities * 256).astype(int) + np.float32(0.5)) / np.float32(256)
    expected = ids.copy()
    while found := boundaries(expected, affinities):
        scores = {pair: by_definition(values, score) for pair, values in found.items()}
        best = max(scores.values())
        if best <= threshold:
            break
        hypothesis.assume(list(scores.values()).count(best) == 1)  # The order of ties is ours.
        u, v = max(scores, key=lambda pair: scores[pair])
        expected[expected == v] = u
    graph = region_graph(affinities, padded(ids), score)
    (table,) = merge(graph, 14, [threshold], score)
    np.testing.assert_array_equal(compact(table[ids]), compact(expected))


def test_ties_go_to_the_lower_ids():
    # A chain of three with equal affinities; the pair that is merged first lowers the other's mean.
    pairs = np.array([[1, 2], [1, 3], [2, 3]])
    statistics = np.array([[1, 1 << 23], [1, 0], [1, 1 << 23]])  # Means 0.5, 0, 0.5.
    (table,) = merge(RegionGraph(pairs, statistics), 3, [0.3], "mean")
    assert table.tolist() == [0, 1, 1, 3]


@pytest.mark.parametrize("score", SCORES)
def test_no_fragments_and_no_edges(score):
    nothing = region_graph(np.ones((3, 2, 3, 4), np.float32), np.zeros((3, 4, 5), int), score)
    assert len(together([nothing, nothing], score).pairs) == 0
    (table,) = merge(nothing, 0, [0.5], score)
    assert table.tolist() == [0]
