"""The light decoder of a masked autoencoder (He et al. 2021; Cheng et al. 2023)."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from maemem.geometry import Zyx
from maemem.models.compute import Compute
from maemem.models.contract import Encoder
from maemem.models.encoders.vit import gather_positions, gather_rotation
from maemem.models.layers import Tokens, Transformer, dense
from maemem.models.patches import token_grid
from maemem.models.position import sincos_embedding


class Decoder(nn.Module):
    """Predicts the masked patches from the encoded visible ones.

    It never puts the tokens back in order: attention does not need it, and their positions travel
    with them. Only masked tokens pass through its last layer.

    Attributes:
      outputs: how many values are predicted of a patch.
      width: of its tokens.
      depth: how many blocks.
      heads: attention heads of a block.
      rotary: rotary embedding of queries and keys on top of the sin-cos embedding.
      compute: see `models.compute`.
    """

    outputs: int
    width: int
    depth: int
    heads: int
    rotary: bool = False
    compute: Compute = Compute()

    @nn.compact
    def __call__(
        self,
        latent: Tokens,
        visible: Int[Array, "b v"],
        masked: Int[Array, "b m"],
        grid_zyx: Zyx,
    ) -> Float[Array, "b m p"]:
        """Predicts the patches `masked`, float32, in units of their normalised targets."""
        mask_token = self.param("mask_token", nn.initializers.normal(0.02), (self.width,))
        seen = dense(self.width, self.compute, name="embedding")(latent)
        hidden = jnp.broadcast_to(mask_token, (*masked.shape, self.width)).astype(seen.dtype)
        tokens = jnp.concatenate([seen, hidden], axis=1)  # [b v d], [b m d] -> [b n d]
        ids = jnp.concatenate([visible, masked], axis=1)
        position = gather_positions(sincos_embedding(grid_zyx, self.width), ids)
        rotation = gather_rotation(self.rotary, grid_zyx, self.width // self.heads, ids)
        transformer = Transformer(self.depth, self.heads, self.compute, name="transformer")
        tokens = transformer(tokens + position.astype(tokens.dtype), rotation)[-1]
        tokens = tokens[:, visible.shape[1] :]  # [b n d] -> [b m d]
        return dense(self.outputs, self.compute, name="head")(tokens).astype(jnp.float32)


class MaskedAutoencoder(nn.Module):
    """An encoder of the visible patches, and a decoder of the masked ones.

    Attributes:
      encoder: one that can encode visible tokens alone, such as `Vit`.
      decoder: of patches of the encoder's shape.
    """

    encoder: Encoder
    decoder: Decoder

    def __call__(
        self,
        image: Float[Array, "b z y x c"],
        visible: Int[Array, "b v"],
        masked: Int[Array, "b m"],
    ) -> Float[Array, "b m p"]:
        """Predicts the masked patches of crops.

        Args:
          image: the crops, intensities in [−1, 1].
          visible: the tokens that the encoder sees, as places in token order.
          masked: the tokens to predict.

        Returns:
          float32 `[b m p]`, in the order of `masked`; values in the order z, y, x, c.

        Raises:
          ValueError: if the patches do not tile the crops.
        """
        grid = token_grid(image.shape[1:4], self.encoder.patch_zyx)
        latent: Any = self.encoder(image, visible)[-1].features
        return self.decoder(latent, visible, masked, grid)


def patch_values(patch_zyx: Zyx, channels: int) -> int:
    """How many values a patch has."""
    return math.prod(patch_zyx) * channels
