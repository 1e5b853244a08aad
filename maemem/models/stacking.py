"""The blocks of transformers: one by one, or stacked, as `Compute.scan` has them."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree


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


def _with_transformers(
    params: PyTree, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> PyTree:
    """Parameters of which those of each transformer are changed."""
    if not isinstance(params, dict):
        return params
    return {
        name: change(part) if name == "transformer" else _with_transformers(part, change)
        for name, part in params.items()
    }
