"""UNETR: a convolutional decoder on any encoder.

After Hatamizadeh et al. (2022), as Cheng et al. (2023) fit it to thin patches: it upsamples along
those axes only along which a patch is longer than a voxel.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Float32

from maemem.fields import given
from maemem.geometry import Zyx
from maemem.models.compute import Compute
from maemem.models.contract import Encoder, Level
from maemem.models.convolution import (
    ConvolutionBlock,
    Upsampling,
    check_channels,
    cumulative_strides,
    strides_of,
)


class SkipUpsampler(nn.Module):
    """Upsamples a transformer state to a decoder level (UNETR's deconvolution branch).

    Attributes:
      channels: of the levels on the way, coarsest first.
      strides_zyx: of the upsamplings to them.
      compute: see `models.compute`.
    """

    channels: tuple[int, ...]
    strides_zyx: tuple[Zyx, ...]
    compute: Compute

    @nn.compact
    def __call__(
        self, volume: Float[Array, "b z y x c"]
    ) -> Float[Array, "b fine_z fine_y fine_x o"]:
        """An upsampling and a convolution for each level on the way."""
        for i, (channels, stride) in enumerate(zip(self.channels, self.strides_zyx, strict=True)):
            volume = Upsampling(channels, stride, self.compute, name=f"up_{i}")(volume)
            volume = ConvolutionBlock(channels, self.compute, name=f"block_{i}")(volume)
        return volume


class Unetr(nn.Module):
    """A decoder that concatenates the encoder's levels on its way up, and the image at its end.

    Attributes:
      channels: of the levels, from full resolution to half of the tokens'; for patches 1×16×16,
        Cheng et al. (2023) take 64, 128, 256 and 512.
      encoder: any; its patches are powers of two.
      outputs: how many logits a voxel has.
      compute: see `models.compute`.
    """

    channels: tuple[int, ...] = (64, 128, 256, 512)
    encoder: Encoder = given()
    outputs: int = given()
    compute: Compute = given(default=Compute())

    def __post_init__(self):
        check_channels(self.channels)
        super().__post_init__()

    @nn.compact
    def __call__(self, image: Float[Array, "b z y x c"]) -> Float32[Array, "b z y x outputs"]:
        """See `models.contract.Segmenter`."""
        channels, (*levels, coarsest) = tuple(self.channels), self.encoder(image)
        steps = strides_of(coarsest.stride_zyx, channels)
        stem = ConvolutionBlock(max(1, channels[0] // 2), self.compute, name="stem_0")(image)
        stem = ConvolutionBlock(channels[0], self.compute, name="stem_1")(stem)
        beside = [[stem], *[[] for _ in channels]]
        for name, features, start, level in skips(levels, coarsest, cumulative_strides(steps)):
            way = channels[level:start][::-1], steps[level:start][::-1]
            upsampler = SkipUpsampler(*way, self.compute, name=name)
            beside[level].append(upsampler(features))
        volume, last = coarsest.features, len(channels) - 1
        for level in reversed(range(len(channels))):
            up = Upsampling(channels[level], steps[level], self.compute, name=f"up_{level}")
            volume = jnp.concatenate([up(volume), *beside[level]], axis=-1)
            for i in range(3 if level == last else 2):
                name = f"level_{level}_block_{i}"
                volume = ConvolutionBlock(channels[level], self.compute, name=name)(volume)
        return nn.Dense(self.outputs, dtype=jnp.float32, name="head")(volume)


def skips(
    levels: list[Level], coarsest: Level, strides_zyx: tuple[Zyx, ...]
) -> list[tuple[str, Float[Array, "b z y x d"], int, int]]:
    """Where the encoder's levels join the decoder.

    A level of a decoder's resolution joins there. Of n levels as coarse as the last, the earlier
    are upsampled: the deeper, the less (Hatamizadeh et al. 2022). None is upsampled to full
    resolution, which is the image's own; a decoder of one level takes none of them as they are.

    Args:
      levels: of the encoder, but for the last.
      coarsest: the last.
      strides_zyx: of the decoder's levels from the finest, and of the coarsest.

    Returns:
      For each its name, its features, the decoder level that has its stride, and the one it joins.

    Raises:
      ValueError: if the decoder has no level of its stride.
    """
    found, count = [], len(strides_zyx) - 1
    alike = [level for level in levels if level.stride_zyx == coarsest.stride_zyx]
    for level in levels:
        if level.stride_zyx not in strides_zyx:
            raise ValueError(
                f"the encoder has a level of stride {level.stride_zyx}; expected: one of "
                f"{strides_zyx}, the decoder's"
            )
        start = strides_zyx.index(level.stride_zyx)
        if start < count:
            found.append((f"skip_{start}", level.features, start, start))
    for i, level in enumerate(alike):
        joined = max(1, count - (len(alike) - i))
        found.append((f"climb_{i}", level.features, count, joined))
    return found
