"""What a training starts from, where a config names something."""

from __future__ import annotations

import json
import logging
import pathlib
from typing import Any

import safetensors
import safetensors.numpy
from jaxtyping import PyTree

from maemem.config import Config
from maemem.layout import WORKDIR
from maemem.learners import LEARNERS
from maemem.models.inflation import Inflation, inflate
from maemem.training.checkpoint import read_network
from maemem.training.fit import Training
from maemem.training.transfer import transfer
from maemem.workdir import check_network, recorded_config

log = logging.getLogger(__name__)


def start_from(params: PyTree, config: Config, run: Training, workdir: pathlib.Path) -> PyTree:
    """The first parameters of a network: as they are, but for those that it starts from.

    Args:
      params: of the seed, placed on their devices.
      config: with the network's `model`.
      run: whose `encoder` says what to start from: nothing; a workdir, a checkpoint or a model
        folder of maemem, of which its learner says what is transferred; or the file
        `….safetensors` of a 2-D vision transformer, see `models.inflation`.
      workdir: of the run.

    Raises:
      ValueError: if it does not fit the config, or cannot be read.
      FileNotFoundError: if there is none.
    """
    if not run.encoder:
        log.info("the network starts from scratch")
        return params
    path = pathlib.Path(run.encoder.replace(WORKDIR, str(workdir))).expanduser()
    if path.suffix == ".safetensors":
        source, found = {"encoder": read_2d(path, config, run.inflation)}, path
    else:
        (weights, state), found = read_network(path, "pretrain")
        check_network(config, found, ("model.encoder",))
        source = _transferred(weights, state, found)
    return transfer(params, source, str(found))


def _transferred(params: PyTree, state: PyTree, checkpoint: pathlib.Path) -> PyTree:
    """What the learner that made a checkpoint hands on; where none is recorded, the encoder."""
    record = recorded_config(checkpoint) or {}
    kind = record.get("pretrain", {}).get("learner", {}).get("kind")
    if kind in LEARNERS:
        return LEARNERS[kind].transfer(params, state)
    return {"encoder": params["encoder"]} if "encoder" in params else params


def read_2d(path: pathlib.Path, config: Config, inflation: Inflation) -> PyTree:
    """The encoder that a file of 2-D weights makes.

    What the 2-D network's pixels were normalised by is read from the files that are published
    beside it, `preprocessor_config.json` (transformers) or `config.json` (timm), and is 0.5 where
    there are none; how many heads it has, from `config.json` (transformers).

    Raises:
      ValueError: if the file is no plain vision transformer, or another one than `config.model` is.
      FileNotFoundError: if there is none.
    """
    try:
        tensors = safetensors.numpy.load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} cannot be read as safetensors: {error}") from None
    said = _published(path.parent)
    heads = said.get("num_attention_heads", config.model.encoder.heads)
    if heads != config.model.encoder.heads:
        raise ValueError(
            f"the 2-D network {path} has {heads} attention heads, and model.encoder.heads is "
            f"{config.model.encoder.heads}; give it as many"
        )
    mean, std = (said.get(f"image_{n}", said.get(n, (0.5,))) for n in ("mean", "std"))
    log.info("%s: pixels were normalised by mean %s and deviation %s", path, mean, std)
    encoder = inflate(tensors, config.model.encoder.patch_zyx, inflation, mean=mean, std=std)
    side, _, _ = encoder["positions"]["table"].shape
    if tuple(config.model.encoder.positions_yx) != (side, side):
        raise ValueError(
            f"the 2-D network {path} knows {side}x{side} places, and model.encoder.positions_yx "
            f"is {tuple(config.model.encoder.positions_yx)}; set "
            f"--config.model.encoder.positions_yx={side},{side}"
        )
    return encoder


def _published(folder: pathlib.Path) -> dict[str, Any]:
    """What the files beside published weights say of the network."""
    files = [folder / name for name in ("config.json", "preprocessor_config.json")]
    said: dict[str, Any] = {}
    for file in files:
        said |= json.loads(file.read_text()) if file.exists() else {}
    return said | said.get("pretrained_cfg", {})  # Where timm has it.
