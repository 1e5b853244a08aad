"""Where a token is: 3-D sin-cos embeddings, and rotations of queries and keys."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from maemem.geometry import Zyx

# Grids have a few dozen tokens an axis, so the slowest rotation spans about a hundred of them.
_ROTARY_BASE = 100.0


def _places(grid: Sequence[int]) -> np.ndarray:
    """Where every token is along each axis, in tokens, in token order: `[axes n]`."""
    return np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij")).reshape(len(grid), -1)


def sincos_embedding(grid: Sequence[int], width: int) -> np.ndarray:
    """Fixed sin-cos position embedding (Vaswani et al. 2017), an equal share of the width an axis.

    Args:
      grid: how many tokens there are along each axis, such as z, y and x.
      width: the tokens' width; what equal even shares leave over (512 = 3 × 170 + 2) is 0.

    Returns:
      float32 `[n width]`, in token order; the shares run as the axes do, each its sines, then its
      cosines.
    """
    waves = width // (2 * len(grid))
    frequencies = 1.0 / 10_000 ** (np.arange(waves) / waves)
    angles = _places(grid)[:, :, None] * frequencies
    shares = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
    embedding = np.concatenate(list(shares), axis=-1)
    return np.pad(embedding, ((0, 0), (0, width - embedding.shape[1]))).astype(np.float32)


def rotary_angles(grid_zyx: Zyx, head_width: int) -> np.ndarray:
    """Angles of the 3-D rotary embedding (Su et al. 2021), an equal share of the pairs an axis.

    Args:
      grid_zyx: how many tokens there are along z, y and x.
      head_width: width of one attention head; pairs left over by three equal shares stay unturned.

    Returns:
      float32 `[n head_width/2]`, in radians, in token order.
    """
    pairs = head_width // 2
    share = pairs // 3
    frequencies = 1.0 / _ROTARY_BASE ** (np.arange(share) / max(share, 1))
    angles = np.concatenate(list(_places(grid_zyx)[:, :, None] * frequencies), axis=-1)
    return np.pad(angles, ((0, 0), (0, pairs - angles.shape[1]))).astype(np.float32)


def rotate(
    heads: Float[Array, "b n h d"],
    cos: Float[Array, "#b n half_d"],
    sin: Float[Array, "#b n half_d"],
) -> Float[Array, "b n h d"]:
    """Turns the pairs (i, i + d/2) of every head by their token's angles.

    After it the product of a query and a key depends on where they are relative to each other only.

    Args:
      heads: queries or keys.
      cos: of the angles of `rotary_angles`.
      sin: of the same.
    """
    cos, sin = cos[:, :, None], sin[:, :, None]
    first, second = jnp.split(heads.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(heads.dtype)
