import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from maemem.models.compute import Compute
from maemem.models.convolution import ConvolutionBlock, Upsampling, convolve, strides_of
from tests.models.parameters import random_variables


def normal(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("form", ["xla", "folded"])
@pytest.mark.parametrize("offset", [(-1, 0, 1), (1, 1, 0), (0, 0, 0), (0, -1, -1)])
@pytest.mark.parametrize("shape", [(4, 3, 2), (3, 2, 5)])
def test_one_weight_shifts_the_volume(form, offset, shape):
    volume = normal(2, *shape, 2)
    kernel = np.zeros((3, 3, 3, 2, 1), np.float32)
    kernel[(*np.add(offset, 1), 1, 0)] = 2.0
    around = np.pad(volume, ((0, 0), (1, 1), (1, 1), (1, 1), (0, 0)))
    box = tuple(slice(1 + o, 1 + o + n) for o, n in zip(offset, shape, strict=True))
    shifted = 2 * around[(slice(None), *box, slice(1, 2))]
    np.testing.assert_array_equal(convolve(volume, jnp.asarray(kernel), form), shifted)


# A kernel's gradient is computed of a few sections at a time, from the side with fewer channels.
@settings(max_examples=15, deadline=None)  # Every shape is compiled anew.
@example(2, (3, 2), 32, 40)
@example(11, (2, 3), 40, 32)
@example(20, (1, 2), 3, 16)
@example(2, (2, 3), 8, 3)
@given(
    st.integers(1, 12),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.sampled_from([1, 3, 8, 33]),
    st.sampled_from([1, 7, 16, 34]),
)
def test_folding_changes_neither_result_nor_gradients(z, yx, channels, features):
    volume = normal(2, z, *yx, channels)
    kernel = normal(3, 3, 3, channels, features)
    cotangent = normal(2, z, *yx, features)

    @jax.jit
    def both(*operands):
        results = []
        for form in ("folded", "xla"):
            out, pull = jax.vjp(lambda v, k, form=form: convolve(v, k, form), *operands)
            results.append((out, *pull(cotangent)))
        return results

    for folded, plain in zip(*both(volume, kernel), strict=True):
        np.testing.assert_allclose(folded, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("channels", "features"), [(8, 4), (4, 8), (40, 40)])
def test_folding_keeps_bfloat16(channels, features):
    # Of small whole numbers, so that nothing is rounded.
    draw = np.random.default_rng(0)
    volume = jnp.asarray(draw.integers(-1, 2, (1, 3, 4, 5, channels)), jnp.bfloat16)
    kernel = jnp.asarray(draw.integers(0, 2, (3, 3, 3, channels, features)), jnp.bfloat16)
    kernel = jnp.where(draw.random(kernel.shape) < 0.1, kernel, 0)
    folded, plain = (convolve(volume, kernel, form) for form in ("folded", "xla"))
    assert folded.dtype == jnp.bfloat16
    np.testing.assert_array_equal(folded.astype(jnp.float32), plain.astype(jnp.float32))


def test_a_block_says_of_a_crop_what_it_says_of_it_alone():
    volume = normal(3, 2, 4, 4, 5) * jnp.arange(1, 4).reshape(3, 1, 1, 1, 1)
    block = ConvolutionBlock(16, Compute())
    variables = random_variables(block, volume)
    alone = [block.apply(variables, volume[i : i + 1])[0] for i in range(3)]
    np.testing.assert_allclose(block.apply(variables, volume), np.stack(alone), atol=1e-5)


def test_a_block_is_blind_to_contrast():
    volume = normal(1, 2, 4, 4, 3)
    block = ConvolutionBlock(8, Compute())
    variables = random_variables(block, volume)
    once, tenfold = (block.apply(variables, volume * factor) for factor in (1, 10))
    np.testing.assert_allclose(once, tenfold, atol=1e-3)
    assert once.min() == 0
    assert once.max() > 1


@pytest.mark.parametrize(("features", "groups"), [(64, 8), (8, 1), (4, 1), (20, 2), (25, 1)])
def test_norms_take_about_eight_channels_together(features, groups):
    volume = normal(1, 4, 4, 4, 3)
    block = ConvolutionBlock(features, Compute())
    params = random_variables(block, volume)["params"]
    # Moved up, so that the ReLU lets all through, a group's channels have unit variance together.
    params["norm"] = {"scale": jnp.ones(features), "bias": jnp.full(features, 10.0)}
    out = np.asarray(block.apply({"params": params}, volume)).reshape(64, groups, -1)
    np.testing.assert_allclose(out.std((0, 2)), 1, atol=1e-3)
    assert np.ptp(out.std(0)) > 1e-2


def test_upsampling_makes_a_box_of_each_voxel():
    volume = normal(2, 2, 3, 2, 5)
    module = Upsampling(4, (1, 2, 2), Compute())
    variables = random_variables(module, volume)
    out = module.apply(variables, volume)
    assert out.shape == (2, 2, 6, 4, 4)
    kernel = variables["params"]["boxes"]["kernel"].reshape(5, 1, 2, 2, 4)
    box = np.einsum("c,czyxo->zyxo", volume[1, 1, 2, 0], kernel)
    np.testing.assert_allclose(out[1, 1:2, 4:6, 0:2], box, atol=1e-5)


@pytest.mark.parametrize(
    ("patch", "strides"),
    [
        ((1, 16, 16), ((1, 2, 2),) * 4),
        ((8, 8, 8), ((2, 2, 2),) * 3),
        ((2, 8, 8), ((1, 2, 2), (1, 2, 2), (2, 2, 2))),
        ((4, 2, 1), ((2, 1, 1), (2, 2, 1))),
    ],
)
def test_strides(patch, strides):
    assert strides_of(patch, (8,) * len(strides)) == strides


@pytest.mark.parametrize("patch", [(1, 12, 12), (1, 1, 1), (0, 2, 2)])
def test_patches_that_no_doubling_reaches_are_refused(patch):
    with pytest.raises(ValueError, match=r"cannot be reached by doubling; expected powers of two"):
        strides_of(patch, (8,))


def test_levels_without_channels_are_refused():
    with pytest.raises(ValueError, match=r"3 channels \(8, 16, 32\) for patch 1x16x16.* give 4"):
        strides_of((1, 16, 16), (8, 16, 32))
