"""The check-up of a config: all checks, in order."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable
from typing import TypeVar

from jax.errors import JaxRuntimeError

from maemem.assembly.networks import intensity_range
from maemem.assembly.volumes import check_sets
from maemem.config import Config
from maemem.data.sets.datasets import located
from maemem.data.stores.readers import is_foreign, sections
from maemem.data.stores.volumes import Volume
from maemem.doctor import labels, machine, predictions, sheet, trials, volumes
from maemem.doctor.trials import Trial
from maemem.doctor.verdict import Verdict
from maemem.doctor.volumes import SETS, Opened
from maemem.stages import predict, train
from maemem.stages.thresholds import check_thresholds

T = TypeVar("T")

# Looked at of a region: what tells enough, and is read in seconds.
_LOOK_ZYX, _LABELS_ZYX, _SHIFT_ZYX = (64, 256, 256), (128, 512, 512), (16, 512, 512)


@dataclasses.dataclass(frozen=True)
class Line:
    """A verdict with the name of the check, such as `sections train/unlabelled`."""

    check: str
    verdict: Verdict


class Examination:
    """Makes checks, one by one, and keeps what they say.

    A check that raises anything has failed: a user's mistake, a device without memory, or what a
    library makes of a file. The others go on. What several stumble over is said once.
    """

    def __init__(self, say: Callable[[Line], None]):
        self.lines: list[Line] = []
        self._say = say

    def check(self, name: str, check: Callable[..., Verdict], *arguments) -> Verdict:
        """Makes a check; it passes on what it says."""
        try:
            verdict = check(*arguments)
        except Exception as error:
            known = isinstance(error, ValueError | OSError | JaxRuntimeError)
            verdict = Verdict("fail", str(error) if known else f"{type(error).__name__}: {error}")
            for line in self.lines:
                if line.verdict == verdict:
                    verdict = Verdict("warn", f"not checked: see {line.check}")
                    break
        self.lines.append(Line(name, verdict))
        self._say(self.lines[-1])
        return verdict

    def open(self, name: str, make: Callable[[], T], describe: Callable[[T], Verdict]) -> T | None:
        """Makes something that others are checked with, or nothing, where that fails."""
        made: list[T] = []

        def check() -> Verdict:
            made.append(make())
            return describe(made[0])

        self.check(name, check)
        return made[0] if made else None


def examine(config: Config, workdir: pathlib.Path, say: Callable[[Line], None]) -> list[Line]:
    """Makes all checks that suit the stages of a config.

    Writes nothing but WORKDIR/cache, as a run would, and pictures in WORKDIR/doctor.

    Args:
      config: the experiment's.
      workdir: that of the run.
      say: is told each line as soon as it is known.

    Returns:
      All lines.
    """
    examination = Examination(say)
    check = examination.check
    check("devices", machine.devices)
    if check("copies", machine.copies, config, workdir).level == "fail":
        return examination.lines
    opened = []
    for name, entry in ((s, entry) for s in SETS for entry in config.data[s]):
        volume = examination.open(
            f"volume {name}/{entry}",
            lambda name=name, entry=entry: volumes.open_entry(config, name, entry, workdir),
            volumes.describe,
        )
        opened += [volume] if volume else []
    check("sets", _sets, config, workdir)
    for volume, where in ((volume, f"{volume.set}/{volume.name}") for volume in opened):
        for name, of_volume in _OF_VOLUMES.items():
            check(f"{name} {where}", of_volume, config, volume)
        for name, of_labels in _OF_LABELS.items():
            if volume.labels:
                check(f"{name} {where}", of_labels, volume, volume.labels)
    for path in _paths(opened):
        there = located(path, config.data.root)
        if is_foreign(there) and pathlib.Path(there).is_dir():
            files = [file.name for file in sections(pathlib.Path(there))]
            check(f"numbering {pathlib.Path(there).name}", volumes.numbering, files)
    trained = _examine_trainings(examination, config, opened, workdir)
    if "predict" in config.stages:
        _examine_prediction(examination, config, opened, trained, workdir)
    if "segment" in config.stages:
        _examine_segmentation(examination, config, opened, workdir)
    foretold = {
        line.check.removeprefix("pace "): line.verdict.seconds
        for line in examination.lines
        if line.verdict.seconds is not None
    }
    check("time", trials.total, config.stages, foretold)
    return examination.lines


def _examine_trainings(
    examination: Examination, config: Config, opened: list[Opened], workdir: pathlib.Path
) -> list[Trial]:
    """Makes the checks of stages that train; returns those that can."""
    check = examination.check
    found = [
        examination.open(
            stage,
            lambda stage=stage: trials.open_trial(config, stage, workdir),
            trials.describe,
        )
        for stage in train.STAGES
        if stage in config.stages
    ]
    trained = [trial for trial in found if trial]
    states = {trial.stage: trial.state_bytes for trial in trained}
    check("disk", machine.disk, config, opened, states, workdir)
    for trial in trained:
        stage = trial.stage
        check(f"contact sheet {stage}", sheet.contact_sheet, trial, workdir / "doctor")
        fits = check(f"memory {stage}", trials.memory, trial).level != "fail"
        if stage == "finetune" or trial.ready.run.encoder:
            check(f"start {stage}", trials.start, trial, workdir)
        if fits:  # Else this would be killed for it.
            check(f"pace {stage}", trials.pace, trial)
    return trained


def _examine_prediction(
    examination: Examination,
    config: Config,
    opened: list[Opened],
    trained: list[Trial],
    workdir: pathlib.Path,
) -> None:
    """Makes the checks of the stage predict, with the network that is there or will be."""
    if predict.network_is_made(config):
        fine_tuned = [trial for trial in trained if trial.stage == "finetune"]
        network = predictions.of_trial(fine_tuned[0], opened) if fine_tuned else None
    else:
        network = examination.open(
            "network",
            lambda: predictions.of_network(config, opened, workdir),
            predictions.describe,
        )
    if network and examination.check("memory predict", predictions.memory, network).level != "fail":
        examination.check("pace predict", predictions.pace, network)


def _examine_segmentation(
    examination: Examination, config: Config, opened: list[Opened], workdir: pathlib.Path
) -> None:
    """Makes the checks of the stages segment and evaluate."""
    check, free = examination.check, machine.memory_of_machine()
    check("thresholds", _thresholds, config, workdir)
    check("memory blocks", machine.decoding_memory, config, opened, free)
    if "intensity" in config.segment.baselines:
        check("memory intensity", machine.intensity_memory, opened, free)


def _paths(opened: list[Opened]) -> dict[str, None]:
    """The paths of images and labels, each once."""
    paths = (path for volume in opened for path in (volume.entry.path, volume.entry.labels))
    return dict.fromkeys(path for path in paths if path)


def _thresholds(config: Config, workdir: pathlib.Path) -> Verdict:
    check_thresholds(config, workdir)
    return Verdict("ok", "there are volumes to tune them on, or those that the network has fit")


def _sets(config: Config, workdir: pathlib.Path) -> Verdict:
    check_sets(config, workdir)
    return Verdict("ok", "no voxel is in two of train, validation and test")


_OF_VOLUMES: dict[str, Callable[[Config, Opened], Verdict]] = {
    "axes": lambda config, volume: volumes.axes(
        volume.raw.voxel_size_nm,
        volume.labels.voxel_size_nm if volume.labels else None,
        volume.raw.shape_zyx,
        volume.read(volume.raw, _LOOK_ZYX),
    ),
    "intensities": lambda config, volume: volumes.intensities(
        volumes.read_crops(volume, config.data.crop_zyx), intensity_range(config)
    ),
    "sections": lambda config, volume: volumes.sections(
        volumes.read_sections(volume), volume.region.shape_zyx[0]
    ),
    "chunks": lambda config, volume: volumes.chunks(
        config.data.crop_zyx,
        volumes.chunk_shape(volume.raw),
        volume.region.shape_zyx,
        volume.raw.dtype.itemsize,
        config.runtime.cache_bytes,
    ),
}
_OF_LABELS: dict[str, Callable[[Opened, Volume], Verdict]] = {
    "labels": lambda volume, ids: labels.labels(
        volume.read(ids, _LABELS_ZYX), volume.entry.unlabelled
    ),
    "shift": lambda volume, ids: labels.shift(
        volume.read(volume.raw, _SHIFT_ZYX), volume.read(ids, _SHIFT_ZYX)
    ),
}
