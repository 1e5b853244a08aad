import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maemem.models.patches import patchify, token_grid, unpatchify

small = st.tuples(*[st.integers(1, 4)] * 3)


@settings(deadline=None, max_examples=25)  # Every shape is compiled anew.
@given(small, small, st.integers(1, 2))
def test_unpatchify_undoes_patchify(grid, patch, channels):
    shape = tuple(g * p for g, p in zip(grid, patch, strict=True))
    image = jnp.arange(2 * np.prod(shape) * channels).reshape(2, *shape, channels)
    np.testing.assert_array_equal(unpatchify(patchify(image, patch), grid, patch), image)


@settings(deadline=None, max_examples=25)
@given(small, small)
def test_token_order_is_z_then_y_then_x(grid, patch):
    shape = tuple(g * p for g, p in zip(grid, patch, strict=True))
    places = np.indices(grid).reshape(3, -1).T
    for axis in range(3):
        image = np.broadcast_to(np.indices(shape)[axis] // patch[axis], (1, *shape))
        patches = patchify(jnp.asarray(image[..., None]), patch)
        np.testing.assert_array_equal(patches[0], places[:, axis, None] + 0 * patches[0])


def test_values_of_a_patch_run_z_y_x():
    image = jnp.arange(2 * 4 * 4).reshape(1, 2, 4, 4, 1)
    first = patchify(image, (2, 2, 2))[0, 0]
    np.testing.assert_array_equal(first, [0, 1, 4, 5, 16, 17, 20, 21])


def test_a_crop_that_patches_do_not_tile_is_refused():
    message = "crop 6x100x96 is not divisible by patch 1x16x16 along y; nearest: 96 or 112"
    with pytest.raises(ValueError, match=message):
        token_grid((6, 100, 96), (1, 16, 16))
