import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maemem.learners.targets.affinity import LEE, Affinity, Mutex
from maemem.learners.targets.contract import combinations
from maemem.scores.contingency import contingency
from maemem.scores.variation_of_information import VariationOfInformation
from maemem.segmentation.mutex import mutex_watershed
from tests.segmentation.decoding import decode

NEAREST = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
LONG = (*NEAREST, (0, 0, -3))


def row(nearest, long):
    """One row of voxels, from affinities along x to the voxel before, and to the third before."""
    affinities = np.zeros((4, 1, 1, len(nearest)), np.float32)
    affinities[2], affinities[3] = nearest, long
    return affinities


def same_object(labels):
    """Whether neighbours in a row are one object."""
    line = labels[0, 0]
    return (line[1:] == line[:-1]).tolist()


def test_long_range_repulsion_cuts_the_weakest_link():
    nearest = [0, 0.9, 0.4, 0.8]
    assert same_object(mutex_watershed(row(nearest, [1, 1, 1, 1]), LONG)) == [True, True, True]
    # The ends repel with 1 - 0.3, after 0.9 and 0.8 have joined and before 0.4 would.
    cut = mutex_watershed(row(nearest, [1, 1, 1, 0.3]), LONG)
    assert same_object(cut) == [True, False, True]


def test_a_bias_makes_low_affinities_repel():
    nearest = [0, 0.9, 0.2, 0.8]
    labels = mutex_watershed(row(nearest, [1, 1, 1, 1]), LONG, nearest_bias=0.5)
    assert same_object(labels) == [True, False, True]


def test_background_joins_nothing_and_is_zero():
    nearest = [0.9, 0.9, 0.06, 0.9, 0.9]
    labels = mutex_watershed(row(nearest, [1] * 5), LONG, background=0.1)
    # Voxel 2 is background, so nothing is joined through it, although 2 and 3 attract strongly.
    assert labels[0, 0, 2] == 0
    assert same_object(labels) == [True, False, False, True]
    assert labels[0, 0, 1] != labels[0, 0, 3]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_ideal_affinities_give_the_labels_back(seed):
    rng = np.random.default_rng(seed)
    truth = np.kron(rng.permutation(27).reshape(3, 3, 3) + 1, np.ones((2, 4, 4), int))
    offsets = (*NEAREST, (-2, 0, 0), (0, -3, 0), (0, 0, -3))
    affinities = np.zeros((6, *truth.shape), np.float32)
    for channel, offset in zip(affinities, offsets, strict=True):
        axis, by = int(np.flatnonzero(offset)[0]), -sum(offset)
        along = np.moveaxis(truth, axis, 0)
        np.moveaxis(channel, axis, 0)[by:] = along[by:] == along[:-by]
    noisy = 0.8 * affinities + 0.2 * rng.random(affinities.shape, np.float32)
    labels = mutex_watershed(noisy, offsets, background=0.01)
    table = contingency(truth, labels)
    table = table.select(table.predicted > 0)  # Lone corners may fall to the background.
    assert table.voxels.sum() > 0.95 * truth.size
    assert VariationOfInformation().values(table)["voi"] == 0


@pytest.mark.parametrize("thickness", [1, 2, 3])
def test_volumes_thinner_than_an_offset(thickness):
    offsets = (*NEAREST, (-4, 0, 0))
    affinities = np.ones((4, thickness, 5, 5), np.float32)
    labels = mutex_watershed(affinities, offsets, background=0.2)
    assert len(np.unique(labels)) == 1


def test_the_default_grid_parts_two_bodies():
    truth = np.ones((8, 20, 32), int)
    truth[:, :, 16:] = 2
    ends = [np.pad(truth, 27, constant_values=-1)[_moved(o, truth.shape)] for o in LEE]
    affinities = np.stack([0.1 + 0.8 * (truth == end) for end in ends]).astype(np.float32)
    decoder = Mutex(target=Affinity("lee"))
    tried = combinations(decoder.grid(), decoder.cuts)
    assert [decode(decoder, affinities, each).max() for each in tried] == [2] * 18


def _moved(offset, shape):
    return tuple(slice(27 + o, 27 + o + n) for o, n in zip(offset, shape, strict=True))


def test_refuses_what_does_not_fit():
    affinities = row([0, 0.9], [1, 1])
    with pytest.raises(ValueError, match="give one for each channel"):
        mutex_watershed(affinities, NEAREST)
    with pytest.raises(ValueError, match="the first three are"):
        mutex_watershed(affinities, ((1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 3)))
    with pytest.raises(ValueError, match="ranges from nan"):
        mutex_watershed(affinities * np.float32("nan"), LONG)
