import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maemem.models.compute import Compute
from tests.models.networks import unet
from tests.models.parameters import random_variables

CROP, PATCH = (2, 8, 8), (1, 4, 4)


def small(**options):
    return unet(PATCH, (4, 8), **options)


def image_of(crop_zyx=CROP, batch=2):
    return jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (batch, *crop_zyx, 1)), jnp.float32)


@pytest.mark.parametrize(
    ("patch", "channels", "crop"),
    [
        ((1, 16, 16), (4, 8, 8, 16), (3, 32, 48)),
        ((8, 8, 8), (4, 8, 16), (16, 8, 24)),
        ((2, 8, 8), (4, 8, 16), (4, 16, 24)),
    ],
)
def test_logits_are_as_large_as_the_crop(patch, channels, crop):
    model = unet(patch, channels)
    variables = jax.eval_shape(model.init, jax.random.key(0), image_of(patch))
    logits = jax.eval_shape(model.apply, variables, image_of(crop))
    assert (logits.shape, logits.dtype) == ((2, *crop, 3), jnp.float32)


def test_parameters_by_hand():
    params = jax.eval_shape(small().init, jax.random.key(0), image_of())["params"]
    blocks = [(1, 4), (4, 8), (8, 16), (8, 8), (4, 4)]  # Down, down, bottom, up, up.
    expected = sum(27 * c * o + 2 * 27 * o * o + 3 * 2 * o for c, o in blocks)
    expected += 16 * 4 * 8 + 8 * 4 * 4  # Up-samplings, four voxels from one.
    expected += 4 * 3 + 3
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == expected


def test_every_parameter_matters_and_folding_changes_nothing():
    plain, folded, image = small(), small(compute=Compute(convolution="folded")), image_of()
    variables = random_variables(plain, image)

    def run(model):
        def energy(variables):
            return jnp.sin(model.apply(variables, image)).sum()

        return jax.tree.leaves(jax.jit(jax.value_and_grad(energy))(variables))

    expected = run(plain)
    assert all(jnp.abs(leaf).max() > 0 for leaf in expected)
    for ours, leaf in zip(run(folded), expected, strict=True):
        np.testing.assert_allclose(ours, leaf, rtol=1e-3, atol=1e-3)


def test_a_crop_is_segmented_as_if_alone():
    model, image = small(), image_of() * jnp.asarray([1.0, 0.1]).reshape(2, 1, 1, 1, 1)
    variables = random_variables(model, image)
    alone = [model.apply(variables, image[i : i + 1])[0] for i in range(2)]
    np.testing.assert_allclose(model.apply(variables, image), np.stack(alone), atol=1e-4)


def test_bfloat16_gives_float32_logits():
    model, image = small(compute=Compute(jnp.bfloat16)), image_of()
    variables = random_variables(model, image)
    assert model.apply(variables, image).dtype == jnp.float32


def test_a_crop_that_does_not_halve_is_refused():
    message = "crop 2x8x10 is not divisible by patch 1x4x4 along x; nearest: 8 or 12"
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(small().init, jax.random.key(0), image_of((2, 8, 10)))
