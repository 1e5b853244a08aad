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


def distance_to(seeds: Bool[Array, "b z y x"]) -> Float32[Array, "b z y x"]:
    """Each voxel's Euclidean distance to the nearest seed of its section, in voxels.

    Infinite in a section without seeds; the crop's sides are none. So it is what the `edt` library
    gives for the voxels that are not seeds. Exact: along y and then along x, the lowest of the
    parabolas that stand on the voxels of a line (Felzenszwalb and Huttenlocher 2012), but found by
    trying all of them, one place of every line at a time.
    """
    squared = jnp.where(seeds, 0.0, jnp.inf).astype(jnp.float32)
    return jnp.sqrt(_lowest_parabola(_lowest_parabola(squared, axis=2), axis=3))


def _lowest_parabola(heights: Float32[Array, "b z y x"], axis: int) -> Float32[Array, "b z y x"]:
    """At each place of a line along `axis`, the least of height + squared step over its places.

    A loop, since XLA may turn one reduction over all pairs of places into something far slower;
    of several places a round, since each goes over all lines once.
    """
    place = jnp.arange(heights.shape[axis], dtype=jnp.float32)
    place = place.reshape(-1, *[1] * (heights.ndim - 1 - axis))

    def lower(index: Array, lowest: Array) -> Array:
        height = lax.dynamic_slice_in_dim(heights, index, 1, axis)
        return jnp.minimum(lowest, height + jnp.square(place - index))

    start = jnp.full(heights.shape, jnp.inf, jnp.float32)
    return lax.fori_loop(0, heights.shape[axis], lower, start, unroll=8)
