import numpy as np
import pytest
import tifffile
import waterz
from hypothesis import given, settings
from hypothesis import strategies as st

from maemem.scores.adapted_rand import AdaptedRand
from maemem.scores.contingency import contingency
from maemem.scores.variation_of_information import VariationOfInformation
from maemem.segmentation.agglomeration import agglomerate, fragments
from maemem.segmentation.instances import compact


def x_affinities(*values):
    """One row of voxels, from the affinity of each to the one before."""
    affinities = np.zeros((3, 1, 1, len(values)), np.float32)
    affinities[2] = values
    return affinities


def ideal_affinities(labels, same=1.0, other=0.0):
    affinities = np.zeros((3, *labels.shape), np.float32)
    for axis in range(3):
        along = np.moveaxis(labels, axis, 0)
        channel = np.moveaxis(affinities[axis], axis, 0)
        channel[1:] = np.where(along[1:] == along[:-1], same, other)
    return affinities


def cells(rng, shape_zyx=(8, 24, 24), count=12):
    """Voronoi cells, every voxel labelled."""
    seeds = rng.uniform(0, shape_zyx, (count, 3))
    grid = np.stack(np.meshgrid(*map(np.arange, shape_zyx), indexing="ij"), -1)
    return np.linalg.norm(grid[..., None, :] - seeds, axis=-1).argmin(-1) + 1


def parts(labels):
    """Labels as a list of sets of places; background left out."""
    return {frozenset(np.flatnonzero(labels == i).tolist()) for i in np.unique(labels) if i}


def test_fragments_by_hand():
    # Voxels 0 to 2 climb to the pair of affinity 0.9, 3 and 4 are a pair, 5 is joined to nothing.
    affinities = x_affinities(0, 0.6, 0.9, 0.3, 0.8, 0.05)
    labels = fragments(affinities, 0.1, 0.99)
    assert compact(labels).tolist() == [[[1, 1, 1, 2, 2, 0]]]
    assert labels.dtype == np.uint64


def test_cutoffs_join_and_part():
    affinities = x_affinities(0, 0.9, 0.6, 0.8)
    assert parts(fragments(affinities, 0.1, 0.99)) == {frozenset({0, 1}), frozenset({2, 3})}
    assert parts(fragments(affinities, 0.1, 0.5)) == {frozenset({0, 1, 2, 3})}
    assert parts(fragments(affinities, 0.85, 0.99)) == {frozenset({0, 1})}


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_affinities_belong_to_the_voxel_before(axis):
    labels = np.ones((4, 4, 4), int)
    np.moveaxis(labels, axis, 0)[3:] = 2
    assert parts(fragments(ideal_affinities(labels), 0.1, 0.9)) == parts(labels)


def slabs(shape_zyx, sizes, axis):
    """Slabs across an axis, with a voxel of membrane between two (−1): labels, and affinities."""
    labels = np.full(shape_zyx, -1)
    along, start = np.moveaxis(labels, axis, 0), 0
    for i, size in enumerate(sizes, 1):
        along[start : start + size], start = i, start + size + 1
    affinities = np.where(labels > 0, 1.0, 0.2).astype(np.float32)
    return labels, np.stack([affinities] * 3)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_distance_fragments_lie_around_what_is_far_from_membranes(axis):
    labels, affinities = slabs((15, 15, 15), (5, 9), axis)
    pieces = fragments(affinities, 0.1, 0.5, method="distance")
    assert pieces.dtype == np.uint64
    assert (pieces > 0).all()  # Membranes belong to what they touch.
    bodies = np.maximum(labels, 0)
    assert parts(np.where(bodies, pieces, 0)) == parts(bodies)
    without = fragments(affinities, 0.3, 0.5, method="distance")
    assert parts(without) == parts(bodies)


def test_a_gap_in_a_membrane_joins_steepest_fragments_but_not_those_by_distance():
    labels, affinities = slabs((15, 15, 31), (15, 15), axis=2)
    affinities[:, 7, 7, 15] = 1.0
    (leaky,) = parts(fragments(affinities, 0.3, 0.99))
    assert leaky >= frozenset(np.flatnonzero(labels > 0).tolist())
    pieces = fragments(affinities, 0.3, 0.99, method="distance")
    assert not set(pieces[labels == 1]) & set(pieces[labels == 2])


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("high", [0.5, 0.6, 0.8])
@pytest.mark.parametrize("between", [0.0, 0.02])
def test_distance_fragments_do_not_cross_a_face(axis, high, between):
    """Of the voxels behind it the mean of three affinities is 0.67, which may be above `high`."""
    ids = np.ones((12, 12, 12), int)
    np.moveaxis(ids, axis, 0)[5:] = 2
    affinities = np.ones((3, 12, 12, 12), np.float32)
    np.moveaxis(affinities[axis], axis, 0)[5] = between
    assert parts(fragments(affinities, 0.0, high, method="distance")) == parts(ids)


