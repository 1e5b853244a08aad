"""Operations on label crops on the device: neighbours, borders, erosion, distances.

Labels are int32 `[b z y x]`: positive ids are instances, 0 is background, −1 is unlabelled. What is
in plane looks at one section alone, and nothing lies beyond a crop's sides.
"""

import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float32, Int32, Shaped

from maemem.geometry import Zyx

UNLABELLED = -1
_NO_ID = np.iinfo(np.int32).max
# More than twice any squared distance; with one added to it, it is still an int32.
_FAR = 2**30


def neighbour(
    array: Shaped[Array, "b z y x"], offset_zyx: Zyx, fill: int
) -> Shaped[Array, "b z y x"]:
    """At each voxel v what the array holds at v + offset, and `fill` where that left the crop."""
    # Padding by a negative number crops.
    steps = [(0, 0, 0), *((-step, step, 0) for step in offset_zyx)]
    return lax.pad(array, jnp.asarray(fill, array.dtype), steps)


def window(
    array: Shaped[Array, "b z y x"],
    radius: int,
    reduce: Callable[[Array, Array], Array],
    fill: int,
    in_plane: bool = True,
) -> Shaped[Array, "b z y x"]:
    """Reduces the square of 2 radius + 1 voxels around each voxel in its section, or the cube.

    Args:
      array: the values.
      radius: in voxels; 0 leaves the array as it is.
      reduce: joins two arrays, such as `jnp.maximum`.
      fill: what stands beyond the crop's sides: the reduction's neutral value.
      in_plane: the square; otherwise the cube.
    """
    directions = ((0, 1, 0), (0, 0, 1)) if in_plane else ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    for z, y, x in directions:
        offsets = [(step * z, step * y, step * x) for step in range(-radius, radius + 1)]
        array = functools.reduce(reduce, [neighbour(array, offset, fill) for offset in offsets])
    return array


def remove_borders(
    labels: Int32[Array, "b z y x"], in_plane: bool = True
) -> Int32[Array, "b z y x"]:
    """Makes background of instance voxels with two ids in their 3×3 window, or 3×3×3.

    It opens a gap where touching instances leave none (Lee et al. 2017, in plane). Background and
    unlabelled are no ids.
    """
    highest = window(labels, 1, jnp.maximum, UNLABELLED, in_plane)
    ids = jnp.where(labels > 0, labels, _NO_ID)
    lowest = window(ids, 1, jnp.minimum, _NO_ID, in_plane)
    return jnp.where((labels > 0) & (highest != lowest), 0, labels)


def erode(
    labels: Int32[Array, "b z y x"], radius: int, in_plane: bool = True
) -> Int32[Array, "b z y x"]:
    """Takes so many voxels off each instance where it meets another or background.

    Unlabelled voxels and the crop's sides take nothing off.
    """
    highest = window(labels, radius, jnp.maximum, UNLABELLED, in_plane)
    labelled = jnp.where(labels == UNLABELLED, _NO_ID, labels)
    lowest = window(labelled, radius, jnp.minimum, _NO_ID, in_plane)
    return jnp.where((labels > 0) & (highest != lowest), 0, labels)


def distance_to_other(
    labels: Int32[Array, "b z y x"],
) -> tuple[Float32[Array, "b z y x"], Bool[Array, "b z y x"]]:
    """How far instances are from background, and background from instances, in their section.

    Euclidean, and exact in sections of up to 16,384 × 16,384 voxels: along y and then along x, the
    lowest of the parabolas that stand on the voxels of a line (Felzenszwalb and Huttenlocher 2012),
    found by trying all of them.

    Args:
      labels: the crops; nothing beyond their sides counts.

    Returns:
      - The distance in voxels to the nearest voxel of the other kind, or to an unlabelled one where
        that is nearer. Infinite in a section that has neither; 0 in unlabelled voxels.
      - Whether no missing label could change it: the nearest is of the other kind, or there is
        neither.
    """
    inside, outside = labels > 0, labels == 0
    # Twice the squared distance, and 1 if it is that of an unlabelled voxel: the least says both.
    unlabelled = jnp.where(labels == UNLABELLED, 1, _FAR)
    to_outside, to_inside = jnp.where(outside, 0, unlabelled), jnp.where(inside, 0, unlabelled)
    doubled = jnp.stack([to_outside, to_inside])  # [2 b z y x]
    for axis in (-2, -1):
        doubled = _least_along(axis, doubled)
    doubled = jnp.where(inside, *doubled)
    distance = jnp.sqrt((doubled // 2).astype(jnp.float32))
    neither = doubled == _FAR
    return jnp.where(neither, jnp.inf, distance), neither | (doubled % 2 == 0)


def _least_along(axis: int, doubled: Int32[Array, "2 b z y x"]) -> Int32[Array, "2 b z y x"]:
    """The least over a line's places of what is there plus twice the square of the steps there.

    A loop over places: one reduction over all pairs of them takes a CPU ten times as long.
    """
    size = doubled.shape[axis]
    place = jnp.arange(size).reshape(-1, *[1] * (-1 - axis))  # [y 1] or [x]

    def lower(index: Array, least: Array) -> Array:
        here = lax.dynamic_slice_in_dim(doubled, index, 1, axis)
        return jnp.minimum(least, here + 2 * jnp.square(place - index))

    return lax.fori_loop(0, size, lower, jnp.full_like(doubled, _FAR))
