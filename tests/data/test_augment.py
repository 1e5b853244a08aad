import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maemem.data.samples.augment import Augmentation, augment, augment_batch
from tests.data.augmenting import (
    KINDS,
    OFF,
    SHAPE,
    augmented,
    keys,
    labelled,
    noise_image,
    paint,
)


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
