"""Pictures of a run: arrays in, PNG out."""

from __future__ import annotations

import io
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import matplotlib
import matplotlib.colors
import matplotlib.image
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

# Tiles lie on a dark ground, as on a light box; what stands there is light.
_GROUND, _INK = "#14171c", "#d7dce3"
_TILE_PIXELS = 320  # About how wide a tile is drawn.
_DPI = 100
_LEFT, _TOP, _GAP = 26, 24, 6  # Pixels beside, above and between tiles.

_LINES = ("#3b82f6", "#f28c28", "#2ca876")

# What indexes an image out of an array `[z y x]`.
Cut: TypeAlias = tuple[int | slice, ...]

# By error: none, split, merge, both.
ERROR_COLOURS = ("#000000", "#3f8cff", "#ff4b4b", "#c86bff")


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
    _plot(axis, rows, names)
    axis.set(xlabel="step", title=title)
    axis.legend()
    _save(figure, path)


def draw_learning(rows: Sequence[Mapping[str, float]], panels: Sequence[Sequence[str]]) -> bytes:
    """Draws metrics against the step, on no ground, legible on white and on black.

    Args:
      rows: of a metrics file.
      panels: side by side, each with the names of the metrics to draw in it.

    Returns:
      a PNG.
    """
    size = 5.5 * len(panels), 3.4
    figure = Figure(figsize=size, layout="constrained", facecolor="none")
    for axis, names in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        axis.set_prop_cycle(color=_LINES)
        _plot(axis, rows, names)
        axis.set(facecolor="none", xlabel="step")
        axis.grid(alpha=0.15)
        axis.tick_params(colors="#808080", labelsize=8)
        axis.xaxis.label.set(color="#808080", fontsize=8)
        axis.spines[:].set_color("#808080")
        axis.legend(labelcolor="#808080", framealpha=0, fontsize=8)
    return _png(figure)


def draw_segmentation(
    raw: np.ndarray,
    predicted: np.ndarray,
    cuts: Mapping[str, Cut],
    *,
    truth: np.ndarray | None = None,
    errors: np.ndarray | None = None,
) -> bytes:
    """Draws cuts through a segmentation over the raw image, beside the truth and the errors.

    Args:
      raw: intensities `[z y x]`.
      predicted: ids of the same shape; equal ids get equal colours, here and in the truth.
      cuts: what to draw, by label: each an index that gives an image, such as `(3,)`, the section
        z = 3.
      truth: ids of the same shape; 0 is background, −1 unlabelled, which is drawn darkened.
      errors: of the same shape: 0 none, 1 split, 2 merge, 3 both, as `ERROR_COLOURS` shows them.

    Returns:
      a PNG, a line of tiles for each cut.
    """
    limits = _limits(raw)
    lines = {}
    for label, cut in cuts.items():
        image = _gray(raw[cut], limits)
        tiles = {"raw": image}
        if truth is not None:
            tiles["truth"] = _overlay(image, truth[cut])
        tiles["segmentation"] = _overlay(image, predicted[cut])
        if errors is not None:
            tiles["errors"] = _mark(image, errors[cut])
        lines[label] = tiles
    return draw_tiles(lines)


def draw_prediction(
    raw: np.ndarray, prediction: np.ndarray, names: Sequence[str], cuts: Mapping[str, Cut]
) -> bytes:
    """Draws cuts through what a network predicts beside the raw image.

    Args:
      raw: intensities `[z y x]`.
      prediction: `[c z y x]` in [0, 1]; 0 is drawn black, 1 white.
      names: of the channels.
      cuts: what to draw, as in `draw_segmentation`.

    Returns:
      a PNG, a line of tiles for each cut.
    """
    limits = _limits(raw)
    lines = {}
    for label, cut in cuts.items():
        channels = zip(names, prediction, strict=True)
        tiles = {name: _gray(channel[cut], (0, 1)) for name, channel in channels}
        lines[label] = {"raw": _gray(raw[cut], limits), **tiles}
    return draw_tiles(lines)


