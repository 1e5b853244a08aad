"""Conversions of published labels to ids of instances; all in memory."""

from __future__ import annotations

import enum
from collections.abc import Iterable

import cc3d
import fastremap
import numpy as np


class Encoding(enum.Enum):
    """How a data set encodes instances."""

    AS_IT_IS = "ids, or an image"
    COMPONENTS = "a mask, of which each connected component is one"
    LINKED = "a mask of thick sections, whose components are linked by their overlap"
    COLOURS_REVERSED = "a colour each, in sections numbered from the last to the first"
    BODIES = "supervoxels, and a table of the bodies that they belong to"


def components(mask: np.ndarray) -> np.ndarray:
    """Ids of the connected components of a mask; voxels that share a corner are connected.

    Args:
      mask: [z y x], bool.

    Returns:
      [z y x], the narrowest unsigned type that holds the ids.
    """
    return fastremap.refit(cc3d.connected_components(mask, connectivity=26))


def linked_components(mask: np.ndarray) -> np.ndarray:
    """Ids of the objects of a mask with sections too thick for 3-D components.

    Each section's components (4-connected) are linked to those of the next section, where each is
    the other's largest overlap.

    Args:
      mask: [z y x], bool.

    Returns:
      [z y x], the narrowest unsigned type that holds the ids.
    """
    ids = np.zeros(mask.shape, np.uint32)
    highest = 0
    for z, section in enumerate(mask):
        found = cc3d.connected_components(np.ascontiguousarray(section), connectivity=4)
        ids[z] = np.where(found > 0, found.astype(np.uint32) + highest, 0)
        highest += int(found.max())
        if z > 0:
            best = _mutual_best(ids[z - 1], ids[z])
            ids[z] = fastremap.remap(ids[z], best, preserve_missing_labels=True)
    return fastremap.refit(fastremap.renumber(ids)[0])


def _mutual_best(before: np.ndarray, after: np.ndarray) -> dict[int, int]:
    """Ids of a section, each with the id before it where both overlap each other most."""
    both = (before > 0) & (after > 0)
    packed = after[both].astype(np.uint64) << 32 | before[both]
    pairs, shared = np.unique(packed, return_counts=True)
    forward: dict[int, int] = {}
    backward: dict[int, int] = {}
    # Sorted by overlap, so that the largest is written last.
    for pair in pairs[np.argsort(shared, kind="stable")].tolist():
        a, b = pair >> 32, pair & 0xFFFFFFFF
        forward[a], backward[b] = b, a
    return {a: b for a, b in forward.items() if backward[b] == a}


def colour_ids(sections: Iterable[np.ndarray]) -> np.ndarray:
    """Ids of the colours in sections; black is background.

    Args:
      sections: [y x c], uint8, red, green and blue first.

    Returns:
      [z y x], uint16, or wider if need be.
    """
    packed = [section[..., :3].astype(np.uint32) @ _PLACES for section in sections]
    return fastremap.refit(fastremap.renumber(np.stack(packed))[0])


_PLACES = np.array([1 << 16, 1 << 8, 1], np.uint32)


def bodies(supervoxels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Ids of bodies, merged from supervoxels.

    Args:
      supervoxels: [z y x], unsigned.
      table: [n 2], a supervoxel and its body; supervoxels without a row become 0.

    Returns:
      [z y x], the narrowest unsigned type that holds the ids, which count from 1.
    """
    listed = dict.fromkeys(map(int, fastremap.unique(supervoxels)), 0)
    listed.update((int(a), int(b)) for a, b in table)
    joined = fastremap.remap(supervoxels.astype(np.uint64), listed)
    return fastremap.refit(fastremap.renumber(joined)[0])
