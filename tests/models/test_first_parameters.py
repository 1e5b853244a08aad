import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from maemem.models.first_parameters import first_parameters
from maemem.models.mae import MaskedAutoencoder
from maemem.models.segmenters.unet import ResidualUnet
from maemem.models.segmenters.unetr import Unetr

DEPTH = 12
NETWORKS = {
    "autoencoder": MaskedAutoencoder((1, 4, 4), (24, 3, 2), (24, 2, 2)),
    "unetr": Unetr((1, 4, 4), (24, DEPTH, 2), (4, 8), 3),
    "unet": ResidualUnet((1, 4, 4), (4, 8), 3),
}


def inputs(name):
    """An image; and the visible and the masked tokens, where a network asks for them."""
    image = jnp.zeros((1, 2, 8, 8, 1))
    return (
        (image, jnp.arange(2)[None], jnp.arange(2, 8)[None]) if name == "autoencoder" else (image,)
    )


@functools.cache
def drawn(name, seed=0):
    model = NETWORKS[name]
    draw = jax.jit(lambda key: first_parameters(model, key, *inputs(name)))
    return draw(jax.random.key(seed))


@pytest.mark.parametrize("name", NETWORKS)
def test_they_are_those_that_the_network_has(name):
    like = jax.eval_shape(NETWORKS[name].init, jax.random.key(0), *inputs(name))["params"]

    def described(params):
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), params)

    assert described(drawn(name)) == described(like)


def test_every_kernel_is_drawn_by_itself_as_in_mae():
    """Glorot & Bengio 2010: uniform, its width by how many values come in and go out."""
    blocks = drawn("unetr")["encoder"]["transformer"]
    kernels = {
        path: np.asarray(leaf)
        for path, leaf in traverse_util.flatten_dict(blocks, sep="/").items()
        if path.endswith("kernel")
    }
    assert len(kernels) == DEPTH * 4
    assert len({kernel.flat[0] for kernel in kernels.values()}) == len(kernels)
    for path, kernel in kernels.items():
        width = np.sqrt(6 / sum(kernel.shape))
        assert np.abs(kernel).max() == pytest.approx(width, rel=0.05), path
        assert np.abs(kernel).mean() == pytest.approx(width / 2, rel=0.1), path
    others = drawn("unetr", seed=1)["encoder"]["transformer"]["block_00"]
    assert not np.array_equal(others["mlp_in"]["kernel"], kernels["block_00/mlp_in/kernel"])
