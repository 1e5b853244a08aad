"""Crops cut into patches and put together again; tokens run along z, then y, then x."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped

from maemem.geometry import Zyx, format_zyx


def token_grid(crop_zyx: Sequence[int], patch_zyx: Zyx) -> Zyx:
    """How many patches a crop has along z, y and x.

    Args:
      crop_zyx: shape of the crop, in voxels.
      patch_zyx: shape of a patch, in voxels.

    Raises:
      ValueError: if the patches do not tile the crop.
    """
    for axis, crop, patch in zip("zyx", crop_zyx, patch_zyx, strict=True):
        if crop % patch:
            nearest = sorted({crop // patch * patch or patch, (crop // patch + 1) * patch})
            raise ValueError(
                f"crop {format_zyx(crop_zyx)} is not divisible by patch {format_zyx(patch_zyx)} "
                f"along {axis}; nearest: {' or '.join(map(str, nearest))}"
            )
    z, y, x = (crop // patch for crop, patch in zip(crop_zyx, patch_zyx, strict=True))
    return z, y, x


def patchify(image: Shaped[Array, "b z y x c"], patch_zyx: Zyx) -> Shaped[Array, "b n p"]:
    """Cuts crops into flat patches.

    Args:
      image: the crops; z, y and x are multiples of the patch's.
      patch_zyx: shape of a patch, in voxels.

    Returns:
      `n` patches in token order (z, then y, then x), each of `p` values in the order z, y, x, c.

    Raises:
      ValueError: if the patches do not tile the crops.
    """
    b, z, y, x, c = image.shape
    gz, gy, gx = token_grid((z, y, x), patch_zyx)
    pz, py, px = patch_zyx
    image = image.reshape(b, gz, pz, gy, py, gx, px, c)  # [b z y x c] -> [b gz pz gy py gx px c]
    image = jnp.transpose(image, (0, 1, 3, 5, 2, 4, 6, 7))  # -> [b gz gy gx pz py px c]
    return image.reshape(b, gz * gy * gx, -1)  # -> [b n p]


def unpatchify(
    patches: Shaped[Array, "b n p"], grid_zyx: Zyx, patch_zyx: Zyx
) -> Shaped[Array, "b z y x c"]:
    """Puts the patches of `patchify` together again.

    Args:
      patches: `n` patches in token order, each of `p` values in the order z, y, x, c.
      grid_zyx: how many patches there are along z, y and x.
      patch_zyx: shape of a patch, in voxels.
    """
    b = patches.shape[0]
    (gz, gy, gx), (pz, py, px) = grid_zyx, patch_zyx
    patches = patches.reshape(b, gz, gy, gx, pz, py, px, -1)  # [b n p] -> [b gz gy gx pz py px c]
    image = jnp.transpose(patches, (0, 1, 4, 2, 5, 3, 6, 7))  # -> [b gz pz gy py gx px c]
    return image.reshape(b, gz * pz, gy * py, gx * px, -1)  # -> [b z y x c]


def take_tokens(tokens: Shaped[Array, "b n d"], ids: Int[Array, "b m"]) -> Shaped[Array, "b m d"]:
    """The tokens `ids` of each crop."""
    return jnp.take_along_axis(tokens, ids[:, :, None], axis=1)  # [b n d] -> [b m d]
