"""Shows what a workdir holds on one page.

Reads what the other stages left, whichever of them ran; writes WORKDIR/report/index.html, which
needs nothing outside itself.
"""

from __future__ import annotations

import logging
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from maemem import layout, pictures
from maemem.assembly.volumes import open_raw, open_scored, scored_box
from maemem.blockwise.store import open_labels, open_prediction, read_prediction
from maemem.config import Config
from maemem.data.stores.damage import read_json
from maemem.data.stores.formats import VoxelSize
from maemem.geometry import Box
from maemem.reporting.errors import (
    Comparison,
    Spot,
    compare,
    error_spots,
    share_ids,
    telling_sections,
)
from maemem.reporting.page import Findings, Panel, VolumeErrors, render
from maemem.stages.predict import SETS
from maemem.training.metrics import read_metrics

log = logging.getLogger(__name__)

_VOLUMES = 2  # At most so many are drawn.
_VOXELS = 40_000_000  # Of a larger volume the middle is compared and drawn.
_SECTIONS = 3
_WINDOW = 320  # Of wider sections the middle is drawn; in voxels.
_SPOTS = 6  # Listed, of each kind.
_DRAWN_SPOTS, _SPOT_WINDOW = 4, 128
_CHANNELS = 6


class Shown(NamedTuple):
    """The part of a volume that is compared and drawn."""

    name: str
    box: Box  # in voxels of the whole volume
    voxel_size_nm: VoxelSize
    raw: np.ndarray  # [z y x]
    predicted: np.ndarray  # ids [z y x], those of the truth where they are right
    truth: np.ndarray | None  # ids [z y x]
    comparison: Comparison | None
    spots: Sequence[Spot]


def run(config: Config, workdir: pathlib.Path) -> None:
    """Runs the stage; the page is made anew every time.

    Args:
      config: see `maemem.config.segmenting`.
      workdir: where results are, and the page goes.

    Raises:
      ValueError: if a result cannot be read.
    """
    if jax.process_index() != 0:
        return
    shown = list(_compared(config, workdir))
    findings = Findings(
        title=workdir.resolve().name,
        scores=_read_json(layout.scores_path(workdir)),
        tuned=_read_json(layout.tuned_path(workdir)).get("thresholds", {}),
        segmentations=[_draw_segmentation(each) for each in shown],
        errors=[_errors(each) for each in shown if each.truth is not None],
        predictions=[
            *_draw_predictions(config, workdir),
            *_held_out(
                layout.picture_path(workdir, "finetune"),
                "Held-out crops at the last evaluation of fine-tuning.",
            ),
        ],
        learning=list(_draw_learning(workdir)),
        reconstructions=_held_out(
            layout.picture_path(workdir, "pretrain"),
            "Held-out crops at the last evaluation of pre-training.",
        ),
        timings=_read_json(layout.timings_path(workdir)),
        record=_read_json(layout.config_path(workdir)),
    )
    target = layout.report_path(workdir)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(".tmp")
    temporary.write_text(render(findings), encoding="utf-8")
    os.replace(temporary, target)
    log.info("report: %s", target)


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    """What a file holds; nothing, if there is none."""
    return read_json(path) if path.exists() else {}


def _drawn(
    config: Config, workdir: pathlib.Path, path_of: Callable[..., pathlib.Path]
) -> Iterator[tuple[str, Config, pathlib.Path]]:
    """The first volumes of the test set, or else of validation, that have a result at its path.

    Yields names, what the config says of them, and the result.
    """
    for name in reversed(SETS):
        entries = config.data[name].items()
        found = [(volume, entry, path_of(workdir, name, volume)) for volume, entry in entries]
        found = [each for each in found if each[2].exists()]
        if found:
            yield from found[:_VOLUMES]
            return


def _compared(config: Config, workdir: pathlib.Path) -> Iterator[Shown]:
    """The segmentations, each with its raw image and, where it has labels, beside the truth."""
    for name, entry, path in _drawn(config, workdir, layout.labels_path):
        yield compare_volume(config, workdir, name, entry, path, _SPOTS)


def compare_volume(
    config: Config, workdir: pathlib.Path, name: str, entry: Config, path: pathlib.Path, spots: int
) -> Shown:
    """A segmentation in the part that scores count, or the middle of it where that is large.

    Args:
      config: that the workdir was made with.
      workdir: where results are.
      name: of the volume.
      entry: what the config says of it.
      path: of its labels.
      spots: how many splits and how many merges to find.
    """
    labels, raw = open_labels(path), open_raw(config, entry, workdir)
    box = _middle(scored_box(entry, raw), _VOXELS)
    predicted, image = labels.read(box), raw.read(box)
    truth = comparison = None
    found = []
    if entry.labels:
        truth = open_scored(config, workdir, entry)[0](box)
        comparison = compare(truth, predicted)
        found = error_spots(truth, predicted, spots, comparison)
        predicted = share_ids(truth, predicted, comparison)
    return Shown(name, box, labels.voxel_size_nm, image, predicted, truth, comparison, found)


