"""What networks start from."""

import dataclasses
from typing import Any

from jaxtyping import Array, Key, PyTree

from maemem.models.mae import MaskedAutoencoder
from maemem.models.segmenters.unet import ResidualUnet
from maemem.models.segmenters.unetr import Unetr
from maemem.models.stacking import unstack_blocks


def first_parameters(
    model: MaskedAutoencoder | Unetr | ResidualUnet, key: Key[Array, ""], *inputs: Any
) -> PyTree:
    """What a network starts from, float32: the same with `Compute.scan` and without.

    Blocks are drawn in a loop and then taken apart: a program with a piece for each parameter is
    larger, and takes longer to load. Meanwhile blocks are held twice, which is less than a step of
    training takes.

    Args:
      model: to make parameters for.
      key: whatever is drawn comes from it.
      *inputs: what the model is called with.
    """
    looped = model.clone(compute=dataclasses.replace(model.compute, scan=True))
    params = looped.init(key, *inputs)["params"]
    return params if model.compute.scan else unstack_blocks(params)
