import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maemem.data.samples.augment import Augmentation
from maemem.fields import build, section
from tests.data.augmenting import (
    KINDS,
    OFF,
    SHAPE,
    augmented,
    keys,
    labelled,
    noise_image,
    paint,
    properties,
)


def test_a_batch_is_each_crop_from_its_own_key():
    settings = Augmentation(orders_zyx=((0, 1, 2),), warp_spacing_zyx=(8.0, 20.0, 20.0))
    crops = [labelled(seed=seed) for seed in range(6)]
    batch = jax.tree.map(lambda *each: jnp.stack(each), *crops)
    together = jax.jit(settings.apply)(keys(6), batch)
    alone = jax.jit(lambda key, crop: settings.expose_crop(key, settings.move_crop(key, crop)))
    for i, (key, crop) in enumerate(zip(keys(6), crops, strict=True)):
        after = alone(key, crop)
        image, label = after["image"], after["labels"]
        assert (image.shape, image.dtype) == (SHAPE, jnp.float32)
        assert (label.shape, label.dtype) == (SHAPE, jnp.int32)
        assert np.abs(image).max() <= 1
        np.testing.assert_allclose(together["image"][i], image, atol=2e-5)
        # The nearest voxel may differ where two are equally near, but for rounding.
        assert np.mean(np.asarray(together["labels"][i] == label)) > 0.999
        again = alone(key, crop)
        np.testing.assert_array_equal(again["image"], image)
        np.testing.assert_array_equal(again["labels"], label)


def test_different_keys_give_different_crops():
    settings = dataclasses.replace(OFF, flip=True, brightness=1.0)
    images, _ = augmented(settings, 8, labelled())
    assert len({image.tobytes() for image in images}) == 8


def test_without_any_chance_a_crop_stays_and_nothing_is_computed():
    batch = jax.tree.map(lambda array: array[None], labelled())
    run = jax.jit(OFF.apply)
    after = run(keys(1), batch)
    for name, array in batch.items():
        np.testing.assert_array_equal(after[name], array)
    program = run.lower(keys(1), batch).compile().as_text()
    assert not any(name in program for name in ("while", "gather", "fusion", "add"))


@pytest.mark.parametrize("kind", KINDS)
def test_with_a_chance_of_one_a_kind_always_acts(kind):
    image = noise_image((4, 12, 12))
    labels = jnp.arange(image.size, dtype=jnp.int32).reshape(image.shape)
    crop = {"image": image, "labels": labels}
    images, after = augmented(dataclasses.replace(OFF, **{kind: 1.0}), 12, crop)
    assert all(np.any(each != image) for each in images)
    moves = kind in ("warp", "rotation", "translation", "slip")
    assert np.any(after != np.asarray(labels)) == moves


@pytest.mark.parametrize("kind", ["brightness", "rotation", "slip"])
def test_a_kind_acts_as_often_as_its_chance_says(kind):
    crop = labelled((4, 8, 8))
    images, _ = augmented(dataclasses.replace(OFF, **{kind: 0.3}), 2000, crop)
    acted = np.any(images != np.asarray(crop["image"]), axis=(1, 2, 3)).mean()
    assert abs(acted - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 2000)


def test_a_crop_loses_sections_or_is_misaligned_but_never_both():
    chances = {"translation": 0.3, "slip": 0.3, "missing_section": 0.4}
    crop = labelled((4, 10, 10))
    settings = dataclasses.replace(OFF, missing_section_part=0.5, **chances)
    images, after = augmented(settings, 1000, crop)
    misaligned = np.any(after != np.asarray(crop["labels"]), axis=(1, 2, 3))
    painted = np.any(images != paint(after), axis=(1, 2, 3))
    np.testing.assert_array_equal(misaligned, ~painted)
    assert abs(painted.mean() - 0.4) < 5 * np.sqrt(0.4 * 0.6 / 1000)


def test_unlabelled_voxels_stay_unlabelled():
    settings = dataclasses.replace(OFF, flip=True, warp=1.0, rotation=1.0, slip=1.0)
    crop = labelled((3, 40, 40))
    _, after = augmented(settings, 5, crop)
    assert set(np.unique(after)) == set(range(-1, 9))
    _, after = augmented(settings, 5, crop | {"labels": jnp.full_like(crop["labels"], -1)})
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
    with pytest.raises(ValueError, match=r"\(0, 2, 1\) .* changes the shape .* 5x12x16"):
        Augmentation().move_crop(jax.random.key(0), labelled())


STRONG = Augmentation(
    **dict.fromkeys(KINDS, 0.8) | dict.fromkeys(("translation", "slip", "missing_section"), 0.3),
    misalignment_voxels=4,
    orders_zyx=((0, 1, 2),),
)
run = {name: jax.jit(getattr(STRONG, name)) for name in ("move", "expose", "apply")}


def batch_of(seed, count=4):
    crops = [labelled(seed=seed + i) for i in range(count)]
    return jax.tree.map(lambda *each: jnp.stack(each), *crops)


@properties
@given(st.integers(0, 2**31))
def test_without_labels_the_image_is_the_same_as_with_them(seed):
    batch = batch_of(seed)
    for way in run.values():
        both, alone = way(keys(4, seed), batch), way(keys(4, seed), {"image": batch["image"]})
        assert alone.keys() == {"image"}
        np.testing.assert_allclose(alone["image"], both["image"], atol=2e-6)


@properties
@given(st.integers(0, 2**31))
def test_both_halves_make_the_whole_and_only_the_first_moves_truth(seed):
    batch, key = batch_of(seed), keys(4, seed)
    moved, whole = run["move"](key, batch), run["apply"](key, batch)
    exposed = run["expose"](key, moved)
    np.testing.assert_allclose(exposed["image"], whole["image"], atol=2e-6)
    np.testing.assert_array_equal(exposed["labels"], moved["labels"])
    np.testing.assert_array_equal(whole["labels"], moved["labels"])


@properties
@given(st.integers(0, 2**31))
def test_labels_never_get_ids_that_were_not_there(seed):
    labels = 5 * batch_of(seed)["labels"]
    after = run["move"](keys(4, seed), {"image": labels.astype(jnp.float32), "labels": labels})
    for before, moved in zip(labels, after["labels"], strict=True):
        assert set(np.unique(moved)) <= set(np.unique(before))


@properties
@given(st.integers(0, 2**31))
def test_every_field_of_truth_moves_with_the_image(seed):
    """Integers as labels do, floats as the image does."""
    batch = batch_of(seed)
    more = {"other": batch["labels"] + 3, "map": 0.5 * batch["image"]}
    after = run["move"](keys(4, seed), batch | more)
    np.testing.assert_array_equal(after["other"], after["labels"] + 3)
    np.testing.assert_allclose(after["map"], 0.5 * after["image"], atol=1e-6)


def test_the_config_section_has_all_fields_but_the_orders():
    fields = dataclasses.asdict(Augmentation())
    assert fields.pop("orders_zyx")
    assert section(Augmentation).to_dict() == fields
    assert build(Augmentation, section(STRONG), "a", orders_zyx=((0, 1, 2),)) == STRONG
