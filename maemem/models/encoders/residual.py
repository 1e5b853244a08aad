"""The way down of a residual 3-D U-Net (Lee et al. 2017), as an encoder."""

from __future__ import annotations

import jax
from flax import linen as nn
from jaxtyping import Array, Float, Int, PyTree

from maemem.fields import given
from maemem.geometry import Zyx
from maemem.models.compute import Compute
from maemem.models.contract import Level
from maemem.models.convolution import ResidualBlocks, check_channels, strides_of
from maemem.models.patches import token_grid


class Residual(nn.Module):
    """Residual blocks and maxima over boxes, in turn.

    Each step halves the finely sampled axes first, see `convolution.strides_of`. The coarsest level
    has twice as many channels as the one before it.

    Attributes:
      patch_zyx: the stride of the coarsest level, in voxels; powers of two.
      channels: of the levels, from full resolution to half of the coarsest's.
      compute: see `models.compute`.
    """

    patch_zyx: Zyx = (8, 8, 8)
    channels: tuple[int, ...] = (64, 128, 256)
    compute: Compute = given(default=Compute())

    def __post_init__(self):
        check_channels(self.channels)
        strides_of(self.patch_zyx, self.channels)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, image: Float[Array, "b z y x c"], visible: Int[Array, "b v"] | None = None
    ) -> list[Level]:
        """The levels before each maximum, and the coarsest. See `models.contract.Encoder`."""
        if visible is not None:
            raise ValueError(
                "encoder kind residual has no tokens to hide; take kind vit, or a learner that "
                "shows it whole crops, such as restoration"
            )
        token_grid(image.shape[1:4], self.patch_zyx)
        levels, volume, (z, y, x) = [], image, (1, 1, 1)
        strides = strides_of(self.patch_zyx, self.channels)
        for i, (channels, step) in enumerate(zip(self.channels, strides, strict=True)):
            volume = ResidualBlocks(channels, self.compute, name=f"down_{i}")(volume)
            levels.append(Level(volume, (z, y, x)))
            volume = nn.max_pool(volume, step, step)
            z, y, x = z * step[0], y * step[1], x * step[2]
        bottom = ResidualBlocks(2 * self.channels[-1], self.compute, name="bottom")(volume)
        return [*levels, Level(bottom, (z, y, x))]

    def below(self, params: PyTree) -> PyTree:
        """See `models.contract.Encoder`: the bottom 0, and one more for each level above it."""
        depth = len(self.channels)
        layers = {f"down_{i}": depth - i for i in range(depth)} | {"bottom": 0}
        return {
            name: jax.tree.map(lambda _, name=name: layers[name], part)
            for name, part in params.items()
        }
