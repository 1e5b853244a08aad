"""Ids of instances, from masks, colours and supervoxels."""

import os
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import tifffile
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from maemem.data.sets.relabel import bodies, colour_ids, components, linked_components

DATA = Path(os.environ.get("MAEMEM_DATA", Path(__file__).parents[3] / "shared/data"))


def same_objects(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two volumes show the same objects, whatever their ids."""
    pairs = len(np.unique(a.astype(np.uint64) << 32 | b))
    return pairs == len(np.unique(a)) == len(np.unique(b)) and np.array_equal(a > 0, b > 0)


def test_the_published_mitochondria_of_the_vnc_are_those_of_its_mask():
    path = DATA / "vnc/train-mitochondria.tif"
    if not path.exists():
        pytest.skip(f"{path} is not there; set MAEMEM_DATA to the folder that holds vnc")
    truth = tifffile.imread(path)[:8]  # Links lead from a section to the next only.
    assert same_objects(linked_components(truth > 0), truth)
    assert not same_objects(components(truth > 0), truth)


def test_sections_are_linked_where_each_is_the_others_best():
    mask = np.zeros((3, 8, 12), bool)
    mask[0, 1:4, 1:4] = mask[0, 1:4, 6:9] = True
    mask[1, 1:4, 2:12] = True  # Overlaps both, the right one more.
    mask[2, 6:8, 2:12] = True  # Overlaps nothing.
    ids = linked_components(mask)
    assert ids[1, 2, 7] == ids[0, 2, 7]
    assert len({ids[0, 2, 2], ids[0, 2, 7], ids[2, 7, 7]}) == 3
    assert ids.max() == 3
    assert ids.dtype == np.uint8


@hypothesis.given(mask=arrays.arrays(bool, (4, 6, 6)))
def test_linking_keeps_the_mask_and_never_joins_within_a_section(mask):
    ids = linked_components(mask)
    np.testing.assert_array_equal(ids > 0, mask)
    for section, shown in zip(ids, mask, strict=True):
        # Components by shared edges, counted another way.
        edges = (section[:, 1:] == section[:, :-1]) & shown[:, 1:] & shown[:, :-1]
        assert np.array_equal(edges, shown[:, 1:] & shown[:, :-1])


@hypothesis.given(
    colours=arrays.arrays(np.uint8, (2, 3, 4, 3), elements=st.sampled_from([0, 1, 255]))
)
def test_a_colour_is_an_id_and_black_is_none(colours):
    ids = colour_ids(colours)
    assert ids.shape == (2, 3, 4)
    flat = colours.reshape(-1, 3).tolist()
    for a, first in zip(ids.ravel(), flat, strict=True):
        assert (a == 0) == (first == [0, 0, 0])
        for b, second in zip(ids.ravel(), flat, strict=True):
            assert (a == b) == (first == second)


def test_bodies_join_their_supervoxels():
    supervoxels = np.array([[[0, 7, 8], [900, 8, 41]]], np.uint64)
    table = np.array([[0, 0], [7, 7], [8, 7], [900, 12345678901]], np.uint64)
    ids = bodies(supervoxels, table)
    assert ids.tolist() == [[[0, 1, 1], [2, 1, 0]]]
    assert ids.dtype == np.uint8
