"""Objects from nearest and long-range affinities, without a threshold: mutex watershed."""

from collections.abc import Sequence

import mwatershed
import numpy as np
from jaxtyping import Float, UInt64

from maemem.geometry import Zyx
from maemem.segmentation.checks import check_probabilities

NEAREST_ZYX = [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]


def mutex_watershed(
    affinities: Float[np.ndarray, "c z y x"],
    offsets_zyx: Sequence[Zyx],
    nearest_bias: float = 0.0,
    long_bias: float = 1.0,
    background: float = 0.0,
) -> UInt64[np.ndarray, "z y x"]:
    """Joins and separates voxels, surest pair first (Wolf et al. 2018).

    A pair of voxels weighs its affinity less a bias: above zero they attract, below zero they
    repel, at zero neither. In order of absolute weight, a pair that attracts is joined unless that
    would join what is kept apart, and a pair that repels is kept apart unless it is joined already.
    With the default biases nearest pairs only attract, and long-range ones only repel.

    Args:
      affinities: in [0, 1]; channel k at v is the affinity between v and v + offsets_zyx[k].
      offsets_zyx: one for each channel: the nearest three, then long-range ones.
      nearest_bias: the bias of the first three channels.
      long_bias: the bias of the others.
      background: voxels whose nearest three affinities have a mean below this are background.

    Returns:
      ids from 1 on, with gaps; 0 is background, and voxels that have a say in no pair.

    Raises:
      ValueError: if the affinities are not in [0, 1], or the offsets do not fit them.
    """
    check_probabilities(affinities, channels=3)
    offsets = [list(offset) for offset in offsets_zyx]
    if len(offsets) != len(affinities) or offsets[:3] != NEAREST_ZYX:
        raise ValueError(
            f"{len(affinities)} channels of affinities have the offsets {offsets}; "
            f"give one for each channel, of which the first three are {NEAREST_ZYX}"
        )
    weights = affinities.astype(np.float64)
    weights[:3] -= nearest_bias
    weights[3:] -= long_bias
    empty = affinities[:3].mean(0) < background
    # An offset as long as the volume pairs no voxels, and mwatershed would panic.
    fits = [all(abs(o) < n for o, n in zip(offset, empty.shape, strict=True)) for offset in offsets]
    weights = weights[fits]
    offsets = [offset for offset, fit in zip(offsets, fits, strict=True) if fit]
    for weight, offset in zip(weights, offsets, strict=True):
        weight[empty | _shifted(empty, offset)] = 0
    labels = mwatershed.agglom(weights, offsets)
    labels[empty] = 0
    return labels


def _shifted(mask: np.ndarray, offset_zyx: Sequence[int]) -> np.ndarray:
    """At v, the mask at v + offset; False outside of the volume."""
    shifted = np.zeros_like(mask)
    here = tuple(
        slice(max(0, -o), n - max(0, o)) for o, n in zip(offset_zyx, mask.shape, strict=True)
    )
    there = tuple(
        slice(max(0, o), n - max(0, -o)) for o, n in zip(offset_zyx, mask.shape, strict=True)
    )
    shifted[here] = mask[there]
    return shifted
