import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from maemem.data.samples import warps
from maemem.geometry import View, views
from tests.data.augmenting import (
    OFF,
    SHAPE,
    augmented,
    drawn,
    labelled,
    noise_image,
    paint,
    properties,
)

oriented = jax.jit(warps.orient, static_argnums=(2, 3))


@properties
@given(st.integers(0, 2**31), st.booleans())
def test_orientation_permutes_and_reverses_image_and_labels_alike(seed, flip):
    shape = (6, 6, 6)
    crop = labelled(shape, seed)
    orders = tuple(itertools.permutations(range(3)))
    turned = oriented(jax.random.key(seed), crop, orders, flip)
    after = np.asarray(turned["labels"])
    np.testing.assert_array_equal(turned["image"], paint(after))
    found = views(orders) if flip else [View(order) for order in orders]
    # One of them, whose inverse brings the crop back exactly.
    assert any(np.array_equal(view.invert(after), crop["labels"]) for view in found)


@properties
@given(st.integers(0, 2**31))
def test_flips_and_swaps_are_undone_by_doing_them_again(seed):
    key, crop = jax.random.key(seed), labelled((6, 6, 6), seed)
    for orders, flip in (((0, 1, 2),), True), (((0, 2, 1),), False), (((2, 1, 0),), False):
        once = oriented(key, crop, orders, flip)
        twice = oriented(key, once, orders, flip)
        for name, array in crop.items():
            np.testing.assert_array_equal(twice[name], array)


def test_every_orientation_is_equally_likely():
    orders = ((0, 1, 2), (0, 2, 1))
    labels = jnp.arange(8, dtype=jnp.int32).reshape(2, 2, 2)
    settings = dataclasses.replace(OFF, orders_zyx=orders, flip=True)
    crop = {"image": labels.astype(jnp.float32), "labels": labels}
    _, after = augmented(settings, 3200, crop)
    _, count = np.unique(after.reshape(3200, 8), axis=0, return_counts=True)
    assert len(count) == 16
    assert np.abs(count - 200).max() < 5 * np.sqrt(200)


def test_a_single_order_is_applied_without_any_choice():
    crop = labelled((3, 4, 4))
    settings = dataclasses.replace(OFF, orders_zyx=((0, 2, 1),))
    images, after = augmented(settings, 3, crop)
    for each in after:
        np.testing.assert_array_equal(each, np.asarray(crop["labels"]).transpose(0, 2, 1))
    np.testing.assert_array_equal(images, paint(after))


@properties
@given(st.tuples(st.integers(-4, 4), st.integers(-11, 11), st.integers(-15, 15)))
def test_resampling_by_whole_voxels_reads_mirrored_tissue(shift):
    crop = labelled()
    field = jnp.broadcast_to(jnp.array(shift, jnp.float32)[:, None, None, None], (3, *SHAPE))
    moved = warps.resample(crop, field)
    padded = np.pad(crop["labels"], [(n, n) for n in SHAPE], "reflect")
    z, y, x = (slice(n + d, 2 * n + d) for n, d in zip(SHAPE, shift, strict=True))
    np.testing.assert_array_equal(moved["labels"], padded[z, y, x])
    np.testing.assert_array_equal(moved["image"], paint(moved["labels"]))


def test_resampling_interpolates_between_the_eight_voxels_around():
    image, labels = noise_image(), labelled()["labels"]
    rng = np.random.default_rng(0)
    field = rng.uniform(-2, 2, (3, *SHAPE)).astype(np.float32)
    moved = warps.resample({"image": image, "labels": labels}, jnp.asarray(field))
    places = np.indices(SHAPE) + field
    expected = ndimage.map_coordinates(image, places, order=1, mode="mirror")
    np.testing.assert_allclose(moved["image"], expected, atol=1e-5)
    nearest = ndimage.map_coordinates(labels, places, order=0, mode="mirror")
    np.testing.assert_array_equal(moved["labels"], nearest)


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
    batch = {"image": jnp.asarray(labels / 32, jnp.float32), "labels": jnp.asarray(labels)}
    after = jax.jit(settings.apply)(same_key, batch)
    for image, label, before in zip(after["image"], after["labels"], labels, strict=True):
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
    _, after = augmented(settings, 5, {"image": jnp.asarray(paint(labels)), "labels": labels})
    assert (after == np.asarray(labels)).all()


def test_a_quarter_turn_is_rot90():
    crop = labelled((2, 9, 9))
    field = warps.section_field((2, 9, 9), jnp.array(np.pi / 2), jnp.zeros((2, 2)))
    turned = warps.resample(crop, field)
    np.testing.assert_array_equal(turned["labels"], np.rot90(crop["labels"], axes=(1, 2)))
    np.testing.assert_allclose(turned["image"], paint(turned["labels"]), atol=1e-5)


def test_rotation_leaves_rings_as_they_are():
    y, x = np.indices((41, 41)) - 20
    radius = np.hypot(y, x)
    image = np.cos(radius / 4).astype(np.float32)[None]
    settings = dataclasses.replace(OFF, rotation=1.0, rotation_degrees=15.0)
    labels = jnp.zeros(image.shape, jnp.int32)
    images, _ = augmented(settings, 5, {"image": jnp.asarray(image), "labels": labels})
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
    crop = labelled()
    labels = crop["labels"]
    settings = dataclasses.replace(OFF, misalignment_voxels=4, **{kind: 1.0})
    images, after = augmented(settings, 10, crop)
    np.testing.assert_array_equal(images, paint(after))
    for each in after:
        moved = [z for z in range(5) if np.any(each[z] != labels[z])]
        assert len(moved) == (1 if kind == "slip" else 5 - moved[0])
        padded = np.pad(labels, [(0, 0), (4, 4), (4, 4)], "reflect")
        shifted = [padded[moved, y : y + 12, x : x + 16] for y in range(9) for x in range(9)]
        assert any(np.array_equal(each[moved], candidate) for candidate in shifted)
