import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import ndimage

from maemem.data import intensities, warps
from maemem.data.augment import Augmentation, augment, augment_batch

KINDS = (
    *("warp", "rotation", "translation", "slip", "missing_section", "blurred_section"),
    *("brightness", "contrast", "gamma", "noise", "cut_out"),
)
OFF = Augmentation(orders_zyx=((0, 1, 2),), flip=False, **dict.fromkeys(KINDS, 0.0))
SHAPE = (5, 12, 16)
properties = hypothesis_settings(max_examples=25, deadline=None)


def labelled(shape=SHAPE, seed=0):
    """Labels from −1 to 8, and an image that is a function of them, `paint`."""
    labels = np.random.default_rng(seed).integers(-1, 9, shape, np.int32)
    return jnp.asarray(paint(labels)), jnp.asarray(labels)


def paint(labels):
    return np.float32(0.1) * np.asarray(labels).astype(np.float32)


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def augmented(settings, count, image, labels):
    """One crop, augmented from `count` keys; images and labels `[n z y x]` as numpy."""
    run = jax.jit(jax.vmap(lambda key: augment(settings, key, image, labels)))
    return jax.tree.map(np.asarray, run(keys(count)))


def drawn(kind, count, *arguments):
    """What `kind(key, *arguments)` gives for `count` keys, as numpy."""
    return np.asarray(jax.jit(jax.vmap(lambda key: kind(key, *arguments)))(keys(count)))


def noise_image(shape=SHAPE):
    return jnp.asarray(np.random.default_rng(1).uniform(-0.5, 0.5, shape).astype(np.float32))


# The whole.


def test_a_batch_is_each_crop_from_its_own_key():
    settings = Augmentation(orders_zyx=((0, 1, 2),), warp_spacing_zyx=(8.0, 20.0, 20.0))
    pairs = [labelled(seed=seed) for seed in range(6)]
    images, labels = (jnp.stack(part) for part in zip(*pairs, strict=True))
    together = jax.jit(augment_batch, static_argnums=0)(settings, keys(6), images, labels)
    alone = jax.jit(augment, static_argnums=0)
    for i, key in enumerate(keys(6)):
        image, label = alone(settings, key, images[i], labels[i])
        assert (image.shape, image.dtype) == (SHAPE, jnp.float32)
        assert (label.shape, label.dtype) == (SHAPE, jnp.int32)
        assert np.abs(image).max() <= 1
        np.testing.assert_allclose(together[0][i], image, atol=2e-5)
        # The nearest voxel may differ where two are equally near, but for rounding.
        assert np.mean(np.asarray(together[1][i] == label)) > 0.999
        again = alone(settings, key, images[i], labels[i])
        np.testing.assert_array_equal(again[0], image)
        np.testing.assert_array_equal(again[1], label)


def test_different_keys_give_different_crops():
    settings = dataclasses.replace(OFF, flip=True, brightness=1.0)
    images, _ = augmented(settings, 8, *labelled())
    assert len({image.tobytes() for image in images}) == 8


def test_without_any_chance_a_crop_stays_and_nothing_is_computed():
    image, labels = labelled()
    run = jax.jit(lambda key: augment(OFF, key, image, labels))
    after = run(jax.random.key(0))
    np.testing.assert_array_equal(after[0], image)
    np.testing.assert_array_equal(after[1], labels)
    program = run.lower(jax.random.key(0)).compile().as_text()
    assert not any(name in program for name in ("while", "gather", "fusion", "add"))


@pytest.mark.parametrize("kind", KINDS)
def test_with_a_chance_of_one_a_kind_always_acts(kind):
    image = noise_image((4, 12, 12))
    labels = jnp.arange(image.size, dtype=jnp.int32).reshape(image.shape)
    images, after = augmented(dataclasses.replace(OFF, **{kind: 1.0}), 12, image, labels)
    assert all(np.any(each != image) for each in images)
    moves = kind in ("warp", "rotation", "translation", "slip")
    assert np.any(after != np.asarray(labels)) == moves


@pytest.mark.parametrize("kind", ["brightness", "rotation", "slip"])
def test_a_kind_acts_as_often_as_its_chance_says(kind):
    image, labels = labelled((4, 8, 8))
    images, _ = augmented(dataclasses.replace(OFF, **{kind: 0.3}), 2000, image, labels)
    acted = np.any(images != np.asarray(image), axis=(1, 2, 3)).mean()
    assert abs(acted - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 2000)


def test_a_crop_loses_sections_or_is_misaligned_but_never_both():
    chances = {"translation": 0.3, "slip": 0.3, "missing_section": 0.4}
    image, labels = labelled((4, 10, 10))
    settings = dataclasses.replace(OFF, missing_section_part=0.5, **chances)
    images, after = augmented(settings, 1000, image, labels)
    misaligned = np.any(after != np.asarray(labels), axis=(1, 2, 3))
    painted = np.any(images != paint(after), axis=(1, 2, 3))
    np.testing.assert_array_equal(misaligned, ~painted)
    assert abs(painted.mean() - 0.4) < 5 * np.sqrt(0.4 * 0.6 / 1000)