def draw_tiles(lines: Mapping[str, Mapping[str, np.ndarray]]) -> bytes:
    """Draws a table of images; a pixel of an image becomes a whole number of pixels.

    Args:
      lines: by the label of a line and that of a column, images `[y x rgb]`, uint8; those of a line
        have one shape.

    Returns:
      a PNG.
    """
    shapes = [next(iter(line.values())).shape for line in lines.values()]
    widest = max(shape[1] for shape in shapes)
    scale = max(1, round(_TILE_PIXELS / widest))
    columns = list(next(iter(lines.values())))
    width = _LEFT + len(columns) * (scale * widest + _GAP)
    height = _TOP + sum(scale * shape[0] + _GAP for shape in shapes)
    figure = Figure(figsize=(width / _DPI, height / _DPI), facecolor=_GROUND)

    def write(text: str, x: float, y: float, rotation: int = 0) -> None:
        place = x / width, y / height
        figure.text(
            *place, text, rotation=rotation, color=_INK, fontsize=8, ha="center", va="center"
        )

    for i, name in enumerate(columns):
        write(name, _LEFT + i * (scale * widest + _GAP) + scale * widest / 2, height - _TOP / 2)
    bottom = height - _TOP
    for (label, tiles), shape in zip(lines.items(), shapes, strict=True):
        tall, wide = scale * shape[0], scale * shape[1]
        bottom -= tall
        write(label, _LEFT / 2, bottom + tall / 2, rotation=90)
        for i, name in enumerate(columns):
            left = _LEFT + i * (scale * widest + _GAP)
            place = (left / width, bottom / height, wide / width, tall / height)
            axis = figure.add_axes(place)
            axis.imshow(tiles[name], interpolation="nearest", aspect="auto")
            axis.set_axis_off()
        bottom -= _GAP
    # 256 colours look the same, in less than half of the bytes.
    drawn = Image.open(io.BytesIO(_png(figure))).convert("RGB")
    file = io.BytesIO()
    drawn.quantize(256).save(file, "PNG", optimize=True)
    return file.getvalue()


def _limits(raw: np.ndarray) -> tuple[float, float]:
    """The intensities to draw black and white: the darkest and brightest few are clipped."""
    low, high = np.percentile(raw[:: max(1, len(raw) // 16)], (0.5, 99.5)).tolist()
    return low, max(high, low + 1e-6)


def _gray(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Values `[y x]` as grey `[y x rgb]`, uint8."""
    level = np.clip((values - limits[0]) / (limits[1] - limits[0]), 0, 1)
    return np.repeat((255 * level).astype(np.uint8)[..., None], 3, -1)


def _overlay(image: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """An image `[y x rgb]` under the colours of ids: those above 0; those below 0 darken it."""
    strength = np.select([ids > 0, ids < 0], [0.45, 0.6], 0.0)[..., None]
    return (image * (1 - strength) + id_colours(ids) * strength).astype(np.uint8)


def _mark(image: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """An image `[y x rgb]`, a little darkened, with its errors in their colours."""
    colours = np.array([matplotlib.colors.to_rgb(name) for name in ERROR_COLOURS])
    strength = np.where(errors > 0, 0.65, 0.25)[..., None]
    return (image * (1 - strength) + 255 * colours[errors] * strength).astype(np.uint8)


def id_colours(ids: np.ndarray) -> np.ndarray:
    """A bright colour for every id above 0, the same in every picture; black for others.

    Args:
      ids: integers of any shape.

    Returns:
      uint8, with an axis for red, green and blue at the end.
    """
    # Steps of the golden ratio spread consecutive ids evenly over the hues.
    ids = np.asarray(ids).astype(np.int64)
    hue = ids * 0.6180339887498949 % 1
    colours = np.stack([hue, 0.55 + 0.15 * (ids % 4), 1 - 0.12 * (ids // 4 % 3)], -1)
    rgb = matplotlib.colors.hsv_to_rgb(colours) * (ids > 0)[..., None]
    return (255 * rgb).astype(np.uint8)


def _plot(axis, rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> None:
    """Plots metrics against the step; rows need not have each."""
    for name in names:
        points = [(row["step"], row[name]) for row in rows if name in row]
        if points:
            marker = "o" if len(points) < 50 else None
            axis.plot(*zip(*points, strict=True), label=name, marker=marker, markersize=3)
    axis.grid(alpha=0.3)


def _png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI)
    return file.getvalue()


def _save(figure: Figure, path: pathlib.Path) -> np.ndarray:
    """Writes a figure as PNG in one go; returns its pixels."""
    png = _png(figure)
    write(path, png)
    return pixels(png)


def write(path: pathlib.Path, png: bytes) -> None:
    """Writes a picture in one go."""
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(png)
    os.replace(temporary, path)


def pixels(png: bytes) -> np.ndarray:
    """The picture that a PNG holds, uint8 `[y x rgb]`."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
