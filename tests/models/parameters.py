"""Parameters for tests, drawn by numpy: compiling a network's own draws takes far longer."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, PyTree


def random_variables(model: nn.Module, image: Float[Array, "b z y x c"]) -> PyTree:
    """Variables of a network, as large as at its start; scales and biases are moved off 1 and 0."""
    draw = np.random.default_rng(0)

    def leaf(path: tuple, like: jax.ShapeDtypeStruct) -> jax.Array:
        noise = jnp.asarray(draw.normal(size=like.shape), jnp.float32)
        if path[-1].key == "kernel":
            return noise * (like.shape[-1] / like.size) ** 0.5
        return (path[-1].key == "scale") + 0.1 * noise

    return jax.tree_util.tree_map_with_path(
        leaf, jax.eval_shape(model.init, jax.random.key(0), image)
    )