def test_unlabelled_voxels_stay_unlabelled():
    settings = dataclasses.replace(OFF, flip=True, warp=1.0, rotation=1.0, slip=1.0)
    image, labels = labelled((3, 40, 40))
    _, after = augmented(settings, 5, image, labels)
    assert set(np.unique(after)) == set(range(-1, 9))
    _, after = augmented(settings, 5, image, jnp.full_like(labels, -1))
    assert (after == -1).all()


# Geometry.


@properties
@given(st.integers(0, 2**31), st.booleans())
def test_orientation_permutes_and_reverses_image_and_labels_alike(seed, flip):
    shape = (6, 6, 6)
    image, labels = labelled(shape, seed)
    orders = tuple(itertools.permutations(range(3)))
    turned, after = jax.jit(warps.orient, static_argnums=(3, 4))(
        jax.random.key(seed), image, labels, orders, flip
    )
    np.testing.assert_array_equal(turned, paint(after))
    flips = list(itertools.product((1, -1), repeat=3)) if flip else [(1, 1, 1)]
    views = [
        np.asarray(labels).transpose(order)[::z, ::y, ::x] for order in orders for z, y, x in flips
    ]
    assert any(np.array_equal(after, view) for view in views)


def test_every_orientation_is_equally_likely():
    orders = ((0, 1, 2), (0, 2, 1))
    labels = jnp.arange(8, dtype=jnp.int32).reshape(2, 2, 2)
    settings = dataclasses.replace(OFF, orders_zyx=orders, flip=True)
    _, after = augmented(settings, 3200, labels.astype(jnp.float32), labels)
    _, count = np.unique(after.reshape(3200, 8), axis=0, return_counts=True)
    assert len(count) == 16
    assert np.abs(count - 200).max() < 5 * np.sqrt(200)


def test_a_single_order_is_applied_without_any_choice():
    image, labels = labelled((3, 4, 4))
    settings = dataclasses.replace(OFF, orders_zyx=((0, 2, 1),))
    images, after = augmented(settings, 3, image, labels)
    for each in after:
        np.testing.assert_array_equal(each, np.asarray(labels).transpose(0, 2, 1))
    np.testing.assert_array_equal(images, paint(after))


@properties
@given(st.tuples(st.integers(-4, 4), st.integers(-11, 11), st.integers(-15, 15)))
def test_resampling_by_whole_voxels_reads_mirrored_tissue(shift):
    image, labels = labelled()
    field = jnp.broadcast_to(jnp.array(shift, jnp.float32)[:, None, None, None], (3, *SHAPE))
    moved, after = warps.resample(image, labels, field)
    padded = np.pad(labels, [(n, n) for n in SHAPE], "reflect")
    z, y, x = (slice(n + d, 2 * n + d) for n, d in zip(SHAPE, shift, strict=True))
    np.testing.assert_array_equal(after, padded[z, y, x])
    np.testing.assert_array_equal(moved, paint(after))


def test_resampling_interpolates_between_the_eight_voxels_around():
    image, labels = noise_image(), labelled()[1]
    rng = np.random.default_rng(0)
    field = rng.uniform(-2, 2, (3, *SHAPE)).astype(np.float32)
    moved, after = warps.resample(image, labels, jnp.asarray(field))
    places = np.indices(SHAPE) + field
    expected = ndimage.map_coordinates(image, places, order=1, mode="mirror")
    np.testing.assert_allclose(moved, expected, atol=1e-5)
    nearest = ndimage.map_coordinates(labels, places, order=0, mode="mirror")
    np.testing.assert_array_equal(after, nearest)


def test_labels_are_those_of_the_voxel_nearest_to_where_the_image_is_read():
    # Each voxel's labels name its own place, along one axis after another.
    labels = np.indices((20, 24, 28), np.int32)
    settings = dataclasses.replace(
        OFF,
        warp=1.0,
        warp_voxels_zyx=(4.0, 4.0, 4.0),
        warp_spacing_zyx=(9.0, 9.0, 9.0),
        rotation=1.0,
        rotation_degrees=40.0,
        slip=1.0,
    )
    same_key = jnp.stack([jax.random.key(1)] * 3)
    run = jax.jit(augment_batch, static_argnums=0)
    images, after = run(settings, same_key, jnp.asarray(labels / 32, jnp.float32), labels)
    for image, label, before in zip(images, after, labels, strict=True):
        assert (label != before).mean() > 0.5
        assert np.abs(32 * image - label).max() < 0.5 + 1e-4


