"""Checks of the stage predict: its network, its memory and its pace, by a batch of windows."""

from __future__ import annotations

import dataclasses
import functools
import logging
import pathlib
import time

import jax
import numpy as np
from jaxtyping import PyTree

from maemem.assembly.learners import make_segmenter
from maemem.assembly.networks import tta_views
from maemem.blockwise.windows import Windows
from maemem.config import Config
from maemem.doctor.trials import Trial, planned, state_of, timed_crops
from maemem.doctor.verdict import Verdict, duration
from maemem.doctor.volumes import Opened
from maemem.learners.supervised import Supervised
from maemem.stages import predict

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Prediction:
    """A network, and the volumes that it is to predict; it writes nothing."""

    config: Config
    learner: Supervised
    params: PyTree
    held_out: list[Opened]
    source: str  # where the network is from

    @functools.cached_property
    def crops(self) -> np.ndarray:
        """A batch of windows; how fast a network is does not depend on what is in them."""
        settings = self.config.predict
        shape = (settings.batch_size, *settings.window_zyx)
        return np.zeros(shape, self.held_out[0].raw.dtype)

    @functools.cached_property
    def compiled(self) -> jax.stages.Compiled:
        """The prediction of a batch of windows, in one view."""
        log.info("compiling the prediction of a batch of windows")
        return predict.jitted(self.learner).lower(self.params, self.crops).compile()


def of_trial(trial: Trial, opened: list[Opened]) -> Prediction:
    """With the network that is to be trained."""
    params = state_of(trial).params
    return Prediction(
        trial.config, make_segmenter(trial.config), params, _held_out(opened), "a new network"
    )


def of_network(config: Config, opened: list[Opened], workdir: pathlib.Path) -> Prediction:
    """With the network that is there.

    Raises:
      ValueError: if it cannot be read, is not what the config describes or knows voxels of another
        size, or no volume that it is to predict could be opened.
      FileNotFoundError: if there is none.
    """
    path, checkpoint = predict.checked_network(config, workdir)
    predict.check_voxel_sizes(config, workdir, path)
    held_out = _held_out(opened)
    network = predict.open_network(config, None, path, held_out[0].raw.voxel_size_nm)
    params, _ = predict.network_parameters(path)
    return Prediction(config, network.learner, params, held_out, str(checkpoint))


def describe(prediction: Prediction) -> Verdict:
    """What predicts."""
    return Verdict("ok", f"{prediction.source} fits")


def memory(prediction: Prediction) -> Verdict:
    """Whether a batch of windows fits the memory of a device, as XLA has planned it."""
    return planned(
        prediction.compiled,
        "a batch of windows, {} of it parameters and windows",
        "a smaller --config.predict.batch_size or --config.predict.window_zyx",
    )


def pace(prediction: Prediction) -> Verdict:
    """How long the stage predict will take, by a batch of windows."""
    config, held_out = prediction.config, prediction.held_out
    settings = config.predict
    windows = sum(
        Windows(volume.region, settings.window_zyx, settings.stride_zyx).count
        for volume in held_out
    )
    views = tta_views(config, held_out[0].raw.voxel_size_nm)
    count = timed_crops(prediction.compiled, settings.batch_size)
    timed = views if count == settings.batch_size else views[:1]
    network = predict.predictor(prediction.learner, timed, prediction.params)
    crops = prediction.crops[:count]
    jax.block_until_ready(network(crops))
    began = time.perf_counter()
    jax.block_until_ready(network(crops))
    batch = time.perf_counter() - began
    batch *= settings.batch_size / count * len(views) / len(timed)
    seconds = windows / settings.batch_size * batch
    return Verdict(
        "ok",
        f"{windows:,} windows (views of each: {len(views)}), {duration(batch)} for "
        f"{settings.batch_size}: about {duration(seconds)}",
        seconds=seconds,
    )


def _held_out(opened: list[Opened]) -> list[Opened]:
    held_out = [volume for volume in opened if volume.set in predict.SETS]
    if not held_out:
        raise ValueError("no volume of data.validation or data.test could be opened")
    return held_out
