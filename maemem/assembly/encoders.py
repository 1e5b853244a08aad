"""What an encoder starts from, where a config names something."""

from __future__ import annotations

import json
import logging
import pathlib
from typing import Any

import safetensors
import safetensors.numpy
from jaxtyping import PyTree

from maemem.assembly.networks import ENCODER_FIELDS
from maemem.config import WORKDIR, Config
from maemem.models.inflation import inflate
from maemem.training.checkpoint import read_parameters
from maemem.training.transfer import transfer_encoder
from maemem.workdir import check_network

log = logging.getLogger(__name__)


def start_encoder(params: PyTree, config: Config, encoder: str, workdir: pathlib.Path) -> PyTree:
    """The first parameters of a network: as they are, but for an encoder that is given.

    Args:
      params: of the seed, placed on their devices.
      config: with the encoder's `model`.
      encoder: empty; a workdir, a checkpoint or a model folder of maemem; or the file
        `….safetensors` of a 2-D vision transformer, see `models.inflation`.
      workdir: of the run.

    Raises:
      ValueError: if the encoder does not fit the config, or cannot be read.
      FileNotFoundError: if there is none.
    """
    if not encoder:
        log.info("the encoder starts from scratch")
        return params
    path = pathlib.Path(encoder.replace(WORKDIR, str(workdir))).expanduser()
    if path.suffix == ".safetensors":
        source, found = {"encoder": read_2d(path, config)}, path
    else:
        source, found = read_parameters(path, "pretrain")
        check_network(config, found, ENCODER_FIELDS)
    return transfer_encoder(params, source, str(found))


def read_2d(path: pathlib.Path, config: Config) -> PyTree:
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
    encoder = inflate(tensors, config.model.patch_zyx, config.model.inflation, mean=mean, std=std)
    side, _, _ = encoder["plane"]["table"].shape
    if tuple(config.model.plane_yx) != (side, side):
        raise ValueError(
            f"the 2-D network {path} knows {side}x{side} places, and model.plane_yx is "
            f"{tuple(config.model.plane_yx)}; set --config.model.plane_yx={side},{side}"
        )
    return encoder


def _published(folder: pathlib.Path) -> dict[str, Any]:
    """What the files beside published weights say of the network."""
    files = [folder / name for name in ("config.json", "preprocessor_config.json")]
    said: dict[str, Any] = {}
    for file in files:
        said |= json.loads(file.read_text()) if file.exists() else {}
    return said | said.get("pretrained_cfg", {})  # Where timm has it.
