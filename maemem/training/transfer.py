"""Starts one network from parameters of another."""

from __future__ import annotations

import logging
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from jaxtyping import PyTree

log = logging.getLogger(__name__)

_SHOWN = 6


def transfer(params: PyTree, source: PyTree, origin: str) -> PyTree:
    """Parameters of which those in `source` are taken from there; all others stay as they are.

    The encoder is taken as a whole. Position embeddings are no parameters: they follow the crop's
    size by themselves. What matched and what is new is logged.

    Args:
      params: of the network to start, placed on its devices.
      source: parameters by the same names: what a learner transfers.
      origin: what `source` is called in messages.

    Raises:
      ValueError: if nothing matches, the network lacks some or has others of the encoder, or shapes
        differ.
    """
    wanted: dict[str, Any] = traverse_util.flatten_dict(params, sep="/")
    given: dict[str, Any] = traverse_util.flatten_dict(source, sep="/")
    matched = [name for name in wanted if name in given]
    missing = [n for n in wanted if n.startswith("encoder/") and n not in given]
    unused = [name for name in given if name not in wanted]
    if not matched:
        raise ValueError(
            f"no parameter of {origin} matches: it has {_some(list(given))}; the network needs "
            f"{_some(list(wanted))}"
        )
    if missing or unused:
        raise ValueError(
            f"the network of {origin} is another one: it lacks {_some(missing)} and has "
            f"{_some(unused)} beyond; give model the sizes that it was pre-trained with"
        )
    differing = [
        f"{name}: {given[name].shape} there, {wanted[name].shape} here"
        for name in matched
        if given[name].shape != wanted[name].shape
    ]
    if differing:
        raise ValueError(
            f"the network of {origin} has other shapes; give model as it was pre-trained with:\n  "
            + "\n  ".join(differing[:_SHOWN])
        )
    parts = sorted({name.split("/")[0] for name in matched})
    log.info("from %s: %d parameters matched, of %s", origin, len(matched), ", ".join(parts))
    new = sorted({name.split("/")[0] for name in wanted if name not in given})
    log.info("new: %s", _some(new))
    return traverse_util.unflatten_dict(
        wanted | {name: _like(wanted[name], given[name]) for name in matched}, sep="/"
    )


def _like(old: jax.Array, new: np.ndarray) -> jax.Array:
    """New values where the old ones lie."""
    values = np.asarray(new, old.dtype)
    return jax.make_array_from_callback(old.shape, old.sharding, lambda index: values[index])


def _some(names: list[str]) -> str:
    """A few of the names."""
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(names[:_SHOWN]) or "nothing") + rest
