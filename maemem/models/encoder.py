"""The vision transformer that sees the visible patches only."""

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


class Encoder(nn.Module):
    """A plain 3-D ViT without class token.

    Attributes:
      patch_zyx: shape of a patch, in voxels.
      width: of its tokens.
      depth: how many blocks.
      heads: attention heads of a block.
      rotary: turn queries and keys by their place, on top of the sin-cos embedding.
      compute: see `layers.Compute`.
    """

    patch_zyx: Zyx
    width: int
    depth: int
    heads: int
    rotary: bool = False
    compute: Compute = Compute()

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
        place = rows_at(sincos_embedding(grid, self.width), visible_ids)
        tokens = tokens + place.astype(tokens.dtype)
        rotation = rotation_at(self.rotary, grid, self.width // self.heads, visible_ids)
        transformer = Transformer(self.depth, self.heads, self.compute, name="transformer")
        return transformer(tokens, rotation)
