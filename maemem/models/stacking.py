"""The blocks of transformers: one by one, or stacked, as `Compute.scan` has them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key, PyTree

from maemem.models.mae import MaskedAutoencoder
from maemem.models.unet import ResidualUnet
from maemem.models.unetr import Unetr


def first_parameters(
    model: MaskedAutoencoder | Unetr | ResidualUnet, key: Key[Array, ""], *inputs: Any
) -> PyTree:
    """What a network starts from, float32: the same with `Compute.scan` and without.

    Blocks are drawn in a loop and then taken apart, since a program that draws each by itself is
    several times as large, and takes as much longer to compile and to load.

    Args:
      model: to make parameters for.
      key: whatever is drawn comes from it.
      *inputs: what the model is called with.
    """
    looped = model.clone(compute=dataclasses.replace(model.compute, scan=True))
    params = looped.init(key, *inputs)["params"]
    return params if model.compute.scan else unstack_blocks(params)


def stack_blocks(params: PyTree) -> PyTree:
    """Parameters with the blocks of each transformer stacked, on the host; others as they are."""

    def stack(transformer: dict[str, Any]) -> dict[str, Any]:
        others = dict(transformer)
        names = [f"block_{i:02d}" for i in range(len(transformer))]
        rows = [others.pop(name) for name in names if name in transformer]
        if rows:
            others["blocks"] = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
        return others

    return _with_transformers(params, stack)


def unstack_blocks(params: PyTree) -> PyTree:
    """Parameters with the blocks of each transformer one by one; others as they are."""

    def unstack(transformer: dict[str, Any]) -> dict[str, Any]:
        others = dict(transformer)
        stacked = others.pop("blocks", {})
        depth = len(jax.tree.leaves(stacked)[0]) if stacked else 0
        for i in range(depth):
            others[f"block_{i:02d}"] = jax.tree.map(lambda leaf, i=i: leaf[i], stacked)
        return others

    return _with_transformers(params, unstack)


def _with_transformers(params: PyTree, change: Callable[[dict], dict]) -> PyTree:
    """Parameters of which those of each transformer are changed."""
    if not isinstance(params, dict):
        return params
    return {
        name: change(part) if name == "transformer" else _with_transformers(part, change)
        for name, part in params.items()
    }
