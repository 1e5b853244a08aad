"""Targets of labelled crops by numpy, scipy and the `edt` library, as data loaders make them."""

from __future__ import annotations

import edt
import numpy as np
from scipy.ndimage import maximum_filter

from benchmarks.labels import crops_of_cells, fingerprint

LIBRARIES = ("numpy", "scipy", "edt")
# Voxels over which the distance saturates, inside and outside of instances.
FOREGROUND_SCALE, BACKGROUND_SCALE = 8.0, 50.0


def prepare(crops, shape, thickness, offsets, times):
    labels = crops_of_cells(crops, shape, thickness)
    values = np.empty(0)

    def step():
        nonlocal values
        for _ in range(times):
            values = affinities(labels, offsets) if offsets else bcd(labels, width=1)

    return step, lambda: {"amount": times * crops, "result": fingerprint(values)}


def affinities(crops: np.ndarray, offsets) -> np.ndarray:
    """Affinities of crops `[b z y x]` along offsets that are not positive, by slices."""
    out = np.zeros((*crops.shape, len(offsets)), np.float32)
    for channel, offset in enumerate(offsets):
        ends = tuple(slice(-step, None) for step in offset)
        starts = tuple(slice(None, step or None) for step in offset)
        here, there = crops[:, *ends], crops[:, *starts]
        out[:, *ends, channel] = (here == there) & (here > 0)
    return out


def bcd(crops: np.ndarray, width: int) -> np.ndarray:
    """Binary, contour and distance of crops `[b z y x]`, section by section."""
    out = np.empty((*crops.shape, 3), np.float32)
    for place in np.ndindex(crops.shape[:2]):
        section = crops[place]
        inside = section > 0
        edge = np.zeros(section.shape, bool)
        down = section[1:] != section[:-1]
        right = section[:, 1:] != section[:, :-1]
        edge[1:] |= down
        edge[:-1] |= down
        edge[:, 1:] |= right
        edge[:, :-1] |= right
        depth = edt.edt(inside) / FOREGROUND_SCALE - edt.edt(~inside) / BACKGROUND_SCALE
        near = maximum_filter(edge, 2 * width + 1)
        # As our networks predict it: from 0 to 1.
        out[place] = np.stack([inside, near, (np.tanh(depth) + 1) / 2], axis=-1)
    return out
