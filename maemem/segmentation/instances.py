"""Clean-up of instance labels."""

import fastremap
import numpy as np
from jaxtyping import Integer, UInt32


def remove_small(
    labels: Integer[np.ndarray, "*shape"], smallest: int
) -> Integer[np.ndarray, "*shape"]:
    """Turns instances of fewer than `smallest` voxels into background.

    An instance is an id, in however many parts. Background (0) and unlabelled voxels (-1) stay.

    Returns:
      a new array of the same dtype.

    Raises:
      ValueError: if `smallest` is negative.
    """
    if smallest < 0:
        raise ValueError(f"smallest is {smallest}; give a number of voxels, from 0 on")
    ids, voxels = fastremap.unique(labels, return_counts=True)
    return fastremap.mask(labels, ids[(voxels < smallest) & (ids > 0)])


def compact(labels: Integer[np.ndarray, "*shape"]) -> UInt32[np.ndarray, "*shape"]:
    """Numbers the instances 1 to n in order of first appearance (z, then y, then x).

    Background stays 0. Equal segmentations become equal arrays, whatever their ids were.

    Raises:
      ValueError: if a label is negative.
    """
    if labels.size and labels.min() < 0:
        raise ValueError(
            f"the lowest label is {labels.min()}; only 0 and instances can be numbered, "
            f"so set unlabelled voxels to 0 first"
        )
    return fastremap.renumber(np.ascontiguousarray(labels), in_place=False)[0].astype(np.uint32)
