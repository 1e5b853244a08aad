"""3-D convolutions and the blocks that segmenters are built of."""

import math
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from maemem.geometry import Zyx, format_zyx
from maemem.models.compute import Compute
from maemem.models.patches import unpatchify

Volume = Float[Array, "b z y x c"]
Convolved = Float[Array, "b z y x o"]
Kernel = Float[Array, "3 3 3 c o"]

# About how many channels a norm takes together.
_GROUP = 8
# A kernel's gradient is computed of two sections at a time, or of so many parts of a volume.
_PIECES = 16


def convolve(volume: Volume, kernel: Kernel, form: Literal["xla", "folded"]) -> Convolved:
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


@jax.custom_vjp
def _convolve_folded(volume: Volume, kernel: Kernel) -> Convolved:
    """As one 2-D convolution over z and x, which XLA hands to a CPU's matrix product.

    Rows before and after a row are channels of the input; or what it contributes to them are
    channels of the output, added up where they belong: whichever are fewer. It is 3 to 10 times as
    fast as XLA's 3-D convolution (`benchmarks.convolution`, two cores of an Intel Xeon).
    """
    c, features = kernel.shape[3:]
    if c < features:
        # [z y x c o] -> [z x y·c o]
        flat = jnp.moveaxis(kernel, 1, 2).reshape(3, 3, 3 * c, features)
        return _convolve_rows(_with_neighbours(volume, axis=2), flat)
    # [z y x c o] -> [z x c y·o]
    flat = jnp.moveaxis(kernel, 1, 3).reshape(3, 3, c, 3 * features)
    after, here, before = jnp.split(_convolve_rows(volume, flat), 3, axis=-1)
    return _shift(after, 1, axis=2) + here + _shift(before, -1, axis=2)


def _convolve_rows(volume: Volume, kernel: Float[Array, "3 3 c o"]) -> Convolved:
    """Each row with those of the sections before and after it.

    A section's rows are laid end to end, each followed by a zero, which pads it and the next: a
    product is split among cores along a row, so that one of 96 voxels would keep one core busy.
    """
    b, z, y, x, c = volume.shape
    padded = jnp.pad(volume, [(0, 0), (0, 0), (0, 0), (0, 1), (0, 0)])
    # [b z y x+1 c] -> [b z y·(x+1) c]
    out = _convolve_planes(padded.reshape(b, z, y * (x + 1), c), kernel)
    # [b z y·(x+1) o] -> [b z y x+1 o]
    return out.reshape(b, z, y, x + 1, -1)[:, :, :, :x]


def _forward(volume: Volume, kernel: Kernel) -> tuple[Convolved, tuple[Volume, Kernel]]:
    return _convolve_folded(volume, kernel), (volume, kernel)


def _backward(operands: tuple[Volume, Kernel], gradient: Convolved) -> tuple[Volume, Kernel]:
    volume, kernel = operands
    return _convolve_folded(gradient, _mirror(kernel)), _kernel_gradient(volume, gradient)


_convolve_folded.defvjp(_forward, _backward)


def _kernel_gradient(volume: Volume, gradient: Convolved) -> Kernel:
    """Of a 2-D convolution over y and x whose input has the neighbouring sections as channels.

    A part of the sections at a time: XLA takes them for channels, and is several times slower with
    many.
    """
    z, y, x, c = volume.shape[1:]
    features = gradient.shape[-1]
    if c > features:
        return _mirror(_kernel_gradient(gradient, volume))
    around = _with_neighbours(volume, axis=1)
    total = jnp.zeros((3, 3, 3 * c, features), volume.dtype)
    thickness = max(2, math.ceil(z / _PIECES))
    for start in range(0, z, thickness):
        # [b thickness y x c] -> [b·thickness y x c]
        taken, wanted = (
            slab[:, start : start + thickness].reshape(-1, y, x, slab.shape[-1])
            for slab in (around, gradient)
        )
        pull = jax.linear_transpose(lambda flat, taken=taken: _convolve_planes(taken, flat), total)
        total += pull(wanted)[0]
    # [y x z·c o] -> [z y x c o]
    return jnp.moveaxis(total.reshape(3, 3, 3, c, features), 2, 0)


def _convolve_planes(
    planes: Float[Array, "n h w c"], kernel: Float[Array, "3 3 c o"]
) -> Float[Array, "n h w o"]:
    dimensions = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(planes, kernel, (1, 1), "SAME", dimension_numbers=dimensions)


def _mirror(kernel: Kernel) -> Float[Array, "3 3 3 o c"]:
    """That of the transposed convolution."""
    return jnp.swapaxes(jnp.flip(kernel, (0, 1, 2)), 3, 4)


def _with_neighbours(volume: Volume, axis: int) -> Float[Array, "b z y x 3*c"]:
    """What is before, at and after each place along an axis, as channels."""
    around = _shift(volume, 1, axis), volume, _shift(volume, -1, axis)
    return jnp.concatenate(around, axis=-1)


def _shift(volume: Volume, steps: int, axis: int) -> Volume:
    """Everything so many steps further along an axis; zeros follow, and what leaves is lost."""
    sides = [(0, 0, 0)] * 5
    sides[axis] = (steps, -steps, 0)
    return lax.pad(volume, jnp.zeros((), volume.dtype), sides)


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


class ResidualBlocks(nn.Module):
    """A block to reach the level's channels, then two whose output is added to the first's."""

    features: int
    compute: Compute

    @nn.compact
    def __call__(self, volume: Volume) -> Convolved:
        """`[b z y x c]` to `[b z y x features]`."""
        first, second, third = (
            ConvolutionBlock(self.features, self.compute, name=f"block_{i}") for i in range(3)
        )
        entered = first(volume)
        return entered + third(second(entered))


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
        # [b z y x c] -> [b z·y·x c]
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


def cumulative_strides(steps: Sequence[Zyx]) -> tuple[Zyx, ...]:
    """The strides of the levels between `steps`, in voxels, from (1, 1, 1) on."""
    strides = [(1, 1, 1)]
    for step in steps:
        z, y, x = (a * b for a, b in zip(strides[-1], step, strict=True))
        strides.append((z, y, x))
    return tuple(strides)


def check_channels(channels: Sequence[int]) -> None:
    """Raises ValueError for channels that are not positive."""
    if not channels or min(channels) < 1:
        raise ValueError(f"channels is {tuple(channels)}; expected: positive whole numbers")
