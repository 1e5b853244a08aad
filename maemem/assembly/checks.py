"""Looks for values in a config that no run can work with, before anything is opened."""

from __future__ import annotations

import math
import pathlib

from maemem.assembly.learners import make_learner
from maemem.assembly.networks import decoder, encoder, segmenter, target
from maemem.assembly.trainings import make_training
from maemem.config import Config, Predict, Runtime, Segment, VolumeEntry, check_voxels
from maemem.fields import build
from maemem.models.patches import token_grid
from maemem.scores.registry import make_selected


def check_config(config: Config) -> None:
    """Builds all that the sections of a config describe, and throws it away.

    Raises:
      ValueError: naming the field, its value and what is expected.
    """
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"seed is {config.seed}; expected: from 0 to 2**32 - 1")
    build(Runtime, config.runtime, "runtime")
    _check_data(config.data)
    network = encoder(config)
    token_grid(config.data.crop_zyx, network.patch_zyx)
    for stage in ("pretrain", "finetune"):
        if stage in config:
            make_training(config, stage, pathlib.Path())
            make_learner(config, stage)
    if "predict" in config:
        predict, asked = build(Predict, config.predict, "predict"), target(config)
        segmenter(config, len(asked.channels))
        asked.check_crop("data.crop_zyx", config.data.crop_zyx)
        asked.check_crop("predict.window_zyx", predict.window_zyx)
        _check_segment(config)
        if any(w % p for w, p in zip(predict.window_zyx, network.patch_zyx, strict=True)):
            raise ValueError(
                f"predict.window_zyx is {predict.window_zyx}; expected: a multiple of the patch "
                f"{network.patch_zyx}"
            )


def _check_segment(config: Config) -> None:
    found = dict(config.segment)
    grid = found.pop("grid").to_dict()
    del found["decoder"]
    segment, how = build(Segment, found, "segment"), decoder(config)
    try:
        how.check(grid)
    except ValueError as error:
        raise ValueError(f"segment.{error}") from None
    make_selected(config.evaluate, segment.select_by)
    if segment.baselines and not how.merges:
        raise ValueError(
            f"segment.baselines is {segment.baselines}; expected: none, but where "
            f"segment.decoder.kind is waterz"
        )


def _check_data(data: Config) -> None:
    for name in ("bin_zyx", "crop_zyx"):
        check_voxels(f"data.{name}", data[name])
    ends = data.intensity_range
    numbers = all(isinstance(n, int | float) and math.isfinite(n) for n in ends)
    if ends and not (len(ends) == 2 and numbers and ends[0] < ends[1]):
        raise ValueError(
            f"data.intensity_range is {ends}; expected: a lower and a higher intensity, or () for "
            f"the 0 to 255 of uint8"
        )
    for name in ("train", "validation", "test"):
        for volume, entry in data[name].items():
            build(VolumeEntry, entry, f"data.{name}.{volume}")
