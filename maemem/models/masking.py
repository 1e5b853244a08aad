"""Which tokens of a crop the encoder sees."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from maemem.geometry import Zyx, format_zyx

# What is kept or masked as one: a token, a column of tokens through all sections, or a section.
_UNITS = {
    "random": lambda grid: grid,
    "space": lambda grid: (1, grid[1], grid[2]),
    "section": lambda grid: (grid[0], 1, 1),
}


def visible_count(grid_zyx: Zyx, strategy: str, ratio: float) -> int:
    """How many tokens stay visible: int(units × (1 − ratio)) whole units (He et al. 2021).

    Args:
      grid_zyx: how many tokens the crop has along z, y and x.
      strategy: `random` masks single tokens, `space` the same in-plane places in every section,
        `section` whole sections (Cheng et al. 2023).
      ratio: the share of units to mask.

    Raises:
      ValueError: for an unknown strategy, or a ratio that leaves nothing visible or nothing masked.
    """
    if strategy not in _UNITS:
        raise ValueError(f"masking strategy {strategy!r} is unknown; choose one of {list(_UNITS)}")
    units = math.prod(_UNITS[strategy](grid_zyx))
    # 1 - 0.9 is a little less than 0.1 in floating point; that must not cost a unit.
    kept = int(units * (1 - ratio) + 1e-6)
    if not 0 < kept < units:
        raise ValueError(
            f"masking ratio {ratio} with strategy {strategy!r} keeps {kept} of the {units} units "
            f"of a {format_zyx(grid_zyx)} token grid; at least 1 must stay visible and 1 be "
            f"masked: choose a ratio from {1 / units:.3g} to {1 - 1 / units:.3g}"
        )
    return kept * math.prod(grid_zyx) // units


def mask_tokens(
    key: Key[Array, ""], grid_zyx: Zyx, strategy: str, ratio: float
) -> tuple[Int[Array, " visible"], Int[Array, " masked"]]:
    """Draws one crop's mask, without replacement and blind to what the crop shows.

    Args:
      key: the crop's own random key.
      grid_zyx: how many tokens the crop has along z, y and x.
      strategy: see `visible_count`.
      ratio: the share of units to mask.

    Returns:
      The ids (places in token order) of the visible and of the masked tokens, units in random
      order.

    Raises:
      ValueError: as `visible_count`.
    """
    visible = visible_count(grid_zyx, strategy, ratio)
    units = _UNITS[strategy](grid_zyx)
    rank = jax.random.permutation(key, math.prod(units)).reshape(units)
    order = jnp.argsort(jnp.broadcast_to(rank, grid_zyx).ravel())
    return order[:visible], order[visible:]
