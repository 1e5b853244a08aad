"""A baseline that needs no network: affinities straight from the image."""

import numpy as np
from jaxtyping import Float32, Num
from scipy.ndimage import gaussian_filter


def intensity_affinities(
    image: Num[np.ndarray, "z y x"], sigma_zyx: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> Float32[np.ndarray, "3 z y x"]:
    """Takes dark for membrane: the affinity of two neighbours is the darker one's brightness.

    So the very pipeline that decodes a network's affinities, tuned in the same way, says what the
    image alone is worth.

    Args:
      image: bright inside cells, dark on membranes, of any range.
      sigma_zyx: the Gaussian's standard deviation that smooths it first, in voxels.

    Returns:
      affinities of the nearest three neighbours in [0, 1], where 0 and 1 are the 1st and the 99th
      percentile of the smoothed image. At a volume's first voxels, which have no predecessor, 0.
    """
    smooth = gaussian_filter(image.astype(np.float32), sigma_zyx)
    dark, bright = np.percentile(smooth, (1, 99))
    inside: np.ndarray = np.clip((smooth - dark) / max(bright - dark, 1e-6), 0, 1)
    affinities = np.zeros((3, *image.shape), np.float32)
    for axis in range(3):
        values = np.moveaxis(inside, axis, 0)
        np.moveaxis(affinities[axis], axis, 0)[1:] = np.minimum(values[1:], values[:-1])
    return affinities