def test_a_warp_is_smooth_and_within_its_bound():
    bound, spacing = (1.0, 4.0, 6.0), (3.0, 10.0, 14.0)
    fields = drawn(warps.warp_field, 30, (8, 40, 40), jnp.array(bound), spacing)
    for axis in range(3):
        field = fields[:, axis]
        assert np.abs(field).max() <= bound[axis]
        assert 0.15 * bound[axis] < field.std() < 0.4 * bound[axis]
        for along in range(3):  # grid points differ by twice the bound at most
            steepest = np.abs(np.diff(field, axis=along + 1)).max()
            assert 0 < steepest <= 2 * bound[axis] / spacing[along] + 1e-6


def test_a_warp_without_a_bound_along_z_stays_in_its_section():
    labels = jnp.broadcast_to(jnp.arange(5, dtype=jnp.int32)[:, None, None], SHAPE)
    settings = dataclasses.replace(OFF, warp=1.0)
    _, after = augmented(settings, 5, jnp.asarray(paint(labels)), labels)
    assert (after == np.asarray(labels)).all()


def test_a_quarter_turn_is_rot90():
    image, labels = labelled((2, 9, 9))
    field = warps.section_field((2, 9, 9), jnp.array(np.pi / 2), jnp.zeros((2, 2)))
    turned, after = warps.resample(image, labels, field)
    np.testing.assert_array_equal(after, np.rot90(labels, axes=(1, 2)))
    np.testing.assert_allclose(turned, paint(after), atol=1e-5)


def test_rotation_leaves_rings_as_they_are():
    y, x = np.indices((41, 41)) - 20
    radius = np.hypot(y, x)
    image = np.cos(radius / 4).astype(np.float32)[None]
    settings = dataclasses.replace(OFF, rotation=1.0, rotation_degrees=15.0)
    labels = jnp.zeros(image.shape, jnp.int32)
    images, _ = augmented(settings, 5, jnp.asarray(image), labels)
    inside = np.broadcast_to(radius < 20, images.shape)
    expected = np.broadcast_to(image, images.shape)
    np.testing.assert_allclose(images[inside], expected[inside], atol=0.02)


def test_angles_fill_their_range():
    angles = np.degrees(drawn(warps.rotation, 500, 15.0))
    assert -15 <= angles.min() < -14
    assert 14 < angles.max() <= 15


@pytest.mark.parametrize("slip", [False, True])
def test_misaligned_sections_are_shifted_alike(slip):
    shifts = drawn(warps.misalignment, 600, 6, 3, slip)
    seen = set()
    for y, x in shifts:
        moved = np.flatnonzero((y != 0) | (x != 0))
        first = moved[0]
        assert first >= 1
        assert moved.tolist() == ([first] if slip else list(range(first, 6)))
        assert len(set(zip(y[moved], x[moved], strict=True))) == 1
        seen.add((y[first], x[first], first))
    assert max(max(abs(y), abs(x)) for y, x, _ in seen) == 3
    assert {first for _, _, first in seen} == {1, 2, 3, 4, 5}
    assert len({place[:2] for place in seen}) == 7 * 7 - 1


@pytest.mark.parametrize("kind", ["translation", "slip"])
def test_image_and_labels_are_misaligned_together(kind):
    image, labels = labelled()
    settings = dataclasses.replace(OFF, misalignment_voxels=4, **{kind: 1.0})
    images, after = augmented(settings, 10, image, labels)
    np.testing.assert_array_equal(images, paint(after))
    for each in after:
        moved = [z for z in range(5) if np.any(each[z] != labels[z])]
        assert len(moved) == (1 if kind == "slip" else 5 - moved[0])
        padded = np.pad(labels, [(0, 0), (4, 4), (4, 4)], "reflect")
        shifted = [padded[moved, y : y + 12, x : x + 16] for y in range(9) for x in range(9)]
        assert any(np.array_equal(each[moved], candidate) for candidate in shifted)


# Intensities.


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


# What is refused.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"warp": 1.5}, "warp is 1.5; choose from 0 to 1"),
        ({"by_section": -0.1}, "by_section is -0.1; choose from 0 to 1"),
        ({"slip": 0.6, "missing_section": 0.6}, "are 1.3 together"),
        ({"misalignment_voxels": 0}, "misalignment_voxels is 0; choose at least 1"),
        ({"warp_voxels_zyx": (0.0, 8.0, 16.0)}, "folds tissue"),
        ({"orders_zyx": ((0, 1, 1),)}, "permutations"),
        ({"orders_zyx": ()}, "permutations"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**change)


def test_an_order_that_changes_the_shape_is_refused():
    image, labels = labelled()
    with pytest.raises(ValueError, match=r"\(0, 2, 1\) .* changes the shape .* 5x12x16"):
        augment(Augmentation(), jax.random.key(0), image, labels)
