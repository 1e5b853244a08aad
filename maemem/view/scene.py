"""What to show of a volume in a workdir: layers, and errors of the segmentation."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import pathlib
from typing import Literal

import tensorstore as ts

from maemem import layout
from maemem.assembly.volumes import open_raw, open_truth, scored_box
from maemem.blockwise.store import open_labels, open_prediction
from maemem.config import UINT8_RANGE, Config
from maemem.data.stores.formats import VoxelSize
from maemem.data.truth import LabelVolume
from maemem.geometry import Box, Zyx
from maemem.reporting.errors import Spot
from maemem.stages.predict import SETS
from maemem.stages.report import compare_volume

_COLOURS = ("red", "green", "blue", "magenta", "cyan", "yellow")  # Of channels, in turn.

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Layer:
    """An array and its position in the volume."""

    name: str
    kind: Literal["image", "probability", "labels"]
    store: ts.TensorStore  # [z y x], its origin at 0
    voxel_size_nm: VoxelSize  # z y x
    start_zyx: Zyx = (0, 0, 0)  # in voxels of the volume
    colour: str = ""  # of a probability
    unlabelled: int = -1  # of labels: an id to hide, like negative ones


@dataclasses.dataclass(frozen=True)
class Scene:
    """The layers of one volume, from bottom to top, and its errors."""

    title: str
    layers: tuple[Layer, ...]
    voxel_size_nm: VoxelSize  # z y x
    intensity_range: tuple[float, float]  # of the raw volume, from black to white
    scored: Box  # shown first
    spots: tuple[Spot, ...] = ()  # their centres in voxels of the volume
    # True object of each segment, where each is the other's largest overlap.
    matches: dict[int, int] = dataclasses.field(default_factory=dict)


def read_scene(
    config: Config, workdir: pathlib.Path, *, name: str = "", volume: str = "", spots: int = 20
) -> Scene:
    """Opens the results for one volume in a workdir.

    Args:
      config: that the workdir was made with.
      workdir: where the results are.
      name: of the set, `test` or `validation`; empty: the first that has results.
      volume: its name in that set; empty: the first that has results.
      spots: how many errors to find, of each kind.

    Raises:
      ValueError: if there is no such set or volume, or no result for it yet.
      FileNotFoundError: if the raw volume has moved.
    """
    name, volume = _choose(config, workdir, name, volume)
    entry = config.data[name][volume]
    raw = open_raw(config, entry, workdir)
    size = raw.voxel_size_nm
    layers = [Layer("raw", "image", raw.store, size)]
    path = layout.prediction_path(workdir, name, volume)
    if path.exists():
        stored = open_prediction(path)
        start = stored.region.start_zyx
        layers += [
            Layer(f"prediction {each}", "probability", stored.store[i], size, start, colour)
            for (i, each), colour in zip(enumerate(stored.channels), itertools.cycle(_COLOURS))
        ]
    truth = open_truth(config, entry, workdir, raw) if entry.labels else None
    if isinstance(truth, LabelVolume):
        store, unlabelled = truth.volume.store, truth.unlabelled
        layers.append(Layer("truth", "labels", store, size, unlabelled=unlabelled))
    path = layout.labels_path(workdir, name, volume)
    found, matches = [], {}
    if path.exists():
        stored = open_labels(path)
        layers.append(Layer("segmentation", "labels", stored.store, size, stored.region.start_zyx))
        shown = compare_volume(config, workdir, volume, entry, path, spots)
        start = shown.box.start_zyx
        found = [s._replace(centre_zyx=_moved(s.centre_zyx, start)) for s in shown.spots]
        matches = shown.comparison.matches() if shown.comparison else {}
    else:
        log.info("%s %s is not segmented yet; the stage segment does it", name, volume)
    low, high = config.data.intensity_range or UINT8_RANGE
    title = f"{workdir.resolve().name}: {name} {volume}"
    scored = scored_box(entry, raw)
    return Scene(title, tuple(layers), size, (low, high), scored, tuple(found), matches)


def _moved(place: Zyx, by: Zyx) -> Zyx:
    z, y, x = (a + b for a, b in zip(place, by, strict=True))
    return z, y, x


def _choose(config: Config, workdir: pathlib.Path, name: str, volume: str) -> tuple[str, str]:
    """The set and volume to show: the first segmented one, else the first predicted one."""
    every = [(s, v) for s in reversed(SETS) for v in config.data[s]]
    wanted = [(s, v) for s, v in every if name in ("", s) and volume in ("", v)]
    if not wanted:
        known = ", ".join(f"--set={s} --name={v}" for s, v in every) or "none to segment"
        raise ValueError(
            f"{workdir} has no volume {volume} in the set {name or 'test or validation'}; its "
            f"volumes are {known}"
        )
    segmented = [each for each in wanted if layout.labels_path(workdir, *each).exists()]
    predicted = [each for each in wanted if layout.prediction_path(workdir, *each).exists()]
    if not segmented + predicted:
        raise ValueError(
            f"{workdir} has no prediction of {' or '.join(f'{s} {v}' for s, v in wanted)} yet; run "
            f"the stages predict and segment of its config first, as in python -m maemem.main "
            f"--config=CONFIG --workdir={workdir} --config.stages=\"('predict','segment')\""
        )
    return (segmented + predicted)[0]
