import numpy as np
import pytest
from scipy import ndimage

from maemem.data.sets import artefacts
from maemem.data.sets.synthetic import Tissue, make_tissue

SHAPE = (32, 128, 128)
VOXEL_NM = (30.0, 6.0, 6.0)


@pytest.fixture(scope="module", params=[VOXEL_NM, (50.0, 4.6, 4.6), (10.0, 10.0, 10.0)], ids=str)
def tissue(request) -> Tissue:
    return make_tissue(SHAPE, request.param, seed=5)


def test_same_arguments_give_the_same_tissue_and_another_seed_another():
    shape = (6, 48, 64)
    once, again, other = (make_tissue(shape, seed=seed) for seed in (3, 3, 4))
    for name in ("image", "neurites", "mitochondria"):
        np.testing.assert_array_equal(getattr(once, name), getattr(again, name))
    assert (once.image != other.image).mean() > 0.5
    assert (once.neurites != other.neurites).mean() > 0.1


def test_shapes_and_dtypes(tissue):
    for name, dtype in (("image", "uint8"), ("neurites", "uint32"), ("mitochondria", "uint32")):
        array = getattr(tissue, name)
        assert array.shape == SHAPE
        assert array.dtype == dtype


@pytest.mark.parametrize("name", ["neurites", "mitochondria"])
def test_ids_are_compact_and_each_is_one_component(tissue, name):
    labels = getattr(tissue, name)
    np.testing.assert_array_equal(np.unique(labels), np.arange(labels.max() + 1))
    for label, block in enumerate(ndimage.find_objects(labels.astype(np.int32)), start=1):
        assert ndimage.label(labels[block] == label)[1] == 1


def test_neurites_fill_the_volume_and_none_dominates(tissue):
    share = np.bincount(tissue.neurites.ravel()) / tissue.neurites.size
    assert share.size > 15
    assert 0.08 < share[0] < 0.35  # membranes
    assert share[1:].max() < 0.4


def test_large_neurites_cross_many_sections(tissue):
    sizes = np.bincount(tissue.neurites.ravel())[1:]
    blocks = ndimage.find_objects(tissue.neurites.astype(np.int32))
    crossed = [blocks[i][0].stop - blocks[i][0].start for i in np.argsort(sizes)[-10:]]
    assert np.median(crossed) >= 8


def test_neighbours_never_touch_within_a_section(tissue):
    for axis in (1, 2):
        a, b = (np.take(tissue.neurites, np.arange(s, s + 127), axis) for s in (0, 1))
        assert not np.any((a != b) & (a > 0) & (b > 0))


def test_membranes_are_darker_than_cytoplasm_by_60_grey_levels(tissue):
    cytoplasm = (tissue.neurites > 0) & (tissue.mitochondria == 0)
    membrane = tissue.image[tissue.neurites == 0].mean()
    assert tissue.image[cytoplasm].mean() - membrane > 60


def test_mitochondria_are_dark_and_each_lies_in_one_neurite(tissue):
    inside = tissue.mitochondria > 0
    assert inside.any()
    pairs = np.unique(np.stack([tissue.mitochondria[inside], tissue.neurites[inside]]), axis=1)
    assert pairs.shape[1] == tissue.mitochondria.max()
    assert np.all(pairs[1] > 0)
    cytoplasm = (tissue.neurites > 0) & ~inside
    assert tissue.image[cytoplasm].mean() - tissue.image[inside].mean() > 30


def _mean_calibre_nm(tissue: Tissue) -> float:
    """The diameter of a disc as large as a neurite's profile, averaged over profiles' area."""
    areas = np.concatenate([np.bincount(section[section > 0]) for section in tissue.neurites])
    areas = areas * np.prod(tissue.voxel_size_nm[1:])
    return float(np.average(2 * np.sqrt(areas / np.pi), weights=areas))


def test_calibres_are_in_nanometres_whatever_the_voxel_size():
    extent_nm = np.array([900, 900, 900])
    calibres = []
    for voxel_nm in [(30.0, 6.0, 6.0), (10.0, 10.0, 10.0), (50.0, 5.0, 5.0)]:
        z, y, x = (extent_nm / voxel_nm).astype(int).tolist()
        calibres.append(_mean_calibre_nm(make_tissue((z, y, x), voxel_nm, seed=1)))
    assert 150 < np.mean(calibres) < 900
    assert np.ptp(calibres) < 0.15 * np.mean(calibres)


def test_artefacts_change_the_image_of_the_planned_sections_only():
    shape = (12, 48, 48)
    clean, damaged = (make_tissue(shape, seed=2, artefacts=flag) for flag in (False, True))
    changed = np.flatnonzero((clean.image != damaged.image).any(axis=(1, 2)))
    assert changed.tolist() == sorted(artefacts.plan(shape[0], seed=2))
    np.testing.assert_array_equal(clean.neurites, damaged.neurites)
    np.testing.assert_array_equal(clean.mitochondria, damaged.mitochondria)


@pytest.mark.parametrize("shape", [(3, 64, 64), (8, 31, 64), (8, 64, 0), (64, 64)])
def test_too_small_a_shape_is_an_error(shape):
    with pytest.raises(ValueError, match="at least"):
        make_tissue(shape)


@pytest.mark.parametrize("voxel_nm", [(0.0, 6.0, 6.0), (30.0, -6.0, 6.0), (np.nan, 6.0, 6.0)])
def test_a_voxel_size_that_is_not_positive_is_an_error(voxel_nm):
    with pytest.raises(ValueError, match="positive"):
        make_tissue((8, 64, 64), voxel_nm)


def test_the_smallest_shape_and_coarse_voxels_work():
    assert make_tissue((4, 32, 32)).image.shape == (4, 32, 32)
    assert make_tissue((8, 32, 32), (60.0, 60.0, 60.0)).image.shape == (8, 32, 32)
