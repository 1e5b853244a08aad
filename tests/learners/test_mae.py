import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maemem.learners.contract import At
from maemem.learners.mae import DecoderSize, MaskedReconstruction, normalise_patches
from tests.learners.made import given_vit, like

CROP, PATCH = (4, 16, 16), (2, 8, 8)


@pytest.fixture(scope="module")
def objective():
    given = given_vit(PATCH, (48, 2, 4))
    return MaskedReconstruction("random", 0.5, decoder=DecoderSize(36, 1, 3), given=given)


@pytest.fixture(scope="module")
def params(objective):
    return objective.init(jax.random.key(0), like(CROP))


def crops(seed=0, batch=3):
    return jnp.asarray(np.random.default_rng(seed).integers(0, 256, (batch, *CROP), np.uint8))


def batch(seed=0, count=3):
    return {"image": crops(seed, count)}


def keys(batch=3):
    return jax.random.split(jax.random.key(2), batch)


def loss(objective, params, batch, keys):
    """Of a training step."""
    zero = jnp.zeros((), jnp.int32)
    return objective.loss(params, (), batch, At(zero, zero, jax.random.key(0), keys))[0]


def evaluate(objective, params, batch, keys):
    """Of held-out crops."""
    return objective.evaluate(params, (), batch, keys)["masked_mse"]


def slow_error(objective, params, images, keys):
    """The loss again, patch by patch, voxel by voxel."""
    errors = []
    for image, key in zip(images, keys, strict=True):
        (visible,), (masked,) = objective.masks(key[None], objective.image({"image": image[None]}))
        seen = np.asarray(image, np.float32) / 255 * 2 - 1
        predicted = objective.model.apply(
            {"params": params}, jnp.asarray(seen)[None, ..., None], visible[None], masked[None]
        )[0]
        for prediction, token in zip(predicted, masked.tolist(), strict=True):
            z, y, x = np.unravel_index(token, (2, 2, 2))
            patch = seen[2 * z : 2 * z + 2, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8].astype(np.float64)
            target = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 1e-6)
            errors.append(np.square(prediction - target.ravel()).mean())
    return np.mean(errors)


def test_loss_equals_the_slow_way(objective, params):
    expected = slow_error(objective, params, crops(), keys())
    assert float(loss(objective, params, batch(), keys())) == pytest.approx(expected, rel=1e-5)
    assert float(evaluate(objective, params, batch(), keys()).mean()) == pytest.approx(expected)


def test_decoding_some_tokens_estimates_the_same_loss(objective, params):
    some = dataclasses.replace(objective, decoded=2)
    many = jax.random.split(jax.random.key(0), 600)
    same = {"image": jnp.repeat(crops(batch=1), 600, axis=0)}
    whole = float(loss(objective, params, same, many))
    assert float(loss(some, params, same, many)) == pytest.approx(whole, rel=0.02)
    # And any of them may be decoded, not the first ones in token order.
    _, masked = some.masks(many, some.image(same))
    share = np.bincount(np.asarray(masked[:, :2]).ravel(), minlength=8) / 600
    np.testing.assert_allclose(share, 2 / 8, atol=0.1)
    # But an evaluation scores all of them.
    np.testing.assert_allclose(
        evaluate(some, params, batch(), keys()), evaluate(objective, params, batch(), keys())
    )


def test_visible_patches_are_not_scored(objective, params):
    image = objective.image(batch())
    visible, masked = objective.masks(keys(), image)
    # A network that predicts nothing scores by its targets alone, so they may not see `visible`.
    silent = jax.tree.map(jnp.zeros_like, params)

    def score(image):
        return objective.error(silent, image, visible, masked).sum()

    moved = jnp.abs(jax.grad(score)(image * jnp.linspace(0.1, 1, 16)[:, None]))
    tokens = moved.reshape(3, 2, 2, 2, 8, 2, 8).sum((2, 4, 6)).reshape(3, 8)
    for crop in range(3):
        assert (tokens[crop, visible[crop]] == 0).all()
        assert (tokens[crop, masked[crop]] > 0).all()


def test_normalised_patches_have_no_mean_and_unit_variance():
    patches = jax.random.uniform(jax.random.key(0), (2, 5, 300)) * 7 + 3
    normal = normalise_patches(patches)
    np.testing.assert_allclose(normal.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(normal.var(-1, ddof=1), 1, atol=1e-4)
    # By hand: of 1, 2, 6 the mean is 3, and the unbiased variance (4 + 1 + 9) / 2.
    by_hand = np.array([-2.0, -1.0, 3.0]) / np.sqrt(7)
    np.testing.assert_allclose(normalise_patches(jnp.array([[[1.0, 2, 6]]]))[0, 0], by_hand, 1e-5)


def test_a_patch_without_contrast_gives_no_infinity():
    assert jnp.isfinite(normalise_patches(jnp.ones((1, 1, 8)))).all()


def test_predicting_the_mean_scores_one(objective, params):
    zeros = jax.tree.map(jnp.zeros_like, params)
    assert float(loss(objective, zeros, batch(), keys())) == pytest.approx(1 - 1 / 128, abs=1e-3)


def test_intensities_reach_the_network_in_range(objective):
    image = objective.image({"image": jnp.array([[[[0, 255, 51]]]], jnp.uint8)})
    np.testing.assert_allclose(image.ravel(), [-1, 1, -0.6], atol=1e-6)
    wide = dataclasses.replace(
        objective, given=dataclasses.replace(objective.given, intensity_range=(1000.0, 3000.0))
    )
    image = wide.image({"image": jnp.array([[[[1000, 3000, 2000]]]], jnp.uint16)})
    np.testing.assert_allclose(image.ravel(), [-1, 1, 0], atol=1e-6)
    hot_and_dead = wide.image({"image": jnp.array([[[[32000, 0]]]], jnp.uint16)})
    np.testing.assert_array_equal(hot_and_dead.ravel(), [1, -1])


def test_pictures_keep_what_was_visible_and_puts_predictions_elsewhere(objective, params):
    raw, left, filled = objective.pictures(params, (), batch(), keys()).values()
    np.testing.assert_allclose(raw, crops() / 255 * 2 - 1, atol=1e-6)
    hidden = np.isnan(left)
    assert hidden.mean() == 0.5
    np.testing.assert_allclose(np.asarray(left)[~hidden], np.asarray(raw)[~hidden])
    np.testing.assert_allclose(np.asarray(filled)[~hidden], np.asarray(raw)[~hidden])
    assert np.isfinite(filled).all()
    assert np.abs(np.asarray(filled - raw)[hidden]).mean() > 0.01


def test_tissue_of_one_grey_value_gives_finite_losses_and_gradients(objective, params):
    """As where a volume is padded."""
    grey = jnp.zeros((3, *CROP), jnp.uint8)
    slope = jax.value_and_grad(lambda p: loss(objective, p, {"image": grey}, keys()))
    value, gradient = jax.jit(slope)(params)
    assert jnp.isfinite(value)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
