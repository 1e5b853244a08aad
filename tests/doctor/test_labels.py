"""What labels hold, and whether they lie on the image."""

import functools

import numpy as np
import pytest
import tifffile

from maemem.data.sets.synthetic import make_tissue
from maemem.doctor.labels import best_fit, flat_share, labels, parts_of_each, shift


@functools.cache
def tissue():
    """Synthetic serial sections and their neurites."""
    return make_tissue((8, 128, 128), (30.0, 6.0, 6.0), seed=4, artefacts=False)


def test_labels_that_lie_right_are_ok():
    verdict = shift(tissue().image, tissue().neurites)
    assert verdict.level == "ok"
    assert "deviations" in verdict.found


@pytest.mark.parametrize("moved", [(6, 0), (-3, 9)])
def test_labels_that_lie_beside_are_found_with_their_shift(moved):
    ids = np.roll(tissue().neurites, moved, axis=(1, 2))
    fit = best_fit(tissue().image, ids)
    assert fit is not None
    assert np.abs(np.subtract(fit.shift_zyx, (0, *moved))).max() <= 1
    verdict = shift(tissue().image, ids)
    assert verdict.level == "warn"
    assert f"moved by {', '.join(str(-n) for n in fit.shift_zyx)} voxels" in verdict.found


def test_labels_of_the_next_section_are_found():
    verdict = shift(tissue().image[1:], tissue().neurites[:-1])
    assert verdict.level == "warn"
    assert "only when moved by -1, 0, 0 voxels" in verdict.found


def test_labels_of_other_tissue_follow_nothing():
    verdict = shift(tissue().image, tissue().neurites[:, ::-1])
    assert verdict.level == "warn"
    assert "at no shift" in verdict.found


def test_nothing_is_said_where_nothing_can_be_seen():
    empty = np.zeros((8, 128, 128), np.uint8)
    for image, ids in ((tissue().image, empty), (empty, tissue().neurites)):
        assert best_fit(image, ids) is None
        assert shift(image, ids).level == "ok"


def test_nothing_is_said_of_a_single_object():
    ids = (tissue().neurites == np.argmax(np.bincount(tissue().neurites.ravel())[1:]) + 1) * 1
    moved = np.roll(ids, (9, 9), axis=(1, 2))
    moved[:, :64] = 0
    assert "show too little" in shift(tissue().image, moved).found


def test_small_sections_are_not_searched():
    assert "not looked for" in shift(tissue().image[:, :48], tissue().neurites[:, :48]).found


@pytest.mark.parametrize(
    ("volume", "ids", "region"),
    [
        ("fib25/train-input.tif", "fib25/train-labels.tif", np.s_[:8]),
        ("vnc/train-input.tif", "vnc/train-mitochondria.tif", np.s_[:8, 656:912, 256:768]),
        ("vnc/train-input.tif", "vnc/train-neurites.tif", np.s_[:8, :256, 256:512]),
    ],
)
def test_shifts_of_labels_are_found_on_real_em(volume, ids, region, real_data):
    image = tifffile.imread(real_data / volume)[region]
    truth = tifffile.imread(real_data / ids)[region]
    assert shift(image, truth).level == "ok"
    fit = best_fit(image, np.roll(truth, 6, axis=1))
    assert fit is not None
    assert np.abs(np.subtract(fit.shift_zyx, (0, 6, 0))).max() <= 1
    assert shift(image, np.roll(truth, 6, axis=1)).level == "warn"


def test_instances_are_ok_and_counted():
    verdict = labels(tissue().neurites, -1)
    assert verdict.level == "ok"
    assert f": {len(np.unique(tissue().neurites)) - 1}, from" in verdict.found


def test_no_object_fails():
    assert labels(np.zeros((4, 8, 8), np.uint8), -1).level == "fail"
    assert "0.0% of voxels are labelled" in labels(np.full((4, 8, 8), 255, np.uint8), 255).found


def test_a_mask_is_told_from_instances():
    verdict = labels((tissue().neurites > 0).astype(np.uint8), -1)
    one_object = labels((tissue().neurites == tissue().neurites.max()).astype(np.uint8), -1)
    assert verdict.level == "warn"
    assert "is a mask, not instances" in verdict.found
    assert one_object.level == "ok"


def test_an_id_that_fills_all_is_named():
    ids = np.full((4, 32, 32), 77, np.uint16)
    ids[:, :4, :4] = 3
    verdict = labels(ids, -1)
    assert verdict.level == "warn"
    assert "`unlabelled`=77" in verdict.mend
    assert labels(ids, 77).level == "ok"
    assert labels(np.full_like(ids, 77), -1).level == "warn"


def test_ids_of_single_sections_are_found():
    ids = tissue().neurites + 1000 * np.arange(8, dtype=np.uint32)[:, None, None]
    ids[tissue().neurites == 0] = 0
    assert "live in one section" in labels(ids, -1).found
    assert flat_share(tissue().neurites.astype(np.int32)) < 0.1
    assert flat_share(ids[:1].astype(np.int32)) == 0


def test_specks_are_found():
    ids = np.zeros((4, 32, 32), np.uint16)
    ids[::2, ::4, ::4] = np.arange(1, 129).reshape(2, 8, 8)
    assert "fewer than 10 voxels" in labels(ids, -1).found


def test_parts_are_counted_by_id():
    ids = np.zeros((1, 1, 9), np.int32)
    ids[0, 0] = [1, 1, 0, 5, 0, 1, -1, 5, 2]
    np.testing.assert_array_equal(parts_of_each(ids), [2, 1, 2])
