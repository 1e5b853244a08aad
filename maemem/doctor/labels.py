"""Checks of labels: what they hold, and whether they lie on the image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import cc3d
import numpy as np
from scipy import ndimage

from maemem.data.truth.labels import renumber
from maemem.doctor.verdict import Verdict, worst

# How far labels are looked for, in voxels: along z, and in plane.
_FAR_Z, _FAR = 2, 16

# Objects of fewer voxels are none.
_SPECK = 10

# That so few objects fit nowhere says nothing.
_FEW = 5

# So many standard deviations above the mean over all shifts a fit is one. On real EM (FIB-25,
# larval VNC) labels that lie right have 6 or more, those of other tissue up to 3.5.
_CLEAR = 4.5


def labels(ids: np.ndarray, unlabelled: int) -> Verdict:
    """Whether labels look like instances.

    Args:
      ids: a part of them, `[z y x]`, integers.
      unlabelled: the id of what nobody labelled.
    """
    found = renumber(ids, unlabelled)
    sizes = np.bincount(found[found > 0])
    sizes = sizes[sizes > 0]
    share = float(np.mean(found >= 0))
    if not len(sizes):
        return Verdict(
            "fail",
            f"no object; {share:.1%} of voxels are labelled",
            "choose a region with objects, and see that `labels` and `unlabelled` are right",
        )
    parts = parts_of_each(found)
    flat = flat_share(found)
    largest = sizes.max() / sizes.sum()
    said = (
        f"{share:.1%} of {found.size:,} voxels labelled, {np.mean(found > 0):.1%} objects: "
        f"{len(sizes)}, from {sizes.min():,} to {sizes.max():,} voxels (the largest is "
        f"{largest:.0%} of all), {np.mean(parts > 1):.0%} of them in several parts"
    )
    doubts = []
    if len(sizes) == 1 and parts[0] > 1:
        doubts.append(
            Verdict(
                "warn",
                f"one id for {parts[0]} separate parts is a mask, not instances",
                "give each object an id of its own (cc3d.connected_components)",
            )
        )
    elif largest > 0.9 and (len(sizes) > 1 or sizes.max() > 0.9 * found.size):
        original = ids[found == np.argmax(np.bincount(found[found > 0]))][0]
        doubts.append(
            Verdict(
                "warn",
                f"id {original} may be background or what nobody labelled",
                f"make background 0, or name it: `unlabelled`={original}",
            )
        )
    if flat > 0.5:
        doubts.append(
            Verdict(
                "warn",
                f"{flat:.0%} of objects' voxels are of ids that live in one section",
                "give an object one id in all of its sections",
            )
        )
    if np.mean(sizes < _SPECK) > 0.5 and len(sizes) > 1:
        doubts.append(
            Verdict(
                "warn",
                f"{np.mean(sizes < _SPECK):.0%} of objects have fewer than {_SPECK} voxels",
                "were ids interpolated, or lossily compressed? Take those of the original",
            )
        )
    return worst(said, doubts)


def parts_of_each(found: np.ndarray) -> np.ndarray:
    """Of each id above 0, in how many parts it is that do not touch; ids as they rise."""
    parts, count = cc3d.connected_components(
        np.maximum(found, 0), connectivity=26, return_N=True, out_dtype=np.uint32
    )
    owner = np.zeros(count + 1, np.int64)
    owner[parts.ravel()] = found.ravel()
    per_id = np.bincount(owner[1:])
    return per_id[per_id > 0]


def flat_share(found: np.ndarray) -> float:
    """The share of objects' voxels that belongs to ids of one section; 0 of a single section."""
    if len(found) < 2:
        return 0.0
    count = int(found.max()) + 1
    per_section = np.stack([np.bincount(s[s > 0], minlength=count) for s in found])
    single = (per_section > 0).sum(0) == 1
    return float(per_section[:, single].sum() / per_section.sum())


class Fit(NamedTuple):
    """Where labels fit an image best.

    Attributes:
      shift_zyx: how far they lie from there, in voxels.
      clear: by how many standard deviations that fit is above the mean over all shifts.
      kept: the share of that fit that they have where they are; at the median over shifts it is 0.
      feature: what of the image their borders lie on.
    """

    shift_zyx: tuple[int, int, int]
    clear: float
    kept: float
    feature: str


