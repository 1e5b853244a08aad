import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maemem.geometry import Box, blocks

sizes = st.tuples(*[st.integers(1, 12)] * 3)


def test_parse_reads_ranges():
    assert Box.parse("0:120, :, 16:", (250, 250, 250)) == Box((0, 0, 16), (120, 250, 250))
    assert Box.parse("", (6, 7, 8)) == Box((0, 0, 0), (6, 7, 8))


@pytest.mark.parametrize("text", ["0:1", "0:1,2,:", "a:b,:,:", "0:1,:,:,:"])
def test_parse_refuses_what_is_no_region(text):
    with pytest.raises(ValueError, match="is not three ranges"):
        Box.parse(text, (4, 4, 4))


@pytest.mark.parametrize("text", ["3:3,:,:", "2:1,:,:", ":,:5,:", "-1:,:,:"])
def test_parse_refuses_what_leaves_the_volume(text):
    with pytest.raises(ValueError, match=r"empty or leaves the volume, whose shape zyx is 4x4x4"):
        Box.parse(text, (4, 4, 4))


@given(sizes, sizes)
def test_blocks_cover_every_voxel_once(shape, block):
    count = np.zeros(shape, int)
    for box in blocks(shape, block):
        count[box.slices] += 1
    assert (count == 1).all()


@given(sizes, sizes, sizes, sizes)
def test_overlaps_is_sharing_a_voxel(start_a, shape_a, start_b, shape_b):
    boxes = [
        Box(start, tuple(np.add(start, shape).tolist()))
        for start, shape in ((start_a, shape_a), (start_b, shape_b))
    ]
    count = np.zeros((24, 24, 24), int)
    for box in boxes:
        count[box.slices] += 1
    assert boxes[0].overlaps(boxes[1]) == (count == 2).any()