def test_distance_fragments_of_what_is_thinner_than_any_inside():
    sections = np.arange(1, 7).repeat(6 * 7).reshape(6, 6, 7)
    affinities = np.ones((3, 6, 6, 7), np.float32)
    affinities[0] = 0.0  # So that no voxel is inside.
    assert parts(fragments(affinities, 0.1, 0.8, method="distance")) == parts(sections)


@pytest.mark.parametrize("high", [0.6, 0.8])
def test_distance_fragments_of_perfect_affinities_are_the_bodies(real_data, high):
    """Flooding by distance alone gave errors of 0.295 to 0.319 and VOIs of 0.06 + 1.54 and more."""
    ids = tifffile.imread(real_data / "fib25" / "train-labels.tif")[:50, :150, :150].astype(int)
    affinities = ideal_affinities(ids)
    pieces = fragments(affinities, 0.1, high, method="distance")
    (merged,) = agglomerate(affinities, pieces, [0.3])
    table = contingency(ids, merged)
    assert AdaptedRand().values(table)["adapted_rand"] < 0.01
    found = VariationOfInformation().values(table)
    assert found["voi_split"] < 0.15
    assert found["voi_merge"] < 0.015


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_distance_fragments_of_nothing_but_membrane_or_body(value):
    affinities = np.full((3, 4, 5, 6), value, np.float32)
    pieces = fragments(affinities, 0.1, 0.5, method="distance")
    assert np.unique(pieces).tolist() == [int(value > 0.1)]
    (merged,) = agglomerate(affinities, pieces, [0.5])
    np.testing.assert_array_equal(merged > 0, pieces > 0)


def test_distance_fragments_of_sections_look_at_affinities_within_them():
    labels, affinities = slabs((3, 15, 31), (15, 15), axis=2)
    affinities[0] = 0.0
    pieces = fragments(affinities, 0.0, 0.5, sectionwise=True, method="distance")
    assert pieces.max() == 6
    for section, truth in zip(pieces, labels, strict=True):
        assert len(np.unique(section[truth == 1])) == len(np.unique(section[truth == 2])) == 1
    # Without `sectionwise` no voxel is inside: none has an affinity to another section.
    pieces = fragments(affinities, 0.0, 0.5, method="distance")
    assert parts(pieces) == parts(fragments(affinities, 0.0, 0.99))


def test_unknown_fragments_are_refused():
    with pytest.raises(ValueError, match="choose one of"):
        fragments(np.zeros((3, 2, 2, 2), np.float32), 0.1, 0.5, method="flattest")


def test_sections_share_no_fragment_until_agglomerated():
    labels = cells(np.random.default_rng(0))
    affinities = ideal_affinities(labels)
    pieces = fragments(affinities, 0.1, 0.9, sectionwise=True)
    ids = [set(np.unique(section)) for section in pieces]
    assert sum(map(len, ids)) == len(set.union(*ids)) == pieces.max()
    for section, truth in zip(pieces, labels, strict=True):
        table = contingency(truth[None], section[None])
        assert VariationOfInformation().values(table)["voi_merge"] == 0
    (whole,) = agglomerate(affinities, pieces, [0.5])
    assert parts(whole) == parts(fragments(affinities, 0.1, 0.9))


def test_scores_differ_as_they_should():
    # Two columns meet at affinities 0.1, 0.1 and 0.9: median 0.1, mean 0.37, 85 % quantile 0.9.
    affinities = np.zeros((3, 1, 3, 2), np.float32)
    affinities[2, 0, :, 1] = 0.1, 0.1, 0.9
    columns = np.broadcast_to(np.array([1, 2], np.uint64), (1, 3, 2))
    merged = {
        score: [len(np.unique(x)) == 1 for x in agglomerate(affinities, columns, [0.6, 0.2], score)]
        for score in ("mean", "median", "quantile85")
    }
    expected = {"mean": [False, True], "median": [False, False], "quantile85": [True, True]}
    assert merged == expected


