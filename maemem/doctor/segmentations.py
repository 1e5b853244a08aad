"""Checks of the stages segment and evaluate: their pace, by a sample that is tuned and decoded."""

from __future__ import annotations

import collections
import dataclasses
import functools
import logging
import math
import pathlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from maemem.blockwise.segment import segment_volume
from maemem.blockwise.store import read_labels
from maemem.config import Config
from maemem.doctor import machine
from maemem.doctor.predictions import Prediction
from maemem.doctor.samples import MOST_ZYX, Sample, take_sample
from maemem.doctor.verdict import Verdict, between
from maemem.doctor.volumes import Opened, middle
from maemem.geometry import Box, format_zyx
from maemem.reporting.page import NETWORK
from maemem.scores.contingency import contingency
from maemem.scores.summary import score_all
from maemem.segmentation.decoders import GRIDS, candidates, cutter
from maemem.segmentation.intensity import intensity_affinities
from maemem.stages import predict
from maemem.stages.thresholds import decoder, methods, settings_of

log = logging.getLogger(__name__)

_TRIED_ZYX = ((16, 32, 32), (32, 64, 64), MOST_ZYX)  # In turn, until it takes
_SECONDS = 0.5  # so long.


@dataclasses.dataclass(frozen=True)
class Rates:
    """What a method takes, in seconds a voxel.

    Attributes:
      tune: to decode and score it by all combinations of the grid.
      cut: of a block with its halo, to cut it up.
      block: of a block, all else that is done of it.
      whole: of the volume, what is done of all blocks together.
      score: of the volume, to score it.
    """

    tune: float
    cut: float
    block: float
    whole: float
    score: float


@dataclasses.dataclass(frozen=True)
class Trial:
    """The stages segment and evaluate, tried on a sample.

    Attributes:
      config: the experiment's.
      held_out: the volumes that are to be segmented.
      sample: tissue of one of them.
      folder: for what is written meanwhile.
    """

    config: Config
    held_out: list[Opened]
    sample: Sample
    folder: pathlib.Path

    @functools.cached_property
    def rates(self) -> list[dict[str, Rates]]:
        """By method, for each that may be said of the tissue."""
        found = []
        for said in self.sample.said:
            decoded = {method: said for method in methods(self.config)}
            if "intensity" in decoded:
                decoded["intensity"] = intensity_affinities(self.sample.raw)
            found.append({name: self._measure(name, values) for name, values in decoded.items()})
        return found

    def _measure(self, method: str, decoded: np.ndarray) -> Rates:
        log.info("decoding a sample by %s", method)
        tune = 0.0 if method == "fragments" else self._tune(method, decoded)
        for box in self._boxes():
            rates, seconds = self._decode(method, decoded, box, tune)
            if seconds > _SECONDS:
                break
        return rates

    def _boxes(self) -> list[Box]:
        """Growing ones, in the middle: what is quick is timed on more tissue."""
        return [middle(self.sample.shape_zyx, most_zyx) for most_zyx in _TRIED_ZYX]

    def _tune(self, method: str, decoded: np.ndarray) -> float:
        """Seconds a voxel; of combinations that share nothing, the middle one counts for all."""
        config, grid = self.config, self.config.segment.grid.to_dict()
        shared = ("score", "threshold")
        tried = {name: each if name in shared else (_central(each),) for name, each in grid.items()}
        times = _combinations(grid) / _combinations(tried)
        for box in self._boxes():
            values, truth = decoded[(slice(None), *box.slices)], self.sample.truth[box.slices]
            began = time.perf_counter()
            for _, labels in candidates(
                decoder(config, method), values, tried, **settings_of(config, method)
            ):
                score_all(contingency(truth, labels), **config.evaluate.to_dict())
            seconds = time.perf_counter() - began
            if seconds > _SECONDS:
                break
        return times * seconds / truth.size

    def _decode(
        self, method: str, decoded: np.ndarray, box: Box, tune: float
    ) -> tuple[Rates, float]:
        """As the stages do, a box in one block, by the middle of the grid; and the seconds."""
        config, settings = self.config, settings_of(self.config, method)
        kind, smallest = decoder(config, method), settings.pop("smallest")
        grid = config.segment.grid
        chosen = {name: _central(grid[name]) for name in GRIDS[kind] if name in grid}
        cut, merging = cutter(kind, chosen, **settings)
        spent = collections.defaultdict[str, float](float)
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            path = pathlib.Path(folder) / "labels.zarr"
            _timed(spent, "all", segment_volume)(
                lambda part: decoded[(slice(None), *part.slices)],
                _timed(spent, "cut", cut),
                path,
                region=box,
                voxel_size_nm=self.held_out[0].raw.voxel_size_nm,
                block_zyx=box.shape_zyx,
                halo_zyx=config.segment.halo_zyx,
                smallest=smallest,
                identity={},
                merging=merging,
                workers=lambda work, each: map(_timed(spent, "blocks", work), each),
                progress=False,
            )
            _timed(spent, "score", self._score)(path, box)
        voxels = math.prod(box.shape_zyx)
        of_blocks, whole = spent["blocks"] - spent["cut"], spent["all"] - spent["blocks"]
        a_voxel = (seconds / voxels for seconds in (spent["cut"], of_blocks, whole, spent["score"]))
        return Rates(tune, *a_voxel), spent["all"]

    def _score(self, path: pathlib.Path, box: Box) -> None:
        table = contingency(self.sample.truth[box.slices], read_labels(path))
        score_all(table, **self.config.evaluate.to_dict())


