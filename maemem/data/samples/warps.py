"""Augmentation of geometry: where each voxel of a crop is taken from.

What bends, turns or shifts tissue is a displacement field: voxel p of the result shows the tissue
at p + field[p]. Fields add up, so a crop is resampled once however many of them act.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jaxtyping import Array, Bool, Float, Key, Shaped

from maemem.geometry import Zyx

# Arrays by name: floats are interpolated, integers taken from the nearest voxel.
Crop = dict[str, Shaped[Array, "z y x"]]


def warp_field(
    key: Key[Array, ""],
    shape_zyx: Zyx,
    voxels_zyx: Float[Array, " 3"],
    spacing_zyx: tuple[float, float, float],
) -> Float[Array, "3 z y x"]:
    """A smooth random displacement: a cubic B-spline over a coarse grid of uniform ones.

    Args:
      key: of this draw.
      shape_zyx: the crop's, in voxels.
      voxels_zyx: the bound of the displacement along each axis, in voxels. The weights of a
        B-spline are positive and sum to 1, so it is never exceeded; a fifth of it is usual.
      spacing_zyx: between the points of the grid, in voxels.
    """
    splines = [_spline(n, h) for n, h in zip(shape_zyx, spacing_zyx, strict=True)]
    grid_zyx = tuple(spline.shape[1] for spline in splines)
    grid = random.uniform(key, (3, *grid_zyx), minval=-1, maxval=1)
    grid *= voxels_zyx[:, None, None, None]
    return jnp.einsum("dabc,za,yb,xc->dzyx", grid, *splines, precision=lax.Precision.HIGHEST)


def _spline(size: int, spacing: float) -> np.ndarray:
    """What each point of a grid `[g]` weighs at the voxels `[n]` of an axis: `[n g]`, float32."""
    # Slow to import: nothing that begins without a warp need wait for it.
    from scipy.interpolate import BSpline

    cells = math.floor((size - 1) / spacing) + 1
    knots = spacing * np.arange(-3.0, cells + 4)
    return BSpline.design_matrix(np.arange(float(size)), knots, 3).toarray().astype(np.float32)


def rotation(key: Key[Array, ""], degrees: float) -> Float[Array, ""]:
    """An angle uniform in [−degrees, degrees], in radians."""
    return random.uniform(key, minval=-1, maxval=1) * math.radians(degrees)


def misalignment(
    key: Key[Array, ""], depth: int, voxels: int, slip: Bool[Array, ""] | bool
) -> Float[Array, "2 z"]:
    """How far each section is shifted along y and x, by whole voxels (Lee et al. 2017).

    Args:
      key: of this draw.
      depth: how many sections there are; one by itself is never misaligned.
      voxels: the largest shift along y and along x; at least 1. No shift at all is not drawn.
      slip: whether one section alone slips, or it and all after it are translated. The first
        section always stays.
    """
    place, shift = random.uniform(key, (2,))
    width = 2 * voxels + 1
    drawn = jnp.floor(shift * (width**2 - 1)).astype(jnp.int32)
    drawn += drawn >= width**2 // 2  # leaves out the middle one: no shift
    shift_yx = jnp.stack([drawn // width - voxels, drawn % width - voxels])
    z, first = jnp.arange(depth), 1 + jnp.floor(place * (depth - 1))
    moved = jnp.where(slip, z == first, z >= first)
    return (shift_yx[:, None] * moved).astype(jnp.float32)


def section_field(
    shape_zyx: Zyx, angle: Float[Array, ""], shifts_yx: Float[Array, "2 z"]
) -> Float[Array, "3 z y x"]:
    """The displacement that turns all sections about their middle and shifts each; none along z.

    Args:
      shape_zyx: the crop's, in voxels.
      angle: in radians.
      shifts_yx: along y and x, in voxels.
    """
    depth, height, width = shape_zyx
    y, x = np.indices((height, width), np.float32)
    places = np.stack([y - (height - 1) / 2, x - (width - 1) / 2, np.ones_like(y)])
    cosine, sine = jnp.cos(angle) - 1, jnp.sin(angle)
    turn = jnp.array([[0, 0], [cosine, sine], [-sine, cosine]])
    turn = jnp.broadcast_to(turn[:, None], (3, depth, 2))
    shifts = jnp.pad(shifts_yx, ((1, 0), (0, 0)))[..., None]
    # As a product: XLA would compute sine and cosine anew at each voxel that it resamples.
    motion = jnp.concatenate([turn, shifts], axis=-1)
    return jnp.einsum("dzi,iyx->dzyx", motion, places, precision=lax.Precision.HIGHEST)


def resample(crop: Crop, field: Float[Array, "d z y x"]) -> Crop:
    """The tissue at p + field[p]: floats interpolated linearly, integers from the nearest voxel.

    Where it reaches beyond the crop, tissue is mirrored at the outermost voxels.

    Args:
      crop: arrays of one shape.
      field: along the last d of the axes z, y and x, in voxels; one less axis, half the reading.
        An axis of size 1 cannot be displaced.
    """
    shape, still = next(iter(crop.values())).shape, 3 - len(field)
    lowest = nearest = jnp.zeros(shape, jnp.int32)
    parts = []  # of each moving axis: how far above the voxel below, and what one voxel up adds
    for axis, size in enumerate(shape):
        step = math.prod(shape[axis + 1 :])
        place = lax.broadcasted_iota(jnp.int32, shape, axis)
        if axis < still or size == 1:
            lowest, nearest = lowest + step * place, nearest + step * place
            continue
        position = _mirror(place + field[axis - still], size)
        below = jnp.clip(jnp.floor(position).astype(jnp.int32), 0, size - 2)
        lowest += step * below
        nearest += step * jnp.clip(jnp.round(position).astype(jnp.int32), 0, size - 1)
        parts.append((position - below, step))

    def interpolate(array: Array) -> Array:
        result = jnp.zeros(shape, array.dtype)
        for corner in itertools.product((False, True), repeat=len(parts)):
            ends = list(zip(corner, parts, strict=True))
            weight = math.prod((above if up else 1 - above for up, (above, _) in ends), start=1.0)
            index = lowest + sum(step for up, (_, step) in ends if up)
            result += weight * _take(array, index)
        return result

    return {
        name: interpolate(array)
        if jnp.issubdtype(array.dtype, jnp.floating)
        else _take(array, nearest)
        for name, array in crop.items()
    }


def _mirror(position: Array, size: int) -> Array:
    """Folds positions along an axis back into [0, size − 1]."""
    period = 2 * (size - 1)
    position -= period * jnp.floor(position / period)
    return jnp.minimum(position, period - position)


def orient(key: Key[Array, ""], crop: Crop, orders_zyx: Sequence[Zyx], flip: bool) -> Crop:
    """Permutes the axes in one of the ways given, then reverses each with a chance of 1/2.

    Args:
      key: of this draw.
      crop: arrays of one shape, of any dtype.
      orders_zyx: which axes of the crop may become z, y and x; each leaves its shape as it is.
      flip: whether to reverse any.
    """
    drawn = random.uniform(key, (4,))
    shape = next(iter(crop.values())).shape
    steps = np.array([shape[1] * shape[2], shape[2], 1])
    # One reading along other steps: of selects among turned copies, XLA would compute again for
    # each copy all that went before.
    choice = jnp.floor(drawn[3] * len(orders_zyx)).astype(jnp.int32)
    step = jnp.array([steps[list(axes)] for axes in orders_zyx])[choice]
    reverse = flip & (drawn[:3] < 0.5)
    index = jnp.sum(reverse * step * (np.array(shape) - 1))
    step = jnp.where(reverse, -step, step)
    for axis in range(3):
        index += step[axis] * lax.broadcasted_iota(jnp.int32, shape, axis)
    return {name: _take(array, index) for name, array in crop.items()}


def _take(array: Array, index: Array) -> Array:
    return array.ravel().at[index].get(mode="promise_in_bounds")
