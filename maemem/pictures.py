"""Pictures of a run: arrays in, PNG files out."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence

import matplotlib
import matplotlib.image
import numpy as np
from matplotlib.figure import Figure


def draw_reconstruction(
    path: pathlib.Path, rows: Mapping[str, np.ndarray], *, title: str, sections: int = 6
) -> np.ndarray:
    """Draws sections of crops, one above the other as the network got and made them.

    Args:
      path: the PNG to write; it is replaced in one go.
      rows: by label, crops `[b z y x]` in [−1, 1]; NaN is drawn as hidden.
      title: above all.
      sections: at most so many of each crop, evenly spaced.

    Returns:
      The picture, uint8 `[y x rgb]`.
    """
    first = next(iter(rows.values()))
    crops, depth = first.shape[:2]
    shown = np.unique(np.linspace(0, depth - 1, min(sections, depth)).round().astype(int))
    height = 1.3 * crops * len(rows) * first.shape[2] / first.shape[3]
    figure = Figure(figsize=(1.3 * len(shown) + 0.8, height + 0.5), layout="constrained")
    axes = figure.subplots(crops * len(rows), len(shown), squeeze=False)
    gray = matplotlib.colormaps["gray"].with_extremes(bad="#3b6ea5")
    for crop in range(crops):
        for i, (label, images) in enumerate(rows.items()):
            line = axes[crop * len(rows) + i]
            line[0].set_ylabel(label, fontsize=8)
            for axis, z in zip(line, shown, strict=True):
                axis.imshow(images[crop, z], cmap=gray, vmin=-1, vmax=1, interpolation="nearest")
                axis.set(xticks=[], yticks=[])
                if crop == i == 0:
                    axis.set_title(f"z = {z}", fontsize=8)
    figure.suptitle(title, fontsize=9)
    return _save(figure, path)


def draw_curves(
    path: pathlib.Path, rows: Sequence[Mapping[str, float]], *, names: Sequence[str], title: str
) -> None:
    """Draws metrics against the step.

    Args:
      path: the PNG to write; it is replaced in one go.
      rows: of a metrics file.
      names: of the metrics to draw; a row need not have each.
      title: above all.
    """
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axis = figure.subplots()
    for name in names:
        points = [(row["step"], row[name]) for row in rows if name in row]
        if points:
            marker = "o" if len(points) < 50 else None
            axis.plot(*zip(*points, strict=True), label=name, marker=marker, markersize=3)
    axis.set(xlabel="step", title=title)
    axis.grid(alpha=0.3)
    axis.legend()
    _save(figure, path)


def _save(figure: Figure, path: pathlib.Path) -> np.ndarray:
    """Writes a figure as PNG in one go; returns its pixels."""
    temporary = path.with_suffix(".tmp")
    figure.savefig(temporary, format="png", dpi=110)
    os.replace(temporary, path)
    pixels = matplotlib.image.imread(path, format="png")[..., :3]
    return (255 * pixels).round().astype(np.uint8)
