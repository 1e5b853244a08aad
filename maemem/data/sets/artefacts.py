"""Artefacts of serial sectioning, which damage single sections."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from scipy import ndimage

Artefact = Literal["missing", "shifted", "blurred", "brightened"]

SECTIONS_PER_SET = 40  # every artefact occurs once in so many sections


def plan(sections: int, seed: int) -> dict[int, Artefact]:
    """The artefact of each damaged section; a pure function of its arguments.

    The first and last section and one of any two neighbours stay intact, so each damaged section
    lies between two intact ones. Volumes of under nine sections get as many artefacts as fit.

    Raises:
      ValueError: if there are fewer than three sections.
    """
    if sections < 3:
        raise ValueError(f"{sections} sections leave no inner one to damage; make at least 3")
    rng = np.random.default_rng((seed, 1))  # another stream than the tissue's
    kinds = get_args(Artefact)
    count = min(len(kinds) * -(-sections // SECTIONS_PER_SET), (sections - 1) // 2)
    # Choosing among `spare` and spreading by one each leaves an intact section between any two.
    spare = sections - 1 - count
    chosen = np.sort(rng.choice(spare, count, replace=False)) + np.arange(count) + 1
    order = rng.permutation(count)
    return {int(z): kinds[i % len(kinds)] for z, i in zip(chosen, order, strict=True)}


def apply(image: np.ndarray, artefacts: dict[int, Artefact]) -> np.ndarray:
    """A damaged copy of a uint8 image `[z y x]`.

    A missing section is black. A shifted one moves by a sixteenth of its height and width, and its
    uncovered border is black. A blurred one has a Gaussian blur of two voxels. A brightened one has
    more contrast and brightness.
    """
    damaged = image.copy()
    for z, kind in artefacts.items():
        damaged[z] = _damage(image[z], kind)
    return damaged


def _damage(section: np.ndarray, kind: Artefact) -> np.ndarray:
    match kind:
        case "missing":
            return np.zeros_like(section)
        case "shifted":
            dy, dx = (n // 16 for n in section.shape)
            moved = np.zeros_like(section)
            moved[dy:, dx:] = section[: section.shape[0] - dy, : section.shape[1] - dx]
            return moved
        case "blurred":
            return ndimage.gaussian_filter(section, 2.0)
        case "brightened":
            return np.clip(section * 1.15 + 30.0, 0, 255).astype(section.dtype)
