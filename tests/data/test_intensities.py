import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from maemem.data.samples import intensities
from tests.data.augmenting import SHAPE, drawn, noise_image


def varies(change):
    """Whether numbers `[n z]`, one for each section, are the same all over each crop, or never."""
    apart = change.max(axis=1) - change.min(axis=1) > 1e-4
    assert apart.all() or not apart.any()
    return bool(apart.all())


@pytest.mark.parametrize("by_section", [0.0, 1.0])
def test_brightness_adds_a_bounded_number(by_section):
    image = noise_image()
    images = drawn(intensities.brightness, 300, image, 0.3, by_section)
    added = images - np.asarray(image)
    np.testing.assert_allclose(added.max((2, 3)), added.min((2, 3)), atol=1e-6)
    levels = added.mean((2, 3))
    assert varies(levels) == bool(by_section)
    assert np.abs(levels).max() <= 0.3 + 1e-6
    assert np.abs(levels).max() > 0.28
    assert abs(levels[:, 0].mean()) < 5 * 0.3 / np.sqrt(3 * 300)


@pytest.mark.parametrize("by_section", [0.0, 1.0])
def test_contrast_scales_by_a_bounded_factor(by_section):
    image = noise_image()
    images = drawn(intensities.contrast, 300, image, 0.3, by_section)
    factors = (images / np.asarray(image)).mean((2, 3))
    np.testing.assert_allclose(images, factors[..., None, None] * image, atol=1e-5)
    assert varies(factors) == bool(by_section)
    assert 0.7 - 1e-4 <= factors.min() < 0.72
    assert 1.28 < factors.max() <= 1.3 + 1e-4


@pytest.mark.parametrize("by_section", [0.0, 1.0])
def test_gamma_is_a_power_of_the_intensity(by_section):
    image = noise_image().at[:, 0, :2].set(jnp.array([-1.0, 1.0]))
    images = drawn(intensities.gamma, 200, image, 1.0, by_section)
    np.testing.assert_array_equal(images[:, :, 0, :2], np.broadcast_to([-1, 1], (200, 5, 2)))
    inner = np.s_[..., 1:, 2:]
    powers = np.log((images[inner] + 1) / 2) / np.log((np.asarray(image)[inner] + 1) / 2)
    np.testing.assert_allclose(powers.max((2, 3)), powers.min((2, 3)), rtol=1e-3)
    powers = powers.mean((2, 3))
    assert varies(powers) == bool(by_section)
    assert 0.5 - 1e-3 <= powers.min() < 0.55
    assert 1.8 < powers.max() <= 2 + 1e-3


@pytest.mark.parametrize("by_section", [0.0, 1.0])
def test_noise_has_a_bounded_deviation_and_no_mean(by_section):
    image = jnp.zeros((3, 40, 40))
    images = drawn(intensities.noise, 60, image, 0.1, by_section)
    spread = images.std((2, 3))
    assert 0.09 < spread.max() < 0.1 * (1 + 5 / np.sqrt(2 * 1600))
    assert np.abs(images.mean((2, 3))).max() < 5 * 0.1 / 40
    ratio = spread.max(1) / spread.min(1)
    assert (ratio > 1.5).mean() > 0.5 if by_section else (ratio < 1.2).all()


def test_bright_tissue_saturates():
    image = jnp.full(SHAPE, 0.9)
    for kind in (intensities.brightness, intensities.contrast, intensities.noise):
        images = drawn(kind, 50, image, 0.8, 0.0)
        assert images.max() == 1


@pytest.mark.parametrize("part", [0.0, 1.0])
def test_missing_sections_are_painted_all_over_or_on_one_side_of_a_line(part):
    image = noise_image()
    images = drawn(intensities.missing_section, 200, image, 3, part)
    changed = images != np.asarray(image)
    counts = changed.any((2, 3)).sum(1)
    assert set(counts.tolist()) == {1, 2, 3}
    fills = []
    for crop, z in zip(*np.nonzero(changed.any((2, 3))), strict=True):
        mask = changed[crop, z]
        fills.append(np.unique(images[crop, z][mask]).item())
        assert mask.all() if part == 0 else 0.05 < mask.mean() < 0.95
        # Cut by a straight line: both sides are convex, so no row is left and entered again.
        assert (np.abs(np.diff(mask.astype(int), axis=0)).sum(0) <= 1).all()
        assert (np.abs(np.diff(mask.astype(int), axis=1)).sum(1) <= 1).all()
    assert 0.3 < np.mean(np.array(fills) == -1) < 0.7
    assert max(fills) > 0.5
    assert set(np.nonzero(changed.any((2, 3)))[1].tolist()) == set(range(5))


@pytest.mark.parametrize(("depth", "lost"), [(1, 1), (2, 1), (3, 2)])
def test_one_section_is_left_where_there_are_two(depth, lost):
    image = noise_image((depth, 6, 6))
    images = drawn(intensities.missing_section, 40, image, 9, 0.0)
    assert (images != np.asarray(image)).any((2, 3)).sum(1).max() == lost


def test_one_section_is_blurred_by_a_gaussian():
    image = noise_image((3, 60, 60))
    images = drawn(intensities.blurred_section, 30, image, 3.0)
    changed = (images != np.asarray(image)).any((2, 3))
    assert (changed.sum(1) == 1).all()
    assert changed.any(0).all()
    inner = np.s_[14:-14, 14:-14]
    for after, z in zip(images, changed.argmax(1), strict=True):
        candidates = [
            np.abs(ndimage.gaussian_filter(np.asarray(image)[z], sigma, truncate=6) - after[z])[
                inner
            ]
            for sigma in np.arange(1.4, 3.11, 0.02)
        ]
        assert min(difference.max() for difference in candidates) < 0.005


def test_a_blurred_constant_stays_constant():
    image = jnp.full(SHAPE, 0.25)
    np.testing.assert_allclose(drawn(intensities.blurred_section, 5, image, 3.0), 0.25, rtol=1e-5)


def test_cut_outs_are_grey_boxes():
    image = noise_image((8, 20, 20))
    images = drawn(intensities.cut_out, 100, image, 1, 0.5)
    boxes = []
    for after in images:
        changed = np.argwhere(after != np.asarray(image))
        low, high = changed.min(0), changed.max(0) + 1
        boxes.append(high - low)
        assert np.prod(high - low) == len(changed)
        box = after[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        assert np.unique(box).size == 1
    np.testing.assert_array_equal(np.max(boxes, axis=0), (4, 10, 10))
    greys = [
        np.unique(after[after != np.asarray(image)]).size
        for after in drawn(intensities.cut_out, 100, image, 3, 0.2)
    ]
    assert set(greys) == {1, 2, 3}
