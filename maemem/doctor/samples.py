"""A sample of tissue, with what a network says of it or may say: what decoders are tried on."""

from __future__ import annotations

import dataclasses
import pathlib

import jax.numpy as jnp
import numpy as np
from scipy.ndimage import gaussian_filter

from maemem.assembly.networks import target
from maemem.assembly.volumes import open_scored
from maemem.blockwise.predict import to_stored
from maemem.config import Config
from maemem.data.samples.pipeline import renumber
from maemem.doctor.predictions import Prediction
from maemem.doctor.volumes import Opened, middle
from maemem.geometry import Zyx, blocks
from maemem.stages import predict
from maemem.stages.thresholds import stored_prediction

MOST_ZYX: Zyx = (64, 128, 128)  # More hardly takes longer a voxel.

# What a network says where targets are 0 and 1, and its noise from voxel to voxel. Of 500 steps on
# FIB-25 it says 0.37 and 0.75, with 0.07; then steepest ascent makes ten times as many fragments.
SURE, UNSURE = (0.0, 1.0, 0.0), (0.3, 0.8, 0.05)
_SMOOTH_NOISE = 0.15  # Beside it, over some voxels.


@dataclasses.dataclass(frozen=True)
class Sample:
    """The middle of a volume.

    Attributes:
      raw: grey values `[z y x]`.
      truth: ids `[z y x]`, −1 where unlabelled.
      said: what a network says of it, or several may: float32 `[c z y x]`.
      source: where that is from.
    """

    raw: np.ndarray
    truth: np.ndarray
    said: list[np.ndarray]
    source: str

    @property
    def shape_zyx(self) -> Zyx:
        """In voxels."""
        z, y, x = self.truth.shape
        return z, y, x


def take_sample(
    config: Config, held_out: list[Opened], network: Prediction | None, workdir: pathlib.Path
) -> Sample:
    """Tissue of a volume that is held out, of one with labels if there is any.

    What is said of it is the prediction that is there, where the run makes none; or what the
    network says, if it is trained. Else labels are made to look like what it may say once it is:
    what is not trained says nothing that decodes alike.

    Raises:
      ValueError: if there are neither labels nor a network.
      FileNotFoundError: if the run makes no prediction, and there is none.
    """
    labelled = [volume for volume in held_out if volume.labels]
    if not held_out or not (labelled or network or "predict" not in config.stages):
        raise ValueError("no volume to be segmented has labels, and there is no network to ask")
    volume = (labelled or held_out)[0]
    box = middle(volume.region.shape_zyx, MOST_ZYX).moved(volume.region.start_zyx)
    raw, truth = volume.raw.read(box), np.full(box.shape_zyx, -1)
    if volume.labels:
        truth = open_scored(config, workdir, volume.entry)[0](box)
    if "predict" not in config.stages:
        stored = stored_prediction(workdir, volume.set, volume.name)
        said, source = [stored.read_probabilities(box)], f"the prediction {stored.path}"
    elif network and not (labelled and predict.network_is_made(config)):
        said, source = [_predicted(network, raw)], f"what {network.source} says"
    else:
        said = [made_up(config, truth, *look) for look in (SURE, UNSURE)]
        source = f"labels of {volume.name} with noise, as of a sure and an unsure network"
    return Sample(raw, truth, said, source)


def made_up(config: Config, truth: np.ndarray, low: float, high: float, noise: float) -> np.ndarray:
    """What a network may say of tissue with these ids, as it is stored and read."""
    targets, _ = target(config.objective).targets(jnp.asarray(renumber(truth, -1)[None]))
    random = np.random.default_rng(0)
    values = low + (high - low) * np.moveaxis(np.asarray(targets[0]), -1, 0)
    for channel in values:
        smooth = gaussian_filter(random.standard_normal(channel.shape, np.float32), 2.0)
        channel += _SMOOTH_NOISE / smooth.std() * smooth
        channel += noise * random.standard_normal(channel.shape, np.float32)
    return _as_read(config, np.clip(values, 0, 1))


def _predicted(network: Prediction, raw: np.ndarray) -> np.ndarray:
    """What a network says of an image, as it is stored and read; in windows side by side."""
    settings = network.config.predict
    window, apply = settings.window_zyx, predict.jitted(network.objective)
    sides = zip(raw.shape, window, strict=True)
    padded = np.pad(raw, [(0, -n % size) for n, size in sides], mode="edge")
    boxes = list(blocks(padded.shape, window))  # type: ignore
    found = np.empty((len(network.objective.target.channels), *padded.shape), np.float32)
    for first in range(0, len(boxes), settings.batch_size):
        some = boxes[first : first + settings.batch_size]
        crops = np.zeros((settings.batch_size, *window), raw.dtype)
        for crop, box in zip(crops, some, strict=False):
            crop[:] = padded[box.slices]
        for box, values in zip(some, np.asarray(apply(network.params, crops)), strict=False):
            found[(slice(None), *box.slices)] = np.moveaxis(values, -1, 0)
    z, y, x = raw.shape
    return _as_read(network.config, found[:, :z, :y, :x])


def _as_read(config: Config, probabilities: np.ndarray) -> np.ndarray:
    stored = np.asarray(to_stored(probabilities.astype(np.float32), config.predict.dtype))
    scale = 1 / 255 if stored.dtype == np.uint8 else 1
    return stored * np.float32(scale)
