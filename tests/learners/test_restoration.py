"""Restoration: what is hidden, what it is scored by, and what is handed on."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maemem.learners.restoration import Restoration
from tests.learners.made import given_unet, like

CROP = (4, 16, 16)
LEARNER = Restoration(blocks_zyx=((1, 4, 4), (2, 8, 8)), given=given_unet((1, 4, 4), (4, 8)))


@pytest.fixture(scope="module")
def params():
    return LEARNER.init(jax.random.key(0), like(CROP))


def batch(count=3):
    crops = np.random.default_rng(0).integers(0, 256, (count, *CROP), np.uint8)
    return {"image": jnp.asarray(crops)}


def keys(count=3):
    return jax.random.split(jax.random.key(1), count)


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.8])
def test_the_share_of_hidden_voxels_is_the_ratio(ratio):
    learner = dataclasses.replace(LEARNER, ratio=ratio)
    hidden = learner.hidden(keys(600), jnp.zeros((600, *CROP)))
    assert hidden.mean() == pytest.approx(ratio, abs=0.02)
    # At every place alike.
    np.testing.assert_allclose(hidden.mean(0), ratio, atol=0.1)


def test_one_size_hides_whole_blocks_on_a_shifted_grid():
    learner = dataclasses.replace(LEARNER, blocks_zyx=((2, 8, 8),))
    hidden = np.asarray(learner.hidden(keys(20), jnp.zeros((20, *CROP))))
    for crop in hidden:
        grids = [
            np.abs(np.diff(crop.astype(int), axis=axis)).any(tuple({0, 1, 2} - {axis}))
            for axis in range(3)
        ]
        for edges, size in zip(grids, (2, 8, 8), strict=True):
            places = np.flatnonzero(edges)
            assert len(set(places % size)) <= 1


def test_the_network_sees_nothing_of_what_is_hidden(params):
    image = LEARNER.image(batch())
    hidden = LEARNER.hidden(keys(), image)
    mean = LEARNER.predict(params, image, hidden, keys())
    # Mirrored about their own mean, hidden voxels leave mean and deviation nearly as they are.
    count = hidden.sum((1, 2, 3), keepdims=True)
    centre = jnp.where(hidden, image, 0).sum((1, 2, 3), keepdims=True) / count
    mirrored = jnp.where(hidden, 2 * centre - image, image)
    again = LEARNER.predict(params, mirrored, hidden, keys())
    np.testing.assert_allclose(again, mean, atol=1e-5)
    assert not np.allclose(mirrored, image)


def test_only_hidden_voxels_are_scored(params):
    image = LEARNER.image(batch())
    hidden = LEARNER.hidden(keys(), image)
    silent = jax.tree.map(jnp.zeros_like, params)
    error = LEARNER.error(silent, image, keys())
    normal = (image - image.mean((1, 2, 3), keepdims=True)) / image.std((1, 2, 3), keepdims=True)
    expected = [np.square(normal[i][hidden[i]]).mean() for i in range(3)]
    np.testing.assert_allclose(error, expected, rtol=1e-2)


def test_all_but_the_head_is_handed_on(params):
    handed = LEARNER.transfer(params, ())
    assert handed.keys() == params.keys() - {"head"}


def test_noise_hides_with_noise(params):
    noisy, image = dataclasses.replace(LEARNER, fill="noise"), LEARNER.image(batch())
    hidden = LEARNER.hidden(keys(), image)
    plain, other = (each.predict(params, image, hidden, keys()) for each in (LEARNER, noisy))
    assert not np.allclose(plain, other)


@pytest.mark.parametrize(("field", "value"), [("ratio", 1.0), ("blocks_zyx", ((0, 8, 8),))])
def test_impossible_fields_are_named(field, value):
    with pytest.raises(ValueError, match=f"^{field} is .*; expected"):
        dataclasses.replace(LEARNER, **{field: value})