def open_trial(
    config: Config, opened: list[Opened], network: Prediction | None, workdir: pathlib.Path
) -> Trial:
    """Takes a sample of what is to be segmented; for what it raises, see `take_sample`."""
    held_out = [volume for volume in opened if volume.set in predict.SETS]
    sample = take_sample(config, held_out, network, workdir)
    return Trial(config, held_out, sample, workdir / "doctor")


def describe(trial: Trial) -> Verdict:
    """What is decoded."""
    return Verdict("ok", f"{format_zyx(trial.sample.shape_zyx)} voxels, {trial.sample.source}")


def pace(trial: Trial, tuned: bool) -> Verdict:
    """How long the stage segment will take.

    Args:
      trial: that tells its rates.
      tuned: whether thresholds are there already.
    """
    config = trial.config
    decoding = sorted(_decoding(config, trial.held_out, rates) for rates in trial.rates)
    said = f"about {between(decoding)} to decode {len(trial.held_out)} volumes"
    tuning = [0.0 for _ in decoding]
    if config.data.validation and not tuned:
        voxels = sum(_voxels(v) for v in trial.held_out if v.set == "validation" and v.labels)
        tuning = sorted(voxels * sum(r.tune for r in rates.values()) for rates in trial.rates)
        count = _combinations(config.segment.grid.to_dict())
        said += f", and {between(tuning)} to try {count} combinations of thresholds before"
    return Verdict("ok", said, seconds=decoding[-1] + tuning[-1])


def pace_of_scores(trial: Trial) -> Verdict:
    """How long the stage evaluate will take."""
    voxels = sum(_voxels(volume) for volume in trial.held_out if volume.labels)
    seconds = sorted(voxels * sum(r.score for r in rates.values()) for rates in trial.rates)
    return Verdict("ok", f"about {between(seconds)}", seconds=seconds[-1])


def _decoding(config: Config, held_out: list[Opened], rates: Mapping[str, Rates]) -> float:
    """Seconds to decode all volumes, by those who work at once."""
    seconds = 0.0
    for volume in held_out:
        parts = machine.blocks_of(config, volume)
        rounds = math.ceil(parts.count / machine.at_once(config, parts.count)) / parts.count
        for method, rate in rates.items():
            if method == NETWORK or volume.labels:
                of_blocks = rate.cut * parts.with_halos + rate.block * _voxels(volume)
                seconds += of_blocks * rounds + rate.whole * _voxels(volume)
    return seconds


def _voxels(volume: Opened) -> int:
    return math.prod(volume.region.shape_zyx)


def _central(tried: Sequence[Any]) -> Any:
    return tried[len(tried) // 2]


def _combinations(grid: Mapping[str, Sequence[Any]]) -> int:
    return math.prod(map(len, grid.values()))


def _timed(spent: dict[str, float], name: str, work: Callable[..., Any]) -> Callable[..., Any]:
    """The same work, that adds the seconds that it takes to those spent."""

    def timed(*arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        done = work(*arguments, **named)
        spent[name] += time.perf_counter() - began
        return done

    return timed