def _middle(box: Box, voxels: int) -> Box:
    """The middle of a box: its longest axis is halved until it has no more than so many voxels."""
    start, shape = list(box.start_zyx), list(box.shape_zyx)
    while math.prod(shape) > voxels:
        axis = shape.index(max(shape))
        start[axis] += shape[axis] // 4
        shape[axis] //= 2
    (z, y, x), (depth, height, width) = start, shape
    return Box((z, y, x), (z + depth, y + height, x + width))


def _window(size: int, length: int, centre: int | None = None) -> slice:
    """A range of an axis around a place, or the middle, as long as the axis allows."""
    start = (size // 2 if centre is None else centre) - length // 2
    start = max(0, min(start, size - length))
    return slice(start, min(size, start + length))


def _draw_segmentation(shown: Shown) -> Panel:
    z0, y0, _ = shown.box.start_zyx
    depth, height, width = shown.box.shape_zyx
    y, x = _window(height, _WINDOW), _window(width, _WINDOW)
    errors = None if shown.comparison is None else shown.comparison.errors
    telling = np.zeros((depth, 1, 1), np.uint8) if errors is None else errors[:, y, x]
    cuts: dict[str, pictures.Cut] = {
        f"z = {z0 + z}": (z, y, x) for z in telling_sections(telling, _SECTIONS)
    }
    if max(shown.voxel_size_nm) < 1.5 * min(shown.voxel_size_nm):
        cuts[f"y = {y0 + height // 2}"] = (slice(None), height // 2, x)
    png = pictures.draw_segmentation(
        shown.raw, shown.predicted, cuts, truth=shown.truth, errors=errors
    )
    caption = f"{shown.name}, voxels {shown.box}. "
    if errors is not None:
        caption += (
            "An object has one colour in the truth and in its main segment. Of every third of the "
            "sections the one with most errors is shown; splits are blue, merges red, both purple. "
        )
    if width > _WINDOW or height > _WINDOW:
        caption += f"Sections are shown in their middle {_WINDOW} voxels."
    return Panel(png, caption.strip(), wide=True)


def _errors(shown: Shown) -> VolumeErrors:
    _, height, width = shown.box.shape_zyx
    cuts: dict[str, pictures.Cut] = {}
    for i, spot in enumerate(shown.spots[:_DRAWN_SPOTS], 1):
        z, y, x = spot.centre_zyx
        around = _window(height, _SPOT_WINDOW, y), _window(width, _SPOT_WINDOW, x)
        cuts[f"{i} (z = {shown.box.start_zyx[0] + z})"] = (z, *around)
    panel = None
    if cuts and shown.comparison is not None:
        png = pictures.draw_segmentation(
            *(shown.raw, shown.predicted, cuts),
            truth=shown.truth,
            errors=shown.comparison.errors,
        )
        panel = Panel(
            png,
            f"The largest {len(cuts)} errors of {shown.name}. They are numbered as above, and each "
            f"is in the middle, but for those near a border.",
            wide=True,
        )
    return VolumeErrors(
        f"{shown.name}, voxels {shown.box}",
        shown.spots,
        shown.box.start_zyx,
        shown.voxel_size_nm,
        panel,
    )


def _draw_predictions(config: Config, workdir: pathlib.Path) -> Iterator[Panel]:
    for name, entry, path in _drawn(config, workdir, layout.prediction_path):
        stored = open_prediction(path)
        raw = open_raw(config, entry, workdir)
        region = Box.parse(entry.scored or entry.region, raw.shape_zyx)
        (z0, y0, x0), (depth, height, width) = region.start_zyx, region.shape_zyx
        y, x = _window(height, _WINDOW), _window(width, _WINDOW)
        images, channels = [], []
        sections = [z0 + z for z in telling_sections(np.zeros((depth, 1, 1)), 2)]
        for z in sections:
            box = Box((z, y0 + y.start, x0 + x.start), (z + 1, y0 + y.stop, x0 + x.stop))
            images.append(raw.read(box))
            channels.append(read_prediction(path, box)[:_CHANNELS])
        png = pictures.draw_prediction(
            np.concatenate(images),
            np.concatenate(channels, axis=1),
            stored.channels[:_CHANNELS],
            {f"z = {z}": (i,) for i, z in enumerate(sections)},
        )
        caption = f"{name}: what the network predicts, from 0 (black) to 1 (white)."
        if len(stored.channels) > _CHANNELS:
            caption += f" The first {_CHANNELS} of {len(stored.channels)} channels are shown."
        yield Panel(png, caption, wide=True)


def _draw_learning(workdir: pathlib.Path) -> Iterator[Panel]:
    for stage in ("pretrain", "finetune"):
        path = layout.metrics_path(workdir, stage)
        rows = read_metrics(path) if path.exists() else []
        names = {name for row in rows for name in row}
        held_out = sorted(name for name in names if name.startswith("eval_"))
        panels = [panel for panel in (["loss"] if "loss" in names else [], held_out) if panel]
        if panels:
            last = {name: value for row in rows for name, value in row.items()}
            values = ", ".join(f"{n} {last[n]:.4g}" for panel in panels for n in panel)
            caption = f"{stage}, to step {last['step']}. Last: {values}."
            yield Panel(pictures.draw_learning(rows, panels), caption)


def _held_out(path: pathlib.Path, caption: str) -> list[Panel]:
    """The picture that a training drew at its last evaluation."""
    return [Panel(path.read_bytes(), caption, paper=True)] if path.exists() else []
