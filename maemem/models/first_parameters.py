"""What networks start from."""

from typing import Any

from flax import linen as nn
from jaxtyping import Array, Key, PyTree


def first_parameters(model: nn.Module, key: Key[Array, ""], *inputs: Any) -> PyTree:
    """The first parameters of a network, float32.

    Args:
      model: to make parameters for.
      key: all that is drawn comes from it.
      *inputs: what the model is called with.
    """
    return model.init(key, *inputs)["params"]
