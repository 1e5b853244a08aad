"""The masked autoencoder: a ViT encoder and a light decoder (He et al. 2021; Cheng et al. 2023)."""

import math

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from maemem.geometry import Zyx
from maemem.models.encoders.vit import Encoder, rotation_at, rows_at
from maemem.models.layers import Compute, Tokens, Transformer, dense
from maemem.models.patches import token_grid
from maemem.models.position import sincos_embedding


class Decoder(nn.Module):
    """Predicts the masked patches from the encoded visible ones.

    It never puts the tokens back in their order: attention does not care, and their places travel
    with them. Only masked tokens pass through its last layer.

    Attributes:
      patch_values: voxels × channels of a patch.
      width: of its tokens.
      depth: how many blocks.
      heads: attention heads of a block.
      rotary: turn queries and keys by their place, on top of the sin-cos embedding.
      compute: see `layers.Compute`.
    """

    patch_values: int
    width: int
    depth: int
    heads: int
    rotary: bool = False
    compute: Compute = Compute()

    @nn.compact
    def __call__(
        self,
        latent: Tokens,
        visible_ids: Int[Array, "b visible"],
        masked_ids: Int[Array, "b masked"],
        grid_zyx: Zyx,
    ) -> Float[Array, "b masked p"]:
        """Predicts the patches `masked_ids`, float32, in units of their normalised targets."""
        mask_token = self.param("mask_token", nn.initializers.normal(0.02), (self.width,))
        seen = dense(self.width, self.compute, name="embedding")(latent)
        hidden = jnp.broadcast_to(mask_token, (*masked_ids.shape, self.width)).astype(seen.dtype)
        tokens = jnp.concatenate([seen, hidden], axis=1)
        ids = jnp.concatenate([visible_ids, masked_ids], axis=1)
        tokens = tokens + rows_at(sincos_embedding(grid_zyx, self.width), ids).astype(tokens.dtype)
        rotation = rotation_at(self.rotary, grid_zyx, self.width // self.heads, ids)
        transformer = Transformer(self.depth, self.heads, self.compute, name="transformer")
        tokens = transformer(tokens, rotation)[-1][:, visible_ids.shape[1] :]
        return dense(self.patch_values, self.compute, name="head")(tokens).astype(jnp.float32)


class MaskedAutoencoder(nn.Module):
    """Encoder and decoder as one; `encode` alone is what a segmenter reuses.

    Attributes:
      patch_zyx: shape of a patch, in voxels.
      encoder_size: width, depth and heads of the encoder.
      decoder_size: width, depth and heads of the decoder.
      channels: of the image.
      rotary: turn queries and keys by their place, on top of the sin-cos embedding.
      compute: see `layers.Compute`.
      plane_yx: of the encoder, see `encoder.Encoder`.
    """

    patch_zyx: Zyx
    encoder_size: tuple[int, int, int]
    decoder_size: tuple[int, int, int] = (512, 4, 16)
    channels: int = 1
    rotary: bool = False
    compute: Compute = Compute()
    plane_yx: tuple[int, int] | None = None

    def setup(self):
        self.encoder = Encoder(
            self.patch_zyx, *self.encoder_size, self.rotary, self.compute, self.plane_yx
        )
        values = math.prod(self.patch_zyx) * self.channels
        self.decoder = Decoder(values, *self.decoder_size, self.rotary, self.compute)

    def encode(
        self, image: Float[Array, "b z y x c"], visible_ids: Int[Array, "b visible"] | None = None
    ) -> Tokens:
        """The last state of `Encoder.__call__`."""
        return self.encoder(image, visible_ids)[-1]

    def decode(
        self,
        latent: Tokens,
        visible_ids: Int[Array, "b visible"],
        masked_ids: Int[Array, "b masked"],
        grid_zyx: Zyx,
    ) -> Float[Array, "b masked p"]:
        """See `Decoder.__call__`."""
        return self.decoder(latent, visible_ids, masked_ids, grid_zyx)

    def __call__(
        self,
        image: Float[Array, "b z y x c"],
        visible_ids: Int[Array, "b visible"],
        masked_ids: Int[Array, "b masked"],
    ) -> Float[Array, "b masked p"]:
        """Predicts the masked patches of crops.

        Args:
          image: the crops, intensities in [−1, 1].
          visible_ids: the tokens that the encoder sees, as places in token order.
          masked_ids: the tokens to predict.

        Returns:
          float32 `[b masked p]`, in the order of `masked_ids`; values in the order z, y, x, c.

        Raises:
          ValueError: if the patches do not tile the crops.
        """
        grid = token_grid(image.shape[1:4], self.patch_zyx)
        return self.decode(self.encode(image, visible_ids), visible_ids, masked_ids, grid)
