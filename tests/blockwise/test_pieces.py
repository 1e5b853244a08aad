"""Which pieces of two blocks are one across their face."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from maemem.blockwise.pieces import joins_across

SIDE = (4, 5)
planes = npst.arrays(np.int64, SIDE, elements=st.integers(0, 4))


def row(*values):
    return np.array([values])


@pytest.mark.parametrize(
    ("agreeing", "through_lower", "through_upper", "joined"),
    [
        (1, 1, 1, True),  # All that there is, be it a voxel.
        (1, 9, 9, False),
        (4, 9, 9, False),
        (5, 9, 9, True),
        (1, 9, 2, True),  # Half of what the smaller one has.
        (1, 3, 9, False),
        (0, 9, 9, False),
    ],
)
def test_half_of_the_smaller_ones_voxels_have_to_agree(
    agreeing, through_lower, through_upper, joined
):
    lower, upper = np.full((1, 20), 1), np.full((1, 20), 2)
    after, before = np.zeros((2, 1, 20), int)
    after[0, :through_lower] = 1
    before[0, through_lower - agreeing : through_lower - agreeing + through_upper] = 2
    found = joins_across(lower, after, upper, before)
    assert found.tolist() == [[1, 2]] * joined


def test_a_piece_joins_each_branch_that_goes_on_from_it():
    lower = after = row(3, 3, 3, 3, 3, 0, 8)
    upper = before = row(5, 5, 0, 0, 6, 0, 9)
    assert joins_across(lower, after, upper, before).tolist() == [[3, 5], [3, 6], [8, 9]]


def test_background_joins_nothing():
    nothing = np.zeros(SIDE, int)
    assert joins_across(nothing, nothing, nothing, nothing).shape == (0, 2)


@hypothesis.given(first=planes, second=planes)
def test_of_blocks_that_see_the_same_one_voxel_is_enough(first, second):
    """Fragments that are decided within the halo: those that are on both planes, joined."""
    pairs = {(a, a) for a in np.unique(first[first == second]) if a}
    # One block calls a fragment by its number, the other by that and ten.
    lower, after = first, second
    upper, before = (np.where(plane, plane + 10, 0) for plane in (second, first))
    found = joins_across(lower, after, upper, before)
    assert {(a, b - 10) for a, b in found.tolist()} == pairs
