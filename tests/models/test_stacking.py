import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from maemem.models.stacking import first_parameters, stack_blocks, unstack_blocks
from maemem.models.unet import ResidualUnet
from maemem.models.unetr import Unetr
from tests.models.parameters import random_variables
from tests.models.test_mae import inputs
from tests.models.test_mae import small as autoencoder

DEPTH = 12
IMAGE = jnp.zeros((1, 2, 8, 8, 1))
NETWORKS = {
    "autoencoder": (autoencoder(), inputs(batch=1)),
    "unetr": (Unetr((1, 4, 4), (24, DEPTH, 2), (4, 8), 3), (IMAGE,)),
    "unet": (ResidualUnet((1, 4, 4), (4, 8), 3), (IMAGE,)),
}


def drawn(model, arguments, seed=0):
    return jax.jit(lambda key: first_parameters(model, key, *arguments))(jax.random.key(seed))


@pytest.mark.parametrize("name", NETWORKS)
def test_first_parameters_are_those_that_the_network_has(name):
    model, arguments = NETWORKS[name]
    found = drawn(model, arguments)
    expected = jax.eval_shape(model.init, jax.random.key(0), *arguments)["params"]
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), found) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), expected
    )
    model.apply({"params": found}, *arguments)


@pytest.mark.parametrize("name", ["autoencoder", "unetr"])
def test_scan_changes_no_first_parameter_but_how_it_lies(name):
    model, arguments = NETWORKS[name]
    scanned = model.clone(compute=dataclasses.replace(model.compute, scan=True))
    plain, stacked = drawn(model, arguments), drawn(scanned, arguments)
    jax.tree.map(np.testing.assert_array_equal, stack_blocks(plain), stacked)
    jax.tree.map(np.testing.assert_array_equal, unstack_blocks(stacked), plain)


def test_every_kernel_is_drawn_by_itself_as_in_mae():
    """Glorot & Bengio 2010: uniform, its width by how many values come in and go out."""
    model, arguments = NETWORKS["unetr"]
    blocks = drawn(model, arguments)["encoder"]["transformer"]
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
    others = drawn(model, arguments, seed=1)["encoder"]["transformer"]["block_00"]
    assert not np.array_equal(others["mlp_in"]["kernel"], kernels["block_00/mlp_in/kernel"])


def test_blocks_keep_their_order_and_what_is_arranged_stays():
    model, arguments = NETWORKS["unetr"]
    params = random_variables(model, *arguments)["params"]
    stacked = stack_blocks(params)
    row = stacked["encoder"]["transformer"]["blocks"]["mlp_in"]["kernel"]
    for i in range(DEPTH):
        one = params["encoder"]["transformer"][f"block_{i:02d}"]["mlp_in"]["kernel"]
        np.testing.assert_array_equal(row[i], one)
    for arrange, arranged in ((stack_blocks, stacked), (unstack_blocks, params)):
        jax.tree.map(np.testing.assert_array_equal, arrange(arranged), arranged)
