"""What is said of volumes: axes, intensities, sections, chunks, numbers."""

import functools
import math

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from maemem.data.sets.synthetic import make_tissue
from maemem.doctor.volumes import (
    axes,
    chunks,
    intensities,
    look_of_axes,
    middle,
    numbering,
    sections,
)

NM = (30.0, 6.0, 6.0)


@functools.cache
def image() -> np.ndarray:
    """Synthetic serial sections, five times as thick as a voxel is wide."""
    return np.asarray(make_tissue((12, 96, 96), NM, seed=5, artefacts=False).image)


def test_axes_that_are_right_are_ok():
    assert axes(NM, NM, (12, 96, 96), image()).level == "ok"


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ((6.0, 6.0, 6.0), "another voxel size"),
        ((200.0, 6.0, 6.0), "another voxel size"),
        ((6.0, 6.0, 30.0), "z is not the coarsest axis"),
        ((0.03, 0.006, 0.006), "1 to 200 nm"),
    ],
)
def test_a_wrong_voxel_size_is_found(size, said):
    verdict = axes(size, None, (12, 96, 96), image())
    assert verdict.level == "warn"
    assert said in verdict.found


def test_axes_in_another_order_are_found():
    turned = image().transpose(2, 1, 0)
    assert "another order of its axes" in axes(NM, None, turned.shape, turned).found
    assert "z is the longest axis" in axes(NM, None, (99, 96, 12), turned).found


def test_labels_of_another_voxel_size_fail():
    assert axes(NM, (30.0, 12.0, 12.0), (12, 96, 96), image()).level == "fail"


def test_a_section_looks_as_thick_as_it_is_and_nothing_is_said_without_contrast():
    thick, apart = look_of_axes(image())
    assert 3 < thick < 7
    assert 0.8 < apart < 1.25
    lost = image().copy()
    lost[3] = 0
    assert look_of_axes(lost)[0] == pytest.approx(thick, rel=0.3)
    assert look_of_axes(np.zeros((12, 96, 96)))[0] == 0
    assert look_of_axes(image()[:1])[0] == 0


def test_axes_of_real_em(real_data):
    isotropic = tifffile.imread(real_data / "fib25" / "train-input.tif")[:64]
    thick = tifffile.imread(real_data / "vnc" / "train-input.tif")[:, :256, :256]
    assert axes((10.0, 10.0, 10.0), None, (250, 250, 250), isotropic).level == "ok"
    assert axes((50.0, 5.0, 5.0), None, (250, 250, 250), isotropic).level == "warn"
    assert axes((50.0, 4.6, 4.6), None, (20, 1024, 1024), thick).level == "ok"
    assert axes((5.0, 5.0, 5.0), None, (20, 1024, 1024), thick).level == "warn"


@pytest.mark.parametrize(
    ("values", "ends", "level", "said"),
    [
        (lambda grey: grey, (0.0, 255.0), "ok", "uint8"),
        (lambda grey: grey / np.float32(255), (0.0, 255.0), "fail", "of the range"),
        (
            lambda grey: grey.astype(np.uint16) * 16,
            (0.0, 255.0),
            "fail",
            "lie outside and are clipped",
        ),
        (lambda grey: grey, (0.0, 2000.0), "warn", "of the range"),
        (lambda grey: grey * (np.arange(96) > 9), (0.0, 255.0), "warn", "are exactly 0"),
        (lambda grey: np.zeros_like(grey), (0.0, 255.0), "fail", "all voxels are 0"),
        (lambda grey: np.where(grey > 99, np.nan, grey), (0.0, 255.0), "fail", "not finite"),
    ],
)
def test_a_range_that_does_not_suit_the_image_is_found(values, ends, level, said):
    verdict = intensities(values(image()), ends)
    assert verdict.level == level
    assert said in verdict.found


def test_sections_that_are_lost_faint_or_there_twice_are_named():
    bad = image().copy()
    bad[2], bad[6], bad[9] = 0, bad[5], 100 + (bad[9] > 128)
    verdict = sections([(20, bad)], 12)
    assert verdict.level == "warn"
    for said in ("constant (z = 22)", "as the one before (z = 26)", "nearly constant (z = 29)"):
        assert said in verdict.found


def test_sections_are_ok_and_those_that_begin_a_run_are_not_compared():
    assert sections([(0, image()), (40, image())], 60).level == "ok"
    assert sections([(0, image()[:1])], 1).level == "ok"
    assert sections([(0, np.zeros((4, 8, 8), np.uint8))], 4).level == "fail"


@given(
    crop=st.integers(1, 12), chunk=st.integers(1, 12), count=st.integers(1, 4), seed=st.integers(0)
)
def test_chunks_that_a_crop_touches_are_counted(crop, chunk, count, seed):
    size = 12 * chunk * count  # Long enough for the crop, and whole chunks.
    random = np.random.default_rng(seed)
    starts = chunk * random.integers(0, (size - crop) // chunk + 1) + np.arange(chunk)
    touched = np.mean([(s + crop - 1) // chunk - s // chunk + 1 for s in starts])
    verdict = chunks((1, 1, crop), (1, 1, chunk), (1, 1, size), 1, 0)
    assert f"touches {touched:.3g}," in verdict.found


def test_chunks_that_do_not_suit_crops_are_found_unless_all_fits_the_cache():
    sections_ = (6, 96, 96), (1, 4096, 4096), (1000, 4096, 4096), 1
    assert chunks(*sections_, 1 << 30).level == "warn"
    assert chunks(*sections_, math.prod((1000, 4096, 4096))).level == "ok"
    assert chunks((6, 96, 96), (8, 64, 64), (1000, 4096, 4096), 1, 1 << 30).level == "ok"


def test_the_middle_is_inside():
    box = middle((10, 100, 5), (4, 50, 8))
    assert str(box) == "3:7, 25:75, 0:5"


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["s_1.tif", "s_2.tif", "s_3.tif"], "numbered 1 to 3"),
        (["4nm_010.png", "4nm_020.png", "4nm_030.png"], "numbered 10 to 30"),
        (["t100_1_5.tif", "t107_2_4.tif", "t108_3_6.tif"], "numbered 1 to 3"),
        (["a.tif", "b.tif"], "do not count them"),
        (["s_1.tif"], "do not count them"),
    ],
)
def test_sections_that_are_numbered_without_gaps_are_ok(files, found):
    verdict = numbering(files)
    assert verdict.level == "ok"
    assert found in verdict.found


def test_numbers_that_are_skipped_are_named():
    verdict = numbering([f"w2_{z:04}.tif" for z in (1, 2, 4, 5, 9)])
    assert verdict.level == "warn"
    assert "2 gaps: 2 to 4, 5 to 9;" in verdict.found
