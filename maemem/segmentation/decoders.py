"""Predictions decoded to objects, for one set of thresholds or for all combinations of a grid.

A grid holds the values to try of each threshold, by name. What can be shared is computed once:
fragments for all scores, and one agglomeration for all of its thresholds.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer, UInt32

from maemem.geometry import Zyx
from maemem.segmentation.agglomeration import SCORES, agglomerate
from maemem.segmentation.agglomeration import fragments as cut_up
from maemem.segmentation.instances import compact, remove_small
from maemem.segmentation.markers import MarkerThresholds, marker_watershed
from maemem.segmentation.mutex import mutex_watershed
from maemem.segmentation.region_graph import Merging

Prediction = Float[np.ndarray, "c z y x"]
Labels = UInt32[np.ndarray, "z y x"]
Thresholds = dict[str, Any]
Grid = Mapping[str, Sequence[Any]]

# The thresholds of each method; of markers, those of distance are left out where there is none.
GRIDS = {
    "waterz": ("score", "low", "high", "threshold"),
    "fragments": ("low", "high"),
    "mutex": ("nearest_bias", "long_bias", "background"),
    "markers": ("seed_binary", "seed_contour", "mask_binary", "seed_distance", "mask_distance"),
}


def decode(method: str, prediction: Prediction, thresholds: Thresholds, **settings) -> Labels:
    """Objects by one set of thresholds; see `candidates`."""
    ((_, labels),) = candidates(
        method, prediction, {k: (v,) for k, v in thresholds.items()}, **settings
    )
    return labels


def candidates(
    method: str,
    prediction: Prediction,
    grid: Grid,
    *,
    smallest: int,
    sectionwise: bool = False,
    fragments: str = "steepest",
    offsets_zyx: Sequence[Zyx] = (),
) -> Iterator[tuple[Thresholds, Labels]]:
    """Objects by every combination of a grid.

    Args:
      method: one of `GRIDS`: `waterz` (fragments, agglomerated), `fragments` (the same, not
        agglomerated), `mutex`, `markers`.
      prediction: in [0, 1], of the channels that the method takes.
      grid: the values to try of each threshold of the method.
      smallest: objects of fewer voxels are removed.
      sectionwise: of waterz: whether fragments stay within a section.
      fragments: of waterz: how they are made, one of `agglomeration.FRAGMENTS`.
      offsets_zyx: of mutex: one for each channel.

    Returns:
      an iterator over thresholds and their objects, numbered 1 to n; 0 is background.

    Raises:
      ValueError: if the method is unknown, the grid is not the method's, or a value is impossible.
    """
    check_grid(method, grid)
    if method in ("waterz", "fragments"):
        cut = functools.partial(cut_up, prediction, sectionwise=sectionwise, method=fragments)
        found = _waterz(prediction, grid, cut) if method == "waterz" else _fragments(grid, cut)
    elif method == "mutex":
        found = _mutex(prediction, grid, offsets_zyx)
    else:
        found = _markers(prediction, grid)
    return ((thresholds, compact(remove_small(labels, smallest))) for thresholds, labels in found)


def cutter(
    method: str,
    thresholds: Thresholds,
    *,
    sectionwise: bool = False,
    fragments: str = "steepest",
    offsets_zyx: Sequence[Zyx] = (),
) -> tuple[Callable[[Prediction], Integer[np.ndarray, "z y x"]], Merging | None]:
    """One set of thresholds as a function that cuts a prediction up, and how pieces then merge.

    Args:
      method: one of `GRIDS`.
      thresholds: those of the method.
      sectionwise: see `candidates`, as for the others.
      fragments: there.
      offsets_zyx: there.

    Returns:
      a function of predictions to ids, 0 for background, that can be pickled; and, of waterz, which
      of its fragments become one object.
    """
    check_grid(method, {name: (value,) for name, value in thresholds.items()})
    if method == "mutex":
        return functools.partial(mutex_watershed, offsets_zyx=offsets_zyx, **thresholds), None
    if method == "markers":
        chosen = MarkerThresholds(**thresholds, smallest=0)
        return functools.partial(marker_watershed, thresholds=chosen), None
    cuts = {name: thresholds[name] for name in GRIDS["fragments"]}
    cut = functools.partial(cut_up, sectionwise=sectionwise, method=fragments, **cuts)
    if method == "fragments":
        return cut, None
    return cut, Merging(thresholds["score"], thresholds["threshold"])


def check_grid(method: str, grid: Grid) -> None:
    """Checks that a grid names the thresholds of its method, and a value for each.

    Raises:
      ValueError: if it does not.
    """
    if method not in GRIDS:
        raise ValueError(f"method {method!r} is unknown; choose one of {list(GRIDS)}")
    expected = GRIDS[method]
    if method == "markers" and "seed_distance" not in grid:
        expected = expected[:3]
    if set(grid) != set(expected) or not all(map(len, grid.values())):
        given = {name: tuple(values) for name, values in grid.items()}
        raise ValueError(
            f"the grid of {method} is {given}; expected one or more values of each of "
            f"{', '.join(expected)}"
        )
    if unknown := set(grid.get("score", ())) - set(SCORES):
        raise ValueError(f"score {unknown} is unknown; choose from {', '.join(SCORES)}")
    if "low" in grid and not 0 <= min(grid["low"]) <= max(grid["low"]) < min(grid["high"]):
        raise ValueError(
            f"the low cut-offs are {tuple(grid['low'])} and the high ones {tuple(grid['high'])}; "
            f"expected 0 <= low < high of every pair"
        )


def _combinations(grid: Grid, names: Sequence[str]) -> Iterator[Thresholds]:
    for values in itertools.product(*(grid[name] for name in names)):
        yield dict(zip(names, values, strict=True))


def _fragments(
    grid: Grid, cut: Callable[..., np.ndarray]
) -> Iterator[tuple[Thresholds, Integer[np.ndarray, "z y x"]]]:
    for cuts in _combinations(grid, ("low", "high")):
        yield cuts, cut(**cuts)


def _waterz(
    prediction: Prediction, grid: Grid, cut: Callable[..., np.ndarray]
) -> Iterator[tuple[Thresholds, Integer[np.ndarray, "z y x"]]]:
    falling = sorted(grid["threshold"], reverse=True)
    for cuts, pieces in _fragments(grid, cut):
        for score in grid["score"]:
            merged = agglomerate(prediction, pieces, falling, score)
            for threshold, labels in zip(falling, merged, strict=True):
                yield {**cuts, "score": score, "threshold": threshold}, labels


def _mutex(
    prediction: Prediction, grid: Grid, offsets_zyx: Sequence[Zyx]
) -> Iterator[tuple[Thresholds, Integer[np.ndarray, "z y x"]]]:
    for chosen in _combinations(grid, GRIDS["mutex"]):
        yield chosen, mutex_watershed(prediction, offsets_zyx, **chosen)


def _markers(
    prediction: Prediction, grid: Grid
) -> Iterator[tuple[Thresholds, Integer[np.ndarray, "z y x"]]]:
    for chosen in _combinations(grid, tuple(grid)):
        yield chosen, marker_watershed(prediction, MarkerThresholds(**chosen, smallest=0))
