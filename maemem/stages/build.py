"""From config to the objects that stages work with; below it nobody knows a config."""

from __future__ import annotations

import logging
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp

from maemem.config import Config
from maemem.data.crops import check_crops
from maemem.data.datasets import open_dataset
from maemem.data.volumes import Volume, shared_context
from maemem.geometry import format_zyx
from maemem.models.layers import Compute
from maemem.models.mae import MaskedAutoencoder
from maemem.models.variants import Size
from maemem.objectives.reconstruction import Reconstruction
from maemem.training.optimizer import OptimizerSettings

log = logging.getLogger(__name__)

_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class Mix(NamedTuple):
    """Volumes and their relative shares of the crops."""

    volumes: list[Volume]
    weights: list[float]


def open_mix(config: Config, volumes: Config, workdir: pathlib.Path) -> Mix:
    """Opens the volumes of one set, converting or making what must be, in WORKDIR/cache.

    Raises:
      ValueError: if there are none, or one of them cannot serve; it names it.
      FileNotFoundError: if a path does not exist.
    """
    if not volumes:
        raise ValueError("the config names no volumes for one of data.train and data.validation")
    opened = []
    for name, volume in volumes.items():
        opened.append(
            open_dataset(
                volume.path,
                root=config.data.root,
                cache=workdir / "cache",
                voxel_size_nm=tuple(volume.voxel_size_nm) or None,
                region=volume.region,
                context=shared_context(config.runtime.cache_bytes),
            )
        )
        log.info(
            "volume %s: %s %s at %s nm, from %s [%s]",
            name,
            format_zyx(opened[-1].shape_zyx),
            opened[-1].dtype,
            format_zyx(opened[-1].voxel_size_nm),
            opened[-1].source,
            opened[-1].region,
        )
    weights = [volume.weight for volume in volumes.values()]
    check_crops(opened, weights, config.data.crop_zyx)
    return Mix(opened, weights)


def compute(config: Config) -> Compute:
    """How networks are computed here.

    Raises:
      ValueError: for an unknown dtype.
    """
    platform, name = jax.default_backend(), config.runtime.dtype
    if name not in ("auto", *_DTYPES):
        raise ValueError(f"runtime.dtype {name!r} is unknown; choose auto or one of {[*_DTYPES]}")
    dtype = _DTYPES[("float32" if platform == "cpu" else "bfloat16") if name == "auto" else name]
    attention = "xla"
    if platform == "gpu" and dtype == jnp.bfloat16:
        attention = "cudnn"
    elif platform == "cpu" and jax.device_count() == 1:
        attention = "sequential"
    return Compute(dtype, config.runtime.remat, config.model.scan, attention)


def reconstruction(config: Config) -> Reconstruction:
    """The pre-training objective with its network."""
    masking = config.pretrain.masking
    return Reconstruction(
        MaskedAutoencoder(
            config.model.patch_zyx,
            Size(**config.model.encoder),
            Size(**config.model.decoder),
            rotary=config.model.rotary,
            compute=compute(config),
        ),
        config.data.intensity_range,
        masking.strategy,
        masking.ratio,
        masking.decoded or None,
    )


def optimizer_settings(optimizer: Config, steps: int) -> OptimizerSettings:
    """An optimizer section of a config, for a run of so many steps."""
    return OptimizerSettings(
        optimizer.learning_rate,
        optimizer.warmup_steps,
        steps,
        optimizer.betas,
        optimizer.weight_decay,
        optimizer.clip_norm,
    )
