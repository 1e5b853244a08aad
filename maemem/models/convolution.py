"""3-D convolutions and the blocks that segmenters are built of."""

import math

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from maemem.geometry import Zyx, format_zyx
from maemem.models.layers import Compute, ConvolutionForm
from maemem.models.patches import unpatchify

Volume = Float[Array, "b z y x c"]
Convolved = Float[Array, "b z y x o"]
Kernel = Float[Array, "3 3 3 c o"]

# About how many channels a norm takes together.
_GROUP = 8
# Fewer output channels than this cost a CPU less to compute than their inputs to gather.
_FEW = 16


def convolve(volume: Volume, kernel: Kernel, form: ConvolutionForm) -> Convolved:
    """A 3 × 3 × 3 convolution; outside of the volume are zeros.

    Args:
      volume: the input.
      kernel: its weights, for offsets −1, 0 and 1 along z, y and x.
      form: see `Compute.convolution`; both are the same but for rounding.

    Returns:
      `[b z y x o]`, in the dtype of the inputs.
    """
    if form == "folded":
        return _convolve_folded(volume, kernel)
    dimensions = ("NDHWC", "DHWIO", "NDHWC")
    return lax.conv_general_dilated(volume, kernel, (1, 1, 1), "SAME", dimension_numbers=dimensions)


def _convolve_folded(volume: Volume, kernel: Kernel) -> Convolved:
    """As one 2-D convolution, which XLA hands to a CPU's matrix product.

    Sections are its batch. The neighbours that a section needs are channels of its input. Where the
    output has few channels, it makes two adjacent sections at once, of the four that they need: a
    third more operations, but each patch that is gathered serves twice as many.
    """
    b, z, y, x, _ = volume.shape
    features = kernel.shape[-1]
    together = 2 if features < _FEW and z % 2 == 0 else 1
    padded = jnp.pad(volume, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))
    needed = [padded[:, i : i + z : together] for i in range(together + 2)]
    sections = jnp.concatenate(needed, axis=-1).reshape(b * z // together, y, x, -1)
    # The same kernel for each section of the output, shifted along the sections of the input.
    shifts = [((i, together - 1 - i), *[(0, 0)] * 4) for i in range(together)]
    shifted = jnp.stack([jnp.pad(kernel, shift) for shift in shifts], axis=-2)
    flat = jnp.moveaxis(shifted, 0, 2).reshape(3, 3, -1, together * features)
    dimensions = ("NHWC", "HWIO", "NHWC")
    out = lax.conv_general_dilated(sections, flat, (1, 1), "SAME", dimension_numbers=dimensions)
    out = out.reshape(b, z // together, y, x, together, features)
    return jnp.moveaxis(out, 4, 2).reshape(b, z, y, x, features)


class Convolution(nn.Module):
    """`convolve` with a learnt kernel (He et al. 2015). It has no bias, since a norm follows."""

    features: int
    compute: Compute

    @nn.compact
    def __call__(self, volume: Volume) -> Convolved:
        """`[b z y x c]` to `[b z y x features]`."""
        shape = (3, 3, 3, volume.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        dtype = self.compute.dtype
        return convolve(volume.astype(dtype), kernel.astype(dtype), self.compute.convolution)


class ConvolutionBlock(nn.Module):
    """Convolution, norm and ReLU.

    The norm is GroupNorm (Wu & He 2018). Its statistics, in float32, are a crop's own: crops are
    few in a batch, and what a network says of one must not depend on the others.
    """

    features: int
    compute: Compute

    @nn.compact
    def __call__(self, volume: Volume) -> Convolved:
        """`[b z y x c]` to `[b z y x features]`."""
        convolved = Convolution(self.features, self.compute, name="convolution")(volume)
        most = max(1, self.features // _GROUP)
        groups = next(n for n in range(most, 0, -1) if self.features % n == 0)
        norm = nn.GroupNorm(groups, epsilon=1e-5, dtype=self.compute.dtype, name="norm")
        return nn.relu(norm(convolved))


class Upsampling(nn.Module):
    """A transposed convolution whose kernel is as large as its stride.

    So every voxel becomes a box of voxels by itself: a matrix product. It has no bias, since blocks
    with a norm follow.
    """

    features: int
    stride_zyx: Zyx
    compute: Compute

    @nn.compact
    def __call__(self, volume: Volume) -> Float[Array, "b fine_z fine_y fine_x o"]:
        """`[b z y x c]` to `[b z·stride y·stride x·stride features]`."""
        b, z, y, x, c = volume.shape
        values = math.prod(self.stride_zyx) * self.features
        boxes = nn.Dense(values, use_bias=False, dtype=self.compute.dtype, name="boxes")
        return unpatchify(boxes(volume.reshape(b, -1, c)), (z, y, x), self.stride_zyx)


def strides_of(patch_zyx: Zyx, channels: tuple[int, ...]) -> tuple[Zyx, ...]:
    """The steps, each by 1 or 2 along an axis, that lead from voxels to patches, finest first.

    An axis with a smaller factor joins at the coarsest steps: of a patch 2 × 8 × 8 the steps are
    1 × 2 × 2, 1 × 2 × 2, 2 × 2 × 2. Patches are thin where sections are thick, so this brings
    voxels closest to cubes first, as Lee et al. (2017) do.

    Args:
      patch_zyx: shape of a patch, in voxels; powers of two.
      channels: of the levels, one for each step.

    Raises:
      ValueError: if a factor is no power of two, the patch is one voxel, or there are more or
        fewer channels than steps.
    """
    if any(factor < 1 or factor & (factor - 1) for factor in patch_zyx) or max(patch_zyx) < 2:
        raise ValueError(
            f"patch {format_zyx(patch_zyx)} cannot be reached by doubling; expected powers of two, "
            f"such as 1x16x16 or 8x8x8"
        )
    halvings = [factor.bit_length() - 1 for factor in patch_zyx]
    levels = max(halvings)
    if len(channels) != levels:
        raise ValueError(
            f"{len(channels)} channels {channels} for patch {format_zyx(patch_zyx)}, which takes "
            f"{levels} steps; give {levels}, from full resolution to half of the patches'"
        )
    steps = [[1 + (levels - n <= level) for n in halvings] for level in range(levels)]
    return tuple((z, y, x) for z, y, x in steps)
