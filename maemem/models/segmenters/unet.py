"""The way up of a residual symmetric 3-D U-Net (Lee et al. 2017)."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Float32

from maemem.fields import given
from maemem.models.compute import Compute
from maemem.models.contract import Encoder
from maemem.models.convolution import (
    ResidualBlocks,
    Upsampling,
    check_channels,
    cumulative_strides,
    strides_of,
)


class Unet(nn.Module):
    """Transposed convolutions up; each level of the encoder is added to the level that it meets.

    Attributes:
      channels: of the levels, from full resolution to half of the coarsest's: as many as the
        encoder's levels have, since they are added.
      encoder: one with a level at each of these resolutions, such as `Residual`.
      outputs: how many logits a voxel has.
      compute: see `models.compute`.
    """

    channels: tuple[int, ...] = (64, 128, 256)
    encoder: Encoder = given()
    outputs: int = given()
    compute: Compute = given(default=Compute())

    def __post_init__(self):
        check_channels(self.channels)
        super().__post_init__()

    @nn.compact
    def __call__(self, image: Float[Array, "b z y x c"]) -> Float32[Array, "b z y x outputs"]:
        """See `models.contract.Segmenter`."""
        *beside, bottom = self.encoder(image)
        steps = strides_of(bottom.stride_zyx, self.channels)
        given_levels = [(level.stride_zyx, level.features.shape[-1]) for level in beside]
        wanted = list(zip(cumulative_strides(steps)[:-1], self.channels, strict=True))
        if given_levels != wanted:
            raise ValueError(
                f"segmenter unet adds levels of strides and channels {wanted}, and its encoder "
                f"gives {given_levels}; take encoder kind residual with the same channels, or "
                f"segmenter kind unetr"
            )
        volume = bottom.features
        for i in reversed(range(len(steps))):
            channels = self.channels[i]
            up = Upsampling(channels, steps[i], self.compute, name=f"upsampling_{i}")
            volume = up(volume) + beside[i].features
            volume = ResidualBlocks(channels, self.compute, name=f"up_{i}")(volume)
        return nn.Dense(self.outputs, dtype=jnp.float32, name="head")(volume)
