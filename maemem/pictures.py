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

# Background and text of tiled pictures.
_GROUND, _INK = "#14171c", "#d7dce3"
_TILE_PIXELS = 320  # About how wide a tile is drawn.
_DPI = 100
_LEFT, _TOP, _GAP = 26, 24, 6  # Pixels beside, above and between tiles.

_HIDDEN = (59, 110, 165)

_LINES = ("#3b82f6", "#f28c28", "#2ca876")

# An index that selects an image from an array `[z y x]`.
Cut: TypeAlias = tuple[int | slice, ...]

# By error: none, split, merge, both.
ERROR_COLOURS = ("#000000", "#3f8cff", "#ff4b4b", "#c86bff")


def draw_crops(columns: Mapping[str, np.ndarray], *, sections: int = 2) -> bytes:
    """Draws sections of crops, a line each, in columns.

    Args:
      columns: by label, volumes `[b z y x]` of equal crops. Floats are grey values from −1 to 1,
        NaN where nothing is shown. Whole numbers are ids, −1 where unlabelled, which are drawn over
        the grey values of the column before them.
      sections: at most so many of each crop, evenly spaced.

    Returns:
      a PNG.
    """
    crops, depth = next(iter(columns.values())).shape[:2]
    count = min(sections, depth)
    lines: dict[str, dict[str, np.ndarray]] = {}
    for crop in range(crops):
        for z in ((2 * i + 1) * depth // (2 * count) for i in range(count)):
            image, tiles = np.zeros(0), {}
            for name, volumes in columns.items():
                values = np.asarray(volumes[crop, z])
                if np.issubdtype(values.dtype, np.integer):
                    tiles[name] = _overlay(image, values)
                else:
                    tiles[name] = image = _hidden(_gray(values, (-1, 1)), np.isnan(values))
            lines[f"crop {crop}, z = {z}"] = tiles
    return draw_tiles(lines)


def draw_curves(
    path: pathlib.Path, rows: Sequence[Mapping[str, float]], *, names: Sequence[str], title: str
) -> None:
    """Draws metrics against the step.

    Args:
      path: the PNG to write; it is replaced atomically.
      rows: of a metrics file.
      names: of the metrics to draw; rows may lack some.
      title: of the picture.
    """
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axis = figure.subplots()
    _plot(axis, rows, names)
    axis.set(xlabel="step", title=title)
    axis.legend()
    _save(figure, path)


def draw_learning(rows: Sequence[Mapping[str, float]], panels: Sequence[Sequence[str]]) -> bytes:
    """Draws metrics against the step, transparent, legible on white and black.

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
      predicted: ids of the same shape; equal ids have equal colours, also in the truth.
      cuts: by label, indices of images, such as `(3,)` for the section z = 3.
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
    """Draws cuts through a prediction beside the raw image.

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
    """Draws a table of images, magnified by a whole number.

    Args:
      lines: by line and column label, images `[y x rgb]`, uint8, of one shape in a line.

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
    # 256 colours look the same in less than half the bytes.
    drawn = Image.open(io.BytesIO(_png(figure))).convert("RGB")
    file = io.BytesIO()
    drawn.quantize(256).save(file, "PNG", optimize=True)
    return file.getvalue()


def _limits(raw: np.ndarray) -> tuple[float, float]:
    """The intensities drawn black and white: the 0.5th and 99.5th percentiles."""
    low, high = np.percentile(raw[:: max(1, len(raw) // 16)], (0.5, 99.5)).tolist()
    return low, max(high, low + 1e-6)


def _gray(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Values `[y x]` as grey `[y x rgb]`, uint8."""
    level = np.nan_to_num(np.clip((values - limits[0]) / (limits[1] - limits[0]), 0, 1))
    return np.repeat((255 * level).astype(np.uint8)[..., None], 3, -1)


def _hidden(image: np.ndarray, where: np.ndarray) -> np.ndarray:
    """An image `[y x rgb]` in which a colour that no tissue has stands for what is not shown."""
    return np.where(where[..., None], np.array(_HIDDEN, np.uint8), image)


def _overlay(image: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """An image `[y x rgb]` overlaid with the colours of ids above 0; ids below 0 darken it."""
    strength = np.select([ids > 0, ids < 0], [0.45, 0.6], 0.0)[..., None]
    return (image * (1 - strength) + id_colours(ids) * strength).astype(np.uint8)


def _mark(image: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """An image `[y x rgb]`, slightly darkened, with errors in `ERROR_COLOURS`."""
    colours = np.array([matplotlib.colors.to_rgb(name) for name in ERROR_COLOURS])
    strength = np.where(errors > 0, 0.65, 0.25)[..., None]
    return (image * (1 - strength) + 255 * colours[errors] * strength).astype(np.uint8)


def id_colours(ids: np.ndarray) -> np.ndarray:
    """A bright colour for each id above 0, the same in all pictures; black for others.

    Args:
      ids: integers of any shape.

    Returns:
      uint8, with a last axis of red, green and blue.
    """
    # Steps of the golden ratio distribute consecutive ids evenly over hues.
    ids = np.asarray(ids).astype(np.int64)
    hue = ids * 0.6180339887498949 % 1
    colours = np.stack([hue, 0.55 + 0.15 * (ids % 4), 1 - 0.12 * (ids // 4 % 3)], -1)
    rgb = matplotlib.colors.hsv_to_rgb(colours) * (ids > 0)[..., None]
    return (255 * rgb).astype(np.uint8)


def _plot(axis, rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> None:
    """Plots metrics against the step; rows may lack some."""
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
    """Writes a figure as PNG atomically; returns its pixels."""
    png = _png(figure)
    write(path, png)
    return pixels(png)


def write(path: pathlib.Path, png: bytes) -> None:
    """Writes a picture atomically."""
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(png)
    os.replace(temporary, path)


def pixels(png: bytes) -> np.ndarray:
    """The pixels of a PNG, uint8 `[y x rgb]`."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
