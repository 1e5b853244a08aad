"""Crop positions: reproducible, uniform, shared by weight; and the checks of a mix."""

import dataclasses

import numpy as np
import pytest
import tensorstore as ts
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from maemem.data.samples import crops
from maemem.data.samples.crops import check_crops, check_disjoint, draw_crops
from maemem.data.stores.volumes import Volume
from maemem.geometry import Box

SIZES = st.tuples(st.integers(1, 9), st.integers(1, 300), st.integers(1, 10**6))
SEEDS = st.integers(0, 2**64 - 1)


def volume(shape_zyx=(8, 32, 32), dtype="uint8", source="a", start_zyx=(0, 0, 0)):
    stop_zyx = tuple(a + n for a, n in zip(start_zyx, shape_zyx, strict=True))
    store = ts.array(np.zeros(shape_zyx, dtype))
    return Volume(store, (30.0, 6.0, 6.0), source, Box(start_zyx, stop_zyx))


@settings(deadline=None)
@given(seed=SEEDS, first=st.integers(0, 10**12), offset=st.integers(0, 40))
def test_sample_depends_on_seed_and_index_alone(seed, first, offset):
    mix = ([(9, 64, 64), (12, 50, 40)], [1.0, 3.0], (6, 32, 32))
    numbers, starts = draw_crops(seed, range(first, first + 41), *mix)
    sample = first + offset
    alone_number, alone_start = draw_crops(seed, range(sample, sample + 1), *mix)
    assert alone_number == numbers[offset]
    np.testing.assert_array_equal(alone_start[0], starts[offset])


@settings(deadline=None)
@given(seed=SEEDS, crop=SIZES, room=st.lists(SIZES, min_size=1, max_size=4))
def test_crops_lie_inside_their_volume(seed, crop, room):
    shapes = [tuple(c + r - 1 for c, r in zip(crop, rs, strict=True)) for rs in room]
    weights = [float(i + 1) for i in range(len(shapes))]
    numbers, starts = draw_crops(seed, range(50), shapes, weights, crop)
    assert starts.min() >= 0
    assert np.all(starts + crop <= np.array(shapes)[numbers])


@settings(deadline=None, max_examples=20)
@given(seed=SEEDS)
def test_starts_are_uniform(seed):
    _, starts = draw_crops(seed, range(12_000), [(8, 10, 9)], [1.0], (6, 7, 8))
    counts = np.bincount(np.ravel_multi_index(tuple(starts.T), (3, 4, 2)), minlength=24)
    assert stats.chisquare(counts).pvalue > 1e-9


@settings(deadline=None, max_examples=20)
@given(seed=SEEDS, scale=st.floats(1e-3, 1e3))
def test_volumes_share_the_crops_by_weight(seed, scale):
    weights = scale * np.array([1.0, 5.0, 2.0])
    numbers, _ = draw_crops(seed, range(8000), [(9, 9, 9)] * 3, list(weights), (6, 6, 6))
    counts = np.bincount(numbers, minlength=3)
    assert stats.chisquare(counts, [1000, 5000, 2000]).pvalue > 1e-9


@settings(deadline=None, max_examples=20)
@given(seed=SEEDS)
def test_volume_and_axes_are_independent(seed):
    numbers, starts = draw_crops(seed, range(8000), [(9, 9, 9)] * 2, [1.0, 1.0], (6, 6, 6))
    cells = np.ravel_multi_index((numbers, *starts.T), (2, 4, 4, 4))
    assert stats.chisquare(np.bincount(cells, minlength=128)).pvalue > 1e-9


def test_seeds_differ():
    _, a = draw_crops(1, range(100), [(100, 1000, 1000)], [1.0], (6, 96, 96))
    _, b = draw_crops(2, range(100), [(100, 1000, 1000)], [1.0], (6, 96, 96))
    assert not np.any(np.all(a == b, axis=1))


def test_positions_never_change():
    """A changed stream would silently change what a resumed run reads."""
    numbers, starts = draw_crops(
        7, range(1002, 1005), [(100, 1000, 1000), (50, 500, 500)], [1.0, 1.0], (6, 96, 96)
    )
    assert numbers.tolist() == [0, 1, 0]
    assert starts.tolist() == [[36, 239, 50], [12, 374, 296], [31, 126, 153]]


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seed_out_of_range(seed):
    with pytest.raises(ValueError, match=r"seed .* is out of range"):
        draw_crops(seed, range(1), [(8, 8, 8)], [1.0], (6, 6, 6))


def test_a_good_mix_passes():
    check_crops([volume(), volume((6, 32, 40))], [1.0, 0.5], (6, 32, 32))


def test_volume_smaller_than_the_crop():
    with pytest.raises(ValueError, match=r"b \[.*\] has shape zyx 6x31x40, smaller .* 6x32x32"):
        check_crops([volume(), volume((6, 31, 40), source="b")], [1.0, 1.0], (6, 32, 32))


def test_mixed_dtypes():
    with pytest.raises(ValueError, match="a holds uint8 and b holds uint16"):
        check_crops([volume(), volume(dtype="uint16", source="b")], [1.0, 1.0], (6, 32, 32))


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_weight_not_positive(weight):
    with pytest.raises(ValueError, match="the weight of a is"):
        check_crops([volume()], [weight], (6, 32, 32))


def test_missing_volumes_and_weights():
    with pytest.raises(ValueError, match="no volume"):
        check_crops([], [], (6, 32, 32))
    with pytest.raises(ValueError, match="1 volumes have 2 weights"):
        check_crops([volume()], [1.0, 1.0], (6, 32, 32))


@pytest.mark.parametrize(("z_nm", "warnings"), [(32.0, 0), (40.0, 1), (20.0, 1)])
def test_mixed_voxel_sizes_warn(z_nm, warnings, monkeypatch):
    seen = []
    monkeypatch.setattr(crops.log, "warning", lambda *args: seen.append(args[0] % args[1:]))
    other = dataclasses.replace(volume(source="b"), voxel_size_nm=(z_nm, 6.0, 6.0))
    check_crops([volume(), other], [1.0, 1.0], (6, 32, 32))
    assert len(seen) == warnings


def test_overlapping_sets():
    sets = {
        "train": [volume((40, 32, 32))],
        "validation": [volume((8, 32, 32), start_zyx=(39, 0, 0))],
    }
    with pytest.raises(ValueError, match=r"'train' .* \[0:40, .* \[39:47, "):
        check_disjoint(sets)


def test_disjoint_sets_pass():
    check_disjoint(
        {
            "train": [volume((40, 32, 32)), volume((20, 32, 32))],
            "validation": [volume((8, 32, 32), start_zyx=(40, 0, 0))],
            "test": [volume((40, 32, 32), source="b")],
        }
    )
