"""UNETR: the pre-trained encoder, and a convolutional decoder that segments.

After Hatamizadeh et al. (2022), as Cheng et al. (2023) fit it to thin patches: it is up-sampled
along those axes only along which a patch is longer than a voxel.
"""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Float32

from maemem.geometry import Zyx
from maemem.models.convolution import ConvolutionBlock, Upsampling, strides_of
from maemem.models.encoders.vit import Encoder
from maemem.models.layers import Compute
from maemem.models.patches import token_grid


def skips(depth: int, levels: int) -> list[tuple[int, int]]:
    """Which states of the encoder the decoder sees besides the last: those at 1/4, 1/2 and 3/4.

    Args:
      depth: how many blocks the encoder has.
      levels: how many the decoder has, 0 the finest.

    Returns:
      For each its block, counted from 1, and the level that it joins: the deeper, the coarser. It
      is never the finest, which is the image's own; so a decoder of one level takes none.
    """
    return [(max(1, round(depth * k / 4)), max(1, levels - (4 - k))) for k in (1, 2, 3)]


class Climb(nn.Module):
    """Brings tokens to a finer level: an up-sampling and a convolution for each level between.

    Attributes:
      channels: of the levels on the way, coarsest first.
      strides_zyx: of the up-samplings to them.
      compute: see `layers.Compute`.
    """

    channels: tuple[int, ...]
    strides_zyx: tuple[Zyx, ...]
    compute: Compute

    @nn.compact
    def __call__(
        self, volume: Float[Array, "b z y x c"]
    ) -> Float[Array, "b fine_z fine_y fine_x o"]:
        """Tokens as a volume, to a finer volume of as many channels as the last level has."""
        for i, (channels, stride) in enumerate(zip(self.channels, self.strides_zyx, strict=True)):
            volume = Upsampling(channels, stride, self.compute, name=f"up_{i}")(volume)
            volume = ConvolutionBlock(channels, self.compute, name=f"block_{i}")(volume)
        return volume


class Unetr(nn.Module):
    """Encoder and decoder; the parameters of its `encoder` are those of `MaskedAutoencoder`'s.

    Attributes:
      patch_zyx: shape of a patch, in voxels; powers of two.
      encoder_size: width, depth and heads of the encoder.
      channels: of the levels, from full resolution to half of the tokens'; for patches 1 × 16 × 16,
        Cheng et al. (2023) take 64, 128, 256 and 512.
      outputs: how many logits a voxel has.
      rotary: as the encoder was pre-trained.
      compute: see `layers.Compute`.
      plane_yx: as the encoder was pre-trained, see `encoder.Encoder`.
    """

    patch_zyx: Zyx
    encoder_size: tuple[int, int, int]
    channels: tuple[int, ...]
    outputs: int
    rotary: bool = False
    compute: Compute = Compute()
    plane_yx: tuple[int, int] | None = None

    @nn.compact
    def __call__(self, image: Float[Array, "b z y x c"]) -> Float32[Array, "b z y x outputs"]:
        """Logits of crops of any size that the patches tile.

        Args:
          image: the crops, intensities in [−1, 1].

        Returns:
          float32 logits of every voxel.

        Raises:
          ValueError: if the patches do not tile the crops, are no powers of two, or need more or
            fewer levels than there are channels.
        """
        channels, strides = tuple(self.channels), strides_of(self.patch_zyx, self.channels)
        levels = len(channels)
        grid = token_grid(image.shape[1:4], self.patch_zyx)
        size, options = self.encoder_size, (self.rotary, self.compute, self.plane_yx)
        encoder = Encoder(self.patch_zyx, *size, *options, name="encoder")
        states = [state.reshape(len(image), *grid, -1) for state in encoder(image)]
        stem = ConvolutionBlock(max(1, channels[0] // 2), self.compute, name="stem_0")(image)
        stem = ConvolutionBlock(channels[0], self.compute, name="stem_1")(stem)
        beside = [[stem], *[[] for _ in channels]]
        for i, (block, level) in enumerate(skips(len(states), levels)):
            way = channels[level:][::-1], strides[level:][::-1]
            climb = Climb(*way, self.compute, name=f"climb_{i}")
            beside[level].append(climb(states[block - 1]))
        volume = states[-1]
        for level in reversed(range(levels)):
            up = Upsampling(channels[level], strides[level], self.compute, name=f"up_{level}")
            volume = jnp.concatenate([up(volume), *beside[level]], axis=-1)
            for i in range(3 if level == levels - 1 else 2):
                name = f"level_{level}_block_{i}"
                volume = ConvolutionBlock(channels[level], self.compute, name=name)(volume)
        return nn.Dense(self.outputs, dtype=jnp.float32, name="head")(volume)
