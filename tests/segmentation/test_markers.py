import dataclasses

import numpy as np
import pytest

from maemem.segmentation.markers import MarkerThresholds, marker_watershed

LOOSE = MarkerThresholds(
    seed_binary=0.9, seed_contour=0.8, mask_binary=0.5, smallest=1, smallest_seed=1
)


def row(*channels):
    return np.array(channels, np.float32)[:, None, None]


def test_contours_part_touching_objects():
    binary = [0.2, 0.7, 0.95, 0.9, 0.6, 0.8, 0.95, 0.7, 0.4]
    contour = [0.1, 0.1, 0.1, 0.9, 0.9, 0.9, 0.1, 0.1, 0.1]
    labels = marker_watershed(row(binary, contour), LOOSE)
    assert labels[0, 0, [0, 8]].tolist() == [0, 0]
    assert labels[0, 0, 1:4].tolist() == [1, 1, 1]
    assert labels[0, 0, 5:8].tolist() == [2, 2, 2]
    assert labels.dtype == np.uint32


def test_contours_alone_do_not_cut_a_seed_when_they_are_faint():
    binary, faint = [0.95] * 5, [0.1, 0.1, 0.7, 0.1, 0.1]
    assert marker_watershed(row(binary, faint), LOOSE).max() == 1
    strict = dataclasses.replace(LOOSE, seed_contour=0.6)
    assert marker_watershed(row(binary, faint), strict).max() == 2


def test_what_no_seed_reaches_and_what_is_small_is_background():
    binary = [0.95, 0.95, 0.95, 0.1, 0.8, 0.8, 0.1, 0.95]
    thresholds = dataclasses.replace(LOOSE, smallest=2)
    labels = marker_watershed(row(binary, np.zeros(8)), thresholds)
    assert labels[0, 0].tolist() == [1, 1, 1, 0, 0, 0, 0, 0]


def test_distance_parts_what_contours_do_not_and_ends_objects():
    tanh = np.array([0.8, 0.8, 0.4, 0.2, 0.4, 0.8, 0.3, -0.1, -0.5])
    prediction = row(np.ones(9), np.zeros(9), (tanh + 1) / 2)
    with_distance = dataclasses.replace(LOOSE, seed_distance=0.5, mask_distance=0.0)
    labels = marker_watershed(prediction, with_distance)[0, 0]
    assert labels[:3].tolist() == [1, 1, 1]
    assert labels[4:].tolist() == [2, 2, 2, 0, 0]
    assert marker_watershed(prediction, LOOSE)[0, 0].tolist() == [1] * 9


def test_balls_are_found():
    grid = np.stack(np.meshgrid(*[np.arange(24)] * 3, indexing="ij"))
    centres = np.array([[7, 7, 7], [7, 7, 17], [17, 12, 12]])[..., None, None, None]
    radius = np.linalg.norm(grid - centres, axis=1)
    truth = np.where(radius.min(0) < 5.2, radius.argmin(0) + 1, 0)
    # The first two touch; their contours are known.
    contour = (radius.min(0) > 3.5) & (radius.min(0) < 6)
    prediction = np.stack([truth > 0, contour]).astype(np.float32)
    np.testing.assert_array_equal(marker_watershed(prediction, LOOSE), truth)


def test_refuses_what_does_not_fit():
    with_distance = dataclasses.replace(LOOSE, seed_distance=0.5, mask_distance=0.0)
    with pytest.raises(ValueError, match="at least 3 channels"):
        marker_watershed(np.zeros((2, 1, 1, 4), np.float32), with_distance)
    with pytest.raises(ValueError, match="ranges from -1"):
        marker_watershed(np.full((2, 1, 1, 4), -1, np.float32), LOOSE)
    with pytest.raises(ValueError, match="give both"):
        dataclasses.replace(LOOSE, seed_distance=0.5)


def test_seeds_that_touch_at_a_corner_are_one_and_small_ones_are_none():
    binary = np.zeros((1, 4, 4), np.float32)
    binary[0, [0, 1, 3], [0, 1, 3]] = 0.95
    prediction = np.stack([binary, np.zeros_like(binary)])
    both = marker_watershed(prediction, LOOSE)
    assert both[0, 0, 0] == both[0, 1, 1] != both[0, 3, 3] > 0
    large = marker_watershed(prediction, dataclasses.replace(LOOSE, smallest_seed=2))
    assert large[0, 0, 0] == large[0, 1, 1] == 1
    assert large[0, 3, 3] == 0