def test_agglomeration_keeps_its_inputs_results_and_background():
    affinities = x_affinities(0, 0.9, 0.7, 0.9, 0.4, 0.9, 0.01)
    pieces = np.array([[[1, 1, 2, 2, 3, 3, 0]]], np.uint64)
    results = list(agglomerate(affinities, pieces, [0.8, 0.5, 0.3, 0.0]))
    assert [compact(x)[0, 0].tolist() for x in results] == [
        [1, 1, 2, 2, 3, 3, 0],
        [1, 1, 1, 1, 2, 2, 0],
        [1, 1, 1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1, 1, 0],
    ]
    assert pieces.tolist() == [[[1, 1, 2, 2, 3, 3, 0]]]


def test_long_range_channels_other_types_and_strides_change_nothing():
    rng = np.random.default_rng(1)
    affinities = rng.random((3, 4, 6, 5), np.float32)
    pieces = fragments(affinities, 0.1, 0.9)
    wide = np.concatenate([affinities, rng.random((2, 4, 6, 5), np.float32)]).astype(np.float64)
    strided = np.asfortranarray(wide)
    np.testing.assert_array_equal(fragments(strided, 0.1, 0.9), pieces)
    plain, again = (next(agglomerate(a, pieces, [0.5])) for a in (affinities, strided))
    np.testing.assert_array_equal(plain, again)


def test_nothing_is_printed(capfd):
    affinities = x_affinities(0, 0.9, 0.6, 0.8)
    list(agglomerate(affinities, fragments(affinities, 0.1, 0.99), [0.5, 0.1]))
    print("heard")
    assert capfd.readouterr().out == "heard\n"


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["mean", "median", "quantile85"]))
def test_objects_grow_as_the_threshold_falls(seed, score):
    affinities = np.random.default_rng(seed).random((3, 3, 6, 6), np.float32)
    pieces = fragments(affinities, 0.3, 0.95)
    finer = pieces
    for labels in agglomerate(affinities, pieces, [0.9, 0.6, 0.5, 0.2], score):
        np.testing.assert_array_equal(labels == 0, pieces == 0)
        table = contingency(finer.astype(np.int64), labels)
        assert len(table.voxels) == len(np.unique(finer))  # Each lies in one of the next.
        finer = labels


@pytest.mark.parametrize("seed", range(4))
def test_merges_what_waterz_merges(seed):
    """Where no two scores are the same."""
    affinities = np.random.default_rng(seed).random((3, 6, 24, 24), np.float32)
    pieces = compact(fragments(affinities, 0.4, 0.9))
    thresholds = [0.7, 0.6, 0.5, 0.4]
    theirs = waterz.agglomerate(
        affinities,
        [1 - threshold for threshold in thresholds],
        fragments=pieces.astype(np.uint64),
        scoring_function="OneMinus<MeanAffinity<RegionGraphType, ScoreValue>>",
    )
    for ours in agglomerate(affinities, pieces, thresholds):
        np.testing.assert_array_equal(ours, compact(np.array(next(theirs))))
    assert 1 < ours.max() < pieces.max() / 2


def test_recovers_cells_from_noisy_affinities():
    rng = np.random.default_rng(0)
    truth = cells(rng)
    noisy = ideal_affinities(truth, 0.8, 0.2) + rng.normal(0, 0.15, (3, *truth.shape))
    affinities = np.clip(noisy, 0, 1).astype(np.float32)
    pieces = fragments(affinities, 0.1, 0.999)
    rand = AdaptedRand()
    for score in ("mean", "median"):
        (labels,) = agglomerate(affinities, pieces, [0.5], score)
        assert rand.values(contingency(truth, labels))["adapted_rand"] < 0.05
    assert rand.values(contingency(truth, pieces))["adapted_rand"] > 0.9


def test_refuses_what_does_not_fit():
    affinities = x_affinities(0, 0.9, 0.6, 0.8)
    pieces = fragments(affinities, 0.1, 0.99)
    with pytest.raises(ValueError, match="ranges from"):
        fragments(affinities * 2, 0.1, 0.99)
    with pytest.raises(ValueError, match="ranges from nan"):
        fragments(affinities * np.float32("nan"), 0.1, 0.99)
    with pytest.raises(ValueError, match="at least 3 channels"):
        fragments(affinities[:2], 0.1, 0.99)
    with pytest.raises(ValueError, match=r"low cut-off is 0\.9"):
        fragments(affinities, 0.9, 0.1)
    with pytest.raises(ValueError, match="score 'max' is unknown"):
        agglomerate(affinities, pieces, [0.5], "max")
    with pytest.raises(ValueError, match="sort them from high to low"):
        agglomerate(affinities, pieces, [0.2, 0.5])
    with pytest.raises(ValueError, match="of the same volume"):
        agglomerate(affinities, pieces[..., :2], [0.5])
