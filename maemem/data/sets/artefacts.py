"""Artefacts of serial sectioning: what befalls single sections between the knife and the camera."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from scipy import ndimage

Artefact = Literal["missing", "shifted", "blurred", "brightened"]

SECTIONS_PER_SET = 40  # each run of so many sections suffers every artefact once


def plan(sections: int, seed: int) -> dict[int, Artefact]:
    """Which section suffers what; a pure function of its arguments.

    The first and the last section stay whole, and no two neighbours suffer, so each damaged section
    lies between two good ones. Volumes of under nine sections get only as many artefacts as fit.

    Raises:
      ValueError: if there are fewer than three sections.
    """
    if sections < 3:
        raise ValueError(f"{sections} sections leave no inner one to damage; make at least 3")
    rng = np.random.default_rng((seed, 1))  # not the tissue's own stream
    kinds = get_args(Artefact)
    count = min(len(kinds) * -(-sections // SECTIONS_PER_SET), (sections - 1) // 2)
    # Choosing among `spare` and spreading by one each leaves a good section between any two.
    spare = sections - 1 - count
    chosen = np.sort(rng.choice(spare, count, replace=False)) + np.arange(count) + 1
    order = rng.permutation(count)
    return {int(z): kinds[i % len(kinds)] for z, i in zip(chosen, order, strict=True)}


def apply(image: np.ndarray, artefacts: dict[int, Artefact]) -> np.ndarray:
    """A damaged copy of a uint8 image `[z y x]`.

    A missing section is black. A shifted one moves by a sixteenth of its height and width, and the
    border that this uncovers is black. A blurred one is out of focus by two voxels. A brightened
    one gains contrast and light.
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
