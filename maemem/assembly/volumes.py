"""The volumes of a config, opened and checked."""

from __future__ import annotations

import functools
import itertools
import logging
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from maemem.config import Config
from maemem.data.samples.crops import check_crops, check_disjoint
from maemem.data.samples.pipeline import Labels
from maemem.data.sets.datasets import open_dataset
from maemem.data.stores.volumes import Binning, Volume, shared_context
from maemem.geometry import Box, format_zyx

log = logging.getLogger(__name__)

# The types of raw voxels that microscopes give.
INTENSITIES = ("uint8", "uint16", "int16", "float32")


class Mix(NamedTuple):
    """Volumes and their relative shares of the crops."""

    volumes: list[Volume]
    weights: list[float]


def open_mix(config: Config, name: str, workdir: pathlib.Path) -> Mix:
    """Opens the volumes of the set `data.NAME`, converting or making what must be in WORKDIR/cache.

    Raises:
      ValueError: if there are none, or one of them cannot serve; it names it.
      FileNotFoundError: if a path does not exist.
    """
    entries = _entries(config, name).values()
    opened = [open_raw(config, entry, workdir).cut(entry.region) for entry in entries]
    weights = [entry.weight for entry in entries]
    check_crops(opened, weights, config.data.crop_zyx)
    return Mix(opened, weights)


def open_labelled_mix(config: Config, name: str, workdir: pathlib.Path) -> tuple[Mix, list[Labels]]:
    """Opens those volumes of the set `data.NAME` that have labels, and these.

    Raises:
      ValueError: if there are none, or one of them cannot serve; it names it.
      FileNotFoundError: if a path does not exist.
    """
    entries = [entry for entry in _entries(config, name).values() if entry.labels]
    if not entries:
        raise ValueError(f"no volume of data.{name} has labels; name them in its field `labels`")
    wholes = [open_raw(config, entry, workdir) for entry in entries]
    labels = [
        Labels(open_labels(config, entry, workdir, whole).cut(entry.region), entry.unlabelled)
        for entry, whole in zip(entries, wholes, strict=True)
    ]
    opened = [whole.cut(entry.region) for entry, whole in zip(entries, wholes, strict=True)]
    weights = [entry.weight for entry in entries]
    check_crops(opened, weights, config.data.crop_zyx)
    return Mix(opened, weights), labels


def check_sets(config: Config, workdir: pathlib.Path) -> None:
    """Opens all volumes and labels of the config, so that no mistake waits until hours later.

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
            open_labels(config, entry, workdir, whole)


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


def open_labels(config: Config, entry: Config, workdir: pathlib.Path, raw: Volume) -> Volume:
    """Opens the labels of a whole volume of the config.

    Raises:
      ValueError: if they are of another shape than the volume, or no ids.
      FileNotFoundError: if their path does not exist.
    """
    labels = _open(config, entry, entry.labels, workdir, "mode")
    if labels.shape_zyx != raw.shape_zyx:
        raise ValueError(
            f"the labels {labels.source} have shape zyx {format_zyx(labels.shape_zyx)}, and their "
            f"volume {raw.source} has {format_zyx(raw.shape_zyx)}; expected the same"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"the labels {labels.source} hold {labels.dtype}; expected whole ids")
    return labels


def open_scored(
    config: Config, workdir: pathlib.Path, entry: Config
) -> tuple[Callable[[Box], np.ndarray], Box]:
    """What reads the labels of a box as `read_truth` does, and the part that scores count."""
    raw = open_raw(config, entry, workdir)
    labels = open_labels(config, entry, workdir, raw)
    return functools.partial(_read_labels, labels, entry.unlabelled), scored_box(entry, raw)


def read_truth(config: Config, workdir: pathlib.Path, entry: Config) -> tuple[np.ndarray, Box]:
    """The labels of a volume in the part that scores count, −1 where unlabelled; and that part.

    Raises:
      ValueError: if the part leaves the volume's region, or the labels do not fit their volume.
      FileNotFoundError: if there are none.
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


def _read_labels(labels: Volume, unlabelled: int, box: Box) -> np.ndarray:
    truth = labels.read(box)
    if np.issubdtype(truth.dtype, np.signedinteger):
        truth = np.maximum(truth, -1)  # As training has it, all negative ids are unlabelled.
    if unlabelled < 0:
        return truth
    return np.where(truth == unlabelled, -1, truth.astype(np.int64))
