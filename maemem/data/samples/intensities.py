"""Augmentation of intensities: light, focus and lost sections. The labels stay as they are.

Images are `[z y x]`, float32 in [−1, 1], from black to white, and stay within. After Lee et al.
(2017), Superhuman accuracy on the SNEMI3D connectomics challenge.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jaxtyping import Array, Float, Key

Image = Float[Array, "z y x"]


def brightness(key: Key[Array, ""], image: Image, strength: float, by_section: float) -> Image:
    """Adds up to ±`strength`, one number a crop or, with the chance `by_section`, a section."""
    return _within(image + strength * _levels(key, len(image), by_section))


def contrast(key: Key[Array, ""], image: Image, strength: float, by_section: float) -> Image:
    """Scales by 1 ± up to `strength` about mid-grey, a crop or a section as `brightness`."""
    return _within(image * (1 + strength * _levels(key, len(image), by_section)))


def gamma(key: Key[Array, ""], image: Image, octaves: float, by_section: float) -> Image:
    """Raises intensities, counted from 0 to 1, to the power 2^±octaves at most.

    One power a crop or a section as `brightness`. Black and white stay.
    """
    power = 2 ** (octaves * _levels(key, len(image), by_section))
    return 2 * ((_within(image) + 1) / 2) ** power - 1


def noise(key: Key[Array, ""], image: Image, sigma: float, by_section: float) -> Image:
    """Adds Gaussian noise of a standard deviation up to `sigma`, a crop or a section its own."""
    level, grain = random.split(key)
    spread = sigma * jnp.abs(_levels(level, len(image), by_section))
    return _within(image + spread * random.normal(grain, image.shape))


def missing_section(key: Key[Array, ""], image: Image, count: int, part: float) -> Image:
    """Paints sections black or grey, whole or on one side of a line.

    Args:
      key: of this draw.
      image: float32.
      count: at most so many sections are lost, and at least one; one stays, if there are two.
      part: the chance of each lost section that part of it is left.
    """
    depth, height, width = image.shape
    number, rank, whole, angle, y, x, black, grey = random.uniform(key, (8, depth, 1, 1))
    most = max(min(count, depth - 1), 1)
    last = jnp.sort(rank, axis=0)[jnp.floor(number[0, 0, 0] * most).astype(jnp.int32)]
    # The line crosses the middle of the section, so that it cuts off something.
    y = jnp.arange(height)[:, None] - height * (0.25 + 0.5 * y)
    x = jnp.arange(width) - width * (0.25 + 0.5 * x)
    beyond = jnp.sin(2 * jnp.pi * angle) * y + jnp.cos(2 * jnp.pi * angle) * x > 0
    painted = (rank <= last) & ((whole >= part) | beyond)
    return jnp.where(painted, jnp.where(black < 0.5, -1, 2 * grey - 1), image)


def blurred_section(key: Key[Array, ""], image: Image, sigma: float) -> Image:
    """Blurs one section by a Gaussian, its width uniform from half of `sigma` to `sigma` voxels."""
    place, width = random.uniform(key, (2,))
    z = jnp.floor(place * len(image)).astype(jnp.int32)
    down, across = (_gaussian(n, sigma * (1 + width) / 2) for n in image.shape[1:])
    section = lax.dynamic_index_in_dim(image, z, keepdims=False)
    exact = lax.Precision.HIGHEST
    section = jnp.einsum("ay,yx,bx->ab", down, section, across, precision=exact)
    # Not an update in place: with a batch of places that would be a scatter.
    return jnp.where((jnp.arange(len(image)) == z)[:, None, None], section, image)


def cut_out(key: Key[Array, ""], image: Image, boxes: int, share: float) -> Image:
    """Paints boxes grey, each its own grey.

    Args:
      key: of this draw.
      image: float32.
      boxes: at most so many, and at least one.
      share: the longest edge of a box, relative to the crop's along that axis; at most 1. A box is
        one voxel thick at least.
    """
    drawn, size = random.uniform(key, (8, boxes)), np.array(image.shape)[:, None]
    used = 1 + jnp.floor(drawn[0, 0] * boxes)
    greys = 2 * drawn[1] - 1
    extent = jnp.ceil(drawn[2:5] * share * size).clip(1)
    start = jnp.floor(drawn[5:] * (size - extent + 1))
    for i in range(boxes):
        z, y, x = (
            (start[axis, i] <= jnp.arange(n)) & (jnp.arange(n) < start[axis, i] + extent[axis, i])
            for axis, n in enumerate(image.shape)
        )
        inside = z[:, None, None] & y[:, None] & x & (i < used)
        image = jnp.where(inside, greys[i], image)
    return image


def _levels(key: Key[Array, ""], depth: int, by_section: float) -> Float[Array, "z 1 1"]:
    """Numbers in [−1, 1): all the same or, with the chance `by_section`, each section its own."""
    drawn = random.uniform(key, (depth + 1, 1, 1))
    levels = 2 * drawn[1:] - 1
    return jnp.where(drawn[0] < by_section, levels, levels[:1])


def _gaussian(size: int, sigma: Float[Array, ""]) -> Float[Array, "n n"]:
    """The matrix that blurs an axis; its rows sum to 1, at the borders too."""
    place = jnp.arange(size)
    weights = jnp.exp(-(((place[:, None] - place) / sigma) ** 2) / 2)
    return weights / weights.sum(1, keepdims=True)


def _within(image: Image) -> Image:
    return image.clip(-1, 1)
