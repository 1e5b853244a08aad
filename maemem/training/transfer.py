"""Starts the encoder of one network from that of another."""

from __future__ import annotations

import logging
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from jaxtyping import PyTree

log = logging.getLogger(__name__)

_SHOWN = 6


def transfer_encoder(params: PyTree, source: PyTree, origin: str) -> PyTree:
    """Parameters whose encoder is that of `source`; all others stay as they are.

    Position embeddings are no parameters: they follow the crop's size by themselves. What matched,
    what the source lacks and what is not of the encoder is logged.

    Args:
      params: of the network to start, placed on its devices.
      source: of a pre-trained network, `{"encoder": …}`; other parts of it are ignored.
      origin: what `source` is called in messages.

    Raises:
      ValueError: if nothing matches, or something of the encoder is missing or of another shape.
    """
    wanted: dict[str, Any] = traverse_util.flatten_dict(params, sep="/")
    given: dict[str, Any] = traverse_util.flatten_dict(source, sep="/")
    encoder = [name for name in wanted if name.startswith("encoder/")]
    matched = [name for name in encoder if name in given]
    missing = [name for name in encoder if name not in given]
    unused = [n for n in given if n.startswith("encoder/") and n not in wanted]
    new = [name for name in wanted if name not in encoder]
    if not matched:
        raise ValueError(
            f"no parameter of the encoder matches {origin}, which has {_some(list(given))}; the "
            f"network needs {_some(encoder)}"
        )
    if missing or unused:
        raise ValueError(
            f"the encoder of {origin} is another one: it lacks {_some(missing)} and has "
            f"{_some(unused)} beyond; give model.encoder the size that it was pre-trained with"
        )
    differing = [
        f"{name}: {given[name].shape} there, {wanted[name].shape} here"
        for name in matched
        if given[name].shape != wanted[name].shape
    ]
    if differing:
        raise ValueError(
            f"the encoder of {origin} has other shapes; give model.encoder, model.patch_zyx and "
            f"model.plane_yx as it was pre-trained with:\n  " + "\n  ".join(differing[:_SHOWN])
        )
    log.info("from %s: %d parameters of the encoder matched, none missing", origin, len(matched))
    log.info("new: %s", _some(sorted({"/".join(name.split("/")[:1]) for name in new})))
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
