"""A residual 3-D U-Net: what a network without a pre-trained encoder does."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Float32

from maemem.geometry import Zyx
from maemem.models.convolution import ConvolutionBlock, Upsampling, strides_of
from maemem.models.layers import Compute
from maemem.models.patches import token_grid


class ResidualBlocks(nn.Module):
    """A block to reach the level's channels, then two whose output is added to the first's."""

    features: int
    compute: Compute

    @nn.compact
    def __call__(self, volume: Float[Array, "b z y x c"]) -> Float[Array, "b z y x o"]:
        """`[b z y x c]` to `[b z y x features]`."""
        first, second, third = (
            ConvolutionBlock(self.features, self.compute, name=f"block_{i}") for i in range(3)
        )
        entered = first(volume)
        return entered + third(second(entered))


class ResidualUnet(nn.Module):
    """A residual symmetric U-Net after Lee et al. (2017).

    As there, down-sampling is a maximum over each step's box, first along the finely sampled axes;
    what goes down comes up by transposed convolutions; and the way down is added to the way up.

    Attributes:
      patch_zyx: the boxes of voxels that crops are multiples of, powers of two; the coarsest level
        has a voxel for each. A `Unetr` with the same has the same levels and takes the same crops.
      channels: of the levels, from full resolution to half of the coarsest's, which has twice as
        many as the one before it.
      outputs: how many logits a voxel has.
      compute: see `layers.Compute`.
    """

    patch_zyx: Zyx
    channels: tuple[int, ...]
    outputs: int
    compute: Compute = Compute()

    @nn.compact
    def __call__(self, image: Float[Array, "b z y x c"]) -> Float32[Array, "b z y x outputs"]:
        """Logits of crops of any size that the boxes tile.

        Args:
          image: the crops, intensities in [−1, 1].

        Returns:
          float32 logits of every voxel.

        Raises:
          ValueError: if the boxes do not tile the crops, are no powers of two, or need more or
            fewer levels than there are channels.
        """
        strides = strides_of(self.patch_zyx, self.channels)
        token_grid(image.shape[1:4], self.patch_zyx)
        volume, beside = image, []
        for level, (channels, stride) in enumerate(zip(self.channels, strides, strict=True)):
            volume = ResidualBlocks(channels, self.compute, name=f"down_{level}")(volume)
            beside.append(volume)
            volume = nn.max_pool(volume, stride, stride)
        volume = ResidualBlocks(2 * self.channels[-1], self.compute, name="bottom")(volume)
        for level in reversed(range(len(strides))):
            channels = self.channels[level]
            up = Upsampling(channels, strides[level], self.compute, name=f"upsampling_{level}")
            volume = up(volume) + beside[level]
            volume = ResidualBlocks(channels, self.compute, name=f"up_{level}")(volume)
        return nn.Dense(self.outputs, dtype=jnp.float32, name="head")(volume)
