"""How networks are initialised."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from tests.models.networks import unetr

DEPTH = 12


def transformer(seed):
    model = unetr((1, 4, 4), (24, DEPTH, 2), (4, 8))
    draw = jax.jit(lambda key: model.init(key, jnp.zeros((1, 2, 8, 8, 1)))["params"])
    return draw(jax.random.key(seed))["encoder"]["transformer"]


def test_every_kernel_is_drawn_by_itself_as_in_mae():
    """Glorot & Bengio 2010: uniform, its width by how many values come in and go out."""
    blocks = transformer(seed=0)
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
    others = transformer(seed=1)["block_00"]
    assert not np.array_equal(others["mlp_in"]["kernel"], kernels["block_00/mlp_in/kernel"])
