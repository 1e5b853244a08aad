"""Where windows lie, what they weigh, and what they see beyond the border."""

import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from maemem.blockwise.windows import Windows, blend_weights, block_shape, read_mirrored
from maemem.geometry import Box
from tests.blockwise.volumes import grey_values, stored_volume

axis = st.integers(1, 9).flatmap(lambda w: st.tuples(st.just(w), st.integers(1, w)))


def test_touching_windows_by_hand():
    # Along x, windows of 6 every 4 from 10 - 2: 8:14, 12:18, 16:22, 20:26.
    windows = Windows(Box((0, 0, 10), (1, 1, 21)), (1, 1, 6), (1, 1, 4))

    def along_x(start, stop):
        found = windows.touching(Box((0, 0, start), (1, 1, stop)))
        return [(box.start_zyx[2], box.stop_zyx[2]) for box in found]

    assert along_x(10, 21) == [(8, 14), (12, 18), (16, 22), (20, 26)]
    assert along_x(10, 12) == [(8, 14)]
    assert along_x(13, 14) == [(8, 14), (12, 18)]
    assert along_x(14, 16) == [(12, 18)]
    assert along_x(20, 21) == [(16, 22), (20, 26)]


@pytest.mark.parametrize("stride", [(2, 5, 4), (0, 4, 4)])
def test_stride_leaves_no_gap(stride):
    with pytest.raises(ValueError, match="from 1 to the window"):
        Windows(Box((0, 0, 0), (9, 9, 9)), (4, 4, 4), stride)


def test_weights_by_hand():
    # 1.5 and 0.5 voxels from the middle are 3 and 1 standard deviations of 4 / 8.
    far, near = math.exp(-9 / 2), math.exp(-1 / 2)
    expected = np.array([far, near, near, far]) / (far + near)
    known = np.ones((1, 1, 4, 1))
    np.testing.assert_allclose(blend_weights(known, (1, 1, 2)).ravel(), expected, rtol=1e-6)
    # What one window does not know, the other one says alone.
    known[..., 0, :] = 0
    alone = [0, near / (far + near), 1, far / (far + near)]
    np.testing.assert_allclose(blend_weights(known, (1, 1, 2)).ravel(), alone, rtol=1e-6)
    with pytest.raises(ValueError, match=r"1 of 4 voxels .* smaller stride"):
        blend_weights(known, (1, 1, 4))


def test_no_weight_vanishes():
    weights = blend_weights(np.ones((48, 48, 48, 1)), (32, 32, 32))
    assert weights.min() > 0
    assert weights.dtype == np.float32


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(
    axes=st.tuples(axis, axis, axis),
    shape=st.tuples(*[st.integers(1, 12)] * 3),
    start=st.tuples(*[st.integers(0, 7)] * 3),
    seed=st.integers(0, 100),
)
def test_weights_over_each_voxel_add_up_to_one(axes, shape, start, seed):
    window, stride = zip(*axes, strict=True)
    known = np.random.default_rng(seed).uniform(0.1, 1, (*window, 2))
    weights = blend_weights(known, stride)
    region = Box((0, 0, 0), shape).moved(start)
    sums = np.zeros((*(n + 2 * w for n, w in zip(shape, window, strict=True)), 2))
    to_sums = tuple(w - a for w, a in zip(window, start, strict=True))
    for box in Windows(region, window, stride).touching(region):
        sums[box.moved(to_sums).slices] += weights
    inside = sums[Box((0, 0, 0), shape).moved(window).slices]
    np.testing.assert_allclose(inside, 1, atol=1e-5)


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    pads=st.tuples(*[st.tuples(st.integers(0, 15), st.integers(0, 15))] * 3),
)
def test_mirrors_as_numpy_pads(tmp_path_factory, shape, pads):
    array = grey_values(shape)
    volume = stored_volume(tmp_path_factory.mktemp("mirror") / "a.zarr", array)
    (a, b, c), stop = (-before for before, _ in pads), np.add(shape, [after for _, after in pads])
    z, y, x = stop.tolist()
    read = read_mirrored(volume, Box((a, b, c), (z, y, x)))
    np.testing.assert_array_equal(read, np.pad(array, pads, mode="reflect"))


