"""The vision transformer that sees the visible patches only."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from maemem.geometry import Zyx
from maemem.models.layers import Compute, Rotation, Tokens, Transformer, dense
from maemem.models.patches import patchify, token_grid
from maemem.models.position import rotary_angles, sincos_embedding


def rows_at(table: np.ndarray, ids: Int[Array, "b n"] | None) -> Float[Array, "#b n width"]:
    """The rows of a table `[tokens width]` that belong to the tokens `ids` (all, if None)."""
    return jnp.asarray(table)[None] if ids is None else jnp.asarray(table)[ids]


def rotation_at(
    rotary: bool, grid_zyx: Zyx, head_width: int, ids: Int[Array, "b n"] | None
) -> Rotation | None:
    """How the tokens `ids` turn queries and keys, or None where a network uses sin-cos alone."""
    if not rotary:
        return None
    angles = rotary_angles(grid_zyx, head_width)
    return rows_at(np.cos(angles), ids), rows_at(np.sin(angles), ids)


class Plane(nn.Module):
    """Where tokens are as a 2-D vision transformer knows it, with its class token.

    A table of places in plane is resampled to the tokens' grid, and is the same in all sections.
    How deep a token is, sin-cos along z, is added times a gain that is learnt from 0 on: a network
    that starts from 2-D weights (see `inflation`) does at first with a section what they did.

    Attributes:
      grid_yx: how many places the table has along y and x.
    """

    grid_yx: tuple[int, int]

    @nn.compact
    def __call__(
        self, tokens: Tokens, grid_zyx: Zyx, ids: Int[Array, "b n"] | None
    ) -> Float[Array, "b n_and_1 d"]:
        """The tokens `ids` (all, if None) with their places, behind the class token."""
        b, _, width = tokens.shape
        table = self.param("table", nn.initializers.normal(0.02), (*self.grid_yx, width))
        gain = self.param("depth_gain", nn.initializers.zeros, (width,))
        first = self.param("class_token", nn.initializers.normal(0.02), (width,))
        if self.grid_yx != tuple(grid_zyx[1:]):
            table = jax.image.resize(table, (*grid_zyx[1:], width), "cubic")
        depth = gain * sincos_embedding(grid_zyx[:1], width)
        places = (depth[:, None, None] + table).reshape(-1, width)
        places = places[None] if ids is None else places[ids]
        first = jnp.broadcast_to(first, (b, 1, width)).astype(tokens.dtype)
        return jnp.concatenate([first, tokens + places.astype(tokens.dtype)], axis=1)


class Encoder(nn.Module):
    """A plain 3-D ViT, without class token but where it starts from a 2-D one.

    Attributes:
      patch_zyx: shape of a patch, in voxels.
      width: of its tokens.
      depth: how many blocks.
      heads: attention heads of a block.
      rotary: turn queries and keys by their place, on top of the sin-cos embedding.
      compute: see `layers.Compute`.
      plane_yx: the grid of `Plane`, which then takes the place of the sin-cos embedding, and does
        not go with `rotary`; None: there is none.
    """

    patch_zyx: Zyx
    width: int
    depth: int
    heads: int
    rotary: bool = False
    compute: Compute = Compute()
    plane_yx: tuple[int, int] | None = None

    @nn.compact
    def __call__(
        self, image: Float[Array, "b z y x c"], visible_ids: Int[Array, "b visible"] | None = None
    ) -> list[Tokens]:
        """Encodes crops of any size that the patches tile.

        Args:
          image: the crops, intensities in [−1, 1].
          visible_ids: the tokens to encode, as places in token order; all, if None.

        Returns:
          `[b n width]` after each block, in the order of `visible_ids`; the last of them normed.

        Raises:
          ValueError: if the patches do not tile the crops.
        """
        grid = token_grid(image.shape[1:4], self.patch_zyx)
        patches = patchify(image, self.patch_zyx)
        if visible_ids is not None:
            patches = jnp.take_along_axis(patches, visible_ids[:, :, None], axis=1)
        tokens = dense(self.width, self.compute, name="patch_embedding")(patches)
        transformer = Transformer(self.depth, self.heads, self.compute, name="transformer")
        if self.plane_yx is not None:
            tokens = Plane(self.plane_yx, name="plane")(tokens, grid, visible_ids)
            return [state[:, 1:] for state in transformer(tokens)]
        place = rows_at(sincos_embedding(grid, self.width), visible_ids)
        tokens = tokens + place.astype(tokens.dtype)
        rotation = rotation_at(self.rotary, grid, self.width // self.heads, visible_ids)
        return transformer(tokens, rotation)
