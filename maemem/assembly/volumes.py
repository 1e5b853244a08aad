"""The volumes of a config, opened and checked."""

from __future__ import annotations

import functools
import itertools
import logging
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from maemem.config import Config
from maemem.data import truth as truths
from maemem.data.samples.crops import check_crops, check_disjoint
from maemem.data.sets.datasets import open_dataset
from maemem.data.stores.volumes import Binning, Volume, shared_context
from maemem.data.truth import Origin, Truth
from maemem.geometry import Box, format_zyx

log = logging.getLogger(__name__)

# The types of raw voxels that microscopes give.
INTENSITIES = ("uint8", "uint16", "int16", "float32")


class Mix(NamedTuple):
    """Volumes, their relative shares of the crops, and their truth where fields were asked for."""

    volumes: list[Volume]
    weights: list[float]
    truths: list[Truth]


def open_mix(config: Config, name: str, workdir: pathlib.Path, fields: Sequence[str] = ()) -> Mix:
    """Opens the volumes of the set `data.NAME`, converting or making what must be in WORKDIR/cache.

    Args:
      config: the experiment's.
      name: of the set.
      workdir: of the run.
      fields: of truth; with any, only volumes whose truth gives them are taken.

    Raises:
      ValueError: if there are none, or one of them cannot serve; it names it.
      FileNotFoundError: if a path does not exist.
    """
    mix = Mix([], [], [])
    for entry in _entries(config, name).values():
        if fields and not entry.labels:
            continue
        whole = open_raw(config, entry, workdir)
        if fields:
            truth = open_truth(config, entry, workdir, whole)
            if not set(fields) <= set(truth.fields):
                continue
            mix.truths.append(truth.cut(entry.region))
        mix.volumes.append(whole.cut(entry.region))
        mix.weights.append(entry.weight)
    if not mix.volumes:
        raise ValueError(
            f"no volume of data.{name} has {' and '.join(fields)}; name them in its field `labels`"
        )
    check_crops(mix.volumes, mix.weights, config.data.crop_zyx)
    return mix


def check_sets(config: Config, workdir: pathlib.Path) -> None:
    """Opens all volumes and truths of the config, so that no mistake waits until hours later.

    Raises:
      ValueError: if one of them cannot serve, or two sets share voxels: what a network learnt from,
        or thresholds were tuned on, must not be scored as new.
      FileNotFoundError: if a path does not exist.
    """
    sets = {name: config.data[name].values() for name in ("train", "validation", "test")}
    wholes = {name: [open_raw(config, e, workdir) for e in sets[name]] for name in sets}
    pairs = {name: list(zip(sets[name], wholes[name], strict=True)) for name in sets}
    check_disjoint({n: [whole.cut(e.region) for e, whole in pairs[n]] for n in sets})
    for entry, whole in itertools.chain(*pairs.values()):
        scored_box(entry, whole)
        if entry.labels:
            open_truth(config, entry, workdir, whole)


def scored_box(entry: Config, raw: Volume) -> Box:
    """The part of a volume that scores count.

    Raises:
      ValueError: if it leaves the volume's region.
    """
    box = Box.parse(entry.scored or entry.region, raw.shape_zyx)
    if not Box.parse(entry.region, raw.shape_zyx).contains(box):
        raise ValueError(
            f"the scored part [{entry.scored}] of {raw.source} leaves its region [{entry.region}]"
        )
    return box


def open_raw(config: Config, entry: Config, workdir: pathlib.Path) -> Volume:
    """Opens the whole of a volume of the config.

    Raises:
      ValueError: if it cannot serve as an image.
      FileNotFoundError: if its path does not exist.
    """
    volume = _open(config, entry, entry.path, workdir, "mean")
    _check_intensities(volume, config.data.intensity_range)
    return volume


def open_truth(config: Config, entry: Config, workdir: pathlib.Path, raw: Volume) -> Truth:
    """Opens the truth of a whole volume of the config.

    Raises:
      ValueError: if it does not fit its volume.
      FileNotFoundError: if its path does not exist.
    """

    def open_ids(path: str) -> Volume:
        return _open(config, entry, path, workdir, "mode")

    return truths.open_truth(
        Origin(entry.labels, config.data.root, raw, entry.unlabelled, open_ids)
    )


def open_scored(
    config: Config, workdir: pathlib.Path, entry: Config
) -> tuple[Callable[[Box], np.ndarray], Box]:
    """What reads the truth of a box as `read_truth` does, and the part that scores count."""
    raw = open_raw(config, entry, workdir)
    return open_truth(config, entry, workdir, raw).read, scored_box(entry, raw)


def read_truth(config: Config, workdir: pathlib.Path, entry: Config) -> tuple[np.ndarray, Box]:
    """The truth of a volume in the part that scores count, −1 where unlabelled; and that part.

    Raises:
      ValueError: if the part leaves the volume's region, or the truth does not fit its volume.
      FileNotFoundError: if there is none.
    """
    read, box = open_scored(config, workdir, entry)
    return read(box), box


def _entries(config: Config, name: str) -> Config:
    if not config.data[name]:
        raise ValueError(f"the config names no volumes in data.{name}")
    return config.data[name]


def _open(
    config: Config, entry: Config, path: str, workdir: pathlib.Path, binning: Binning
) -> Volume:
    volume = open_dataset(
        path,
        root=config.data.root,
        cache=workdir / "cache",
        voxel_size_nm=tuple(entry.voxel_size_nm) or None,
        context=shared_context(config.runtime.cache_bytes),
    ).binned(tuple(config.data.bin_zyx), binning)
    _say_once(
        f"volume {volume.source}: {format_zyx(volume.shape_zyx)} {volume.dtype} at "
        f"{format_zyx(volume.voxel_size_nm)} nm"
    )
    return volume


@functools.cache
def _say_once(message: str) -> None:
    """Every stage opens its volumes; one line each is enough."""
    log.info(message)


def _check_intensities(volume: Volume, intensity_range: tuple[float, ...]) -> None:
    """Refuses labels, and grey values whose range nobody gave."""
    if volume.dtype not in INTENSITIES:
        raise ValueError(
            f"{volume.source} holds {volume.dtype}, which no microscope gives; expected raw "
            f"intensities of uint8, uint16, int16 or float32, not labels"
        )
    if volume.dtype != "uint8" and not intensity_range:
        raise ValueError(
            f"{volume.source} holds {volume.dtype}, but data.intensity_range is empty, which means "
            f"that of uint8; give the darkest and the brightest intensity of its tissue, such as "
            f"--config.data.intensity_range='(0.,4000.)'"
        )