def test_a_box_beyond_the_border_shows_what_lies_as_far_inside(tmp_path):
    array = np.arange(10, dtype=np.uint8).reshape(1, 1, 10)
    volume = stored_volume(tmp_path / "a.zarr", array, region=":, :, 2:9")
    read = read_mirrored(volume, Box((0, 0, -2), (1, 1, 1)))  # all of it before the region
    assert read.ravel().tolist() == [6, 5, 4]


def test_blocks_by_hand():
    windows = Windows(Box((5, 0, 0), (105, 400, 400)), (10, 40, 40), (5, 20, 20))
    chunk = (8, 64, 64)
    held = {"raw_bytes": 2, "voxel_bytes": 10, "layer_bytes": 4}
    # 104x448x448 voxels of 10 bytes; windows over 120x520x520 of 2; a layer of 10x448x448 of 4.
    assert block_shape(windows, chunk, 282_000_000, **held) == (104, 448, 448)
    assert block_shape(windows, chunk, 281_000_000, **held) == (104, 448, 256)
    assert block_shape(windows, chunk, 1, **held) == chunk


def test_blocks_cost_few_windows():
    # Twelve channels of windows of 96, a layer of which takes most: to cut z saves little.
    windows = Windows(Box((0, 0, 0), (2000, 2000, 2000)), (96, 96, 96), (48, 48, 48))
    held = {"raw_bytes": 2, "voxel_bytes": 24, "layer_bytes": 96}
    block = block_shape(windows, (32, 32, 32), 1 << 30, **held)
    counts = (
        windows.counts(axis, np.arange(0, 2000, block[axis]), block[axis]) for axis in (0, 1, 2)
    )
    assert math.prod(int(each.sum()) for each in counts) < 1.7 * windows.count


@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(
    shape=st.tuples(*[st.integers(1, 1000)] * 3),
    chunk=st.tuples(*[st.integers(1, 64)] * 3),
    window=st.tuples(*[st.integers(1, 100)] * 3),
    memory_bytes=st.integers(1, 1 << 32),
)
def test_blocks_keep_their_bounds(shape, chunk, window, memory_bytes):
    windows = Windows(Box((0, 0, 0), shape), window, (1, 1, 1))
    held = {"raw_bytes": 2, "voxel_bytes": 12, "layer_bytes": 5}
    block = block_shape(windows, chunk, memory_bytes, **held)
    assert all(b % c == 0 and b < n + c for b, c, n in zip(block, chunk, shape, strict=True))
    layer = math.prod(map(max, zip(window, (0, *block[1:]), strict=True)))
    bytes_held = 2 * math.prod(windows.longest(block)) + 12 * math.prod(block) + 5 * layer
    assert bytes_held <= memory_bytes or block == chunk


@hypothesis.given(
    start=st.integers(0, 40), size=st.integers(1, 40), window=st.integers(1, 20), data=st.data()
)
def test_the_longest_row_of_windows_is_one_that_there_is(start, size, window, data):
    stride = data.draw(st.integers(1, window))
    windows = Windows(Box((0, 0, 0), (100, 1, 1)), (window, 1, 1), (stride, 1, 1))

    def length(first):
        touching = windows.touching(Box((first, 0, 0), (first + size, 1, 1)))
        return touching[-1].stop_zyx[0] - touching[0].start_zyx[0]

    longest = windows.longest((size, 1, 1))
    assert longest[1:] == (1, 1)
    assert longest[0] == max(length(start + n) for n in range(stride))


@hypothesis.given(
    size=st.integers(1, 99), piece=st.integers(1, 99), window=st.integers(1, 20), data=st.data()
)
def test_as_many_windows_are_counted_as_touch(size, piece, window, data):
    stride = data.draw(st.integers(1, window))
    windows = Windows(Box((0, 7, 0), (1, 7 + size, 1)), (1, window, 1), (1, stride, 1))
    starts = range(0, size, piece)
    boxes = [Box((0, 7 + a, 0), (1, 7 + min(a + piece, size), 1)) for a in starts]
    counted = windows.counts(1, np.array(starts), piece)
    assert counted.tolist() == [len(windows.touching(box)) for box in boxes]