def shift(image: np.ndarray, ids: np.ndarray) -> Verdict:
    """Whether the borders of labels lie on what looks like borders in the image.

    Args:
      image: `[z y x]`.
      ids: of the same shape; what nobody labelled counts as any other id.
    """
    if min(image.shape[1:]) < 4 * _FAR:
        return Verdict("ok", f"not looked for in sections of less than {4 * _FAR} voxels")
    fit = best_fit(image, ids)
    if fit is None:
        return Verdict("ok", "not looked for without borders between ids, or without contrast")
    z, y, x = fit.shift_zyx
    right = fit.kept > (0.95 if z else 0.8) or (not z and max(abs(y), abs(x)) <= 1)
    clear = fit.clear >= _CLEAR
    said = f"borders lie on {fit.feature} ({fit.clear:.1f} deviations from the mean over shifts)"
    if clear and right:
        return Verdict("ok", said)
    # An object or two fit somewhere by chance, but not each half of the tissue in the same place.
    halves = [half for half in (best_fit(*half) for half in _halves(image, ids)) if half]
    alike = [np.abs(np.subtract(half.shift_zyx, fit.shift_zyx)).max() <= 2 for half in halves]
    if clear and len(alike) == 2 and all(alike):
        return Verdict(
            "warn",
            f"{said} only when moved by {-z}, {-y}, {-x} voxels along z, y, x; as they are, they "
            f"fit {max(fit.kept, 0):.0%} as well",
            "look at the contact sheet; if it is so, move the labels",
        )
    if clear or len(np.unique(ids)) <= _FEW:
        return Verdict("ok", "not found out: the labels show too little")
    return Verdict(
        "warn",
        f"the labels' borders follow the image at no shift up to {_FAR} voxels (the best one "
        f"stands out by {fit.clear:.1f} deviations, {_CLEAR} is clear)",
        "look at the contact sheet: are they labels of this volume, in the same order of axes?",
    )


def _halves(image: np.ndarray, ids: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Both, cut across the longer side of their sections."""
    axis = int(np.argmax(image.shape[1:])) + 1
    middle = image.shape[axis] // 2
    parts = np.s_[:middle], np.s_[middle:]
    cuts = [(slice(None),) * axis + (part,) for part in parts]
    return [(image[cut], ids[cut]) for cut in cuts]


def best_fit(image: np.ndarray, ids: np.ndarray) -> Fit | None:
    """Looks for the shift of labels at which their borders correlate best with the image.

    Borders lie either on what is dark (membranes, where objects touch) or where grey values change
    (the outline of objects that do not); whichever of the two is clearer decides.

    Returns:
      None, if there is nothing to correlate.
    """
    borders = _borders(ids)
    fits = []
    for feature, values in _features(image.astype(np.float32)).items():
        inner = values[:, _FAR:-_FAR, _FAR:-_FAR]
        inner = inner - inner.mean((1, 2), keepdims=True)
        if not borders.any() or not inner.any():
            return None
        found = _correlations(inner, borders)
        z = max(found, key=lambda z: found[z].max())
        best = found[z]
        y, x = np.unravel_index(best.argmax(), best.shape)
        here, usual = found[0][_FAR, _FAR], np.median(best)
        fits.append(
            Fit(
                (z, int(y) - _FAR, int(x) - _FAR),
                float((best.max() - best.mean()) / max(best.std(), 1e-9)),
                float((here - usual) / max(best.max() - usual, 1e-9)),
                feature,
            )
        )
    return max(fits, key=lambda fit: fit.clear)


def _borders(ids: np.ndarray) -> np.ndarray:
    """Where an id in plane differs from the one before it, float32."""
    borders = np.zeros(ids.shape, bool)
    borders[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    borders[:, :, 1:] |= ids[:, :, 1:] != ids[:, :, :-1]
    return borders.astype(np.float32)


def _features(image: np.ndarray) -> Mapping[str, np.ndarray]:
    """What borders may lie on, of each section."""
    smooth = ndimage.gaussian_filter(image, (0, 1, 1))
    around = ndimage.gaussian_filter(image, (0, 6, 6))
    down, across = (
        ndimage.gaussian_filter1d(ndimage.gaussian_filter1d(image, 1.5, a, order=1), 1.5, b)
        for a, b in ((1, 2), (2, 1))
    )
    return {"what is dark": around - smooth, "edges": np.hypot(down, across)}


def _correlations(inner: np.ndarray, borders: np.ndarray) -> dict[int, np.ndarray]:
    """The correlation of a feature's inner part with borders, for each shift of these.

    Args:
      inner: `[z y x]`, each section of mean 0, without a margin of `_FAR` voxels in plane.
      borders: 0 or 1, with that margin.

    Returns:
      By the shift along z `[y x]`: at (_FAR, _FAR) that of no shift in plane, one further that of
      borders that lie one further.
    """
    shape, shown = borders.shape[1:], 2 * _FAR + 1
    of_inner = np.conj(np.fft.rfft2(inner, shape))
    of_borders = np.fft.rfft2(borders)
    found = {}
    far = min(_FAR_Z, len(inner) - 1)
    for z in range(-far, far + 1):
        count = len(inner) - abs(z)
        image, moved = slice(max(-z, 0), max(-z, 0) + count), slice(max(z, 0), max(z, 0) + count)
        total = np.einsum("zyx,zyx->yx", of_inner[image], of_borders[moved])
        product = np.fft.irfft2(total, shape)[:shown, :shown]
        # One share of border voxels for all shifts: where one shifts few borders out of sight, or
        # into it, their own would make much of them.
        share = borders[moved].mean()
        spread = np.sqrt(np.square(inner[image]).mean() * share * (1 - share))
        found[z] = product / (count * inner[0].size) / max(spread, 1e-9)
    return found
