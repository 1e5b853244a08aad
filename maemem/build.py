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


def open_mix(config: Config, name: str, workdir: pathlib.Path) -> Mix:
    """Opens the volumes of the set `data.NAME`, converting or making what must be in WORKDIR/cache.

    Raises:
      ValueError: if there are none, or one of them cannot serve; it names it.
      FileNotFoundError: if a path does not exist.
    """
    volumes = config.data[name]
    if not volumes:
        raise ValueError(f"the config names no volumes in data.{name}")
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
    _check_intensities(opened[0], config.data.intensity_range)
    weights = [volume.weight for volume in volumes.values()]
    check_crops(opened, weights, config.data.crop_zyx)
    return Mix(opened, weights)


def _check_intensities(volume: Volume, intensity_range: tuple[float, float]) -> None:
    """Refuses labels, and grey values that the range was not chosen for."""
    if volume.dtype not in ("uint8", "uint16", "int16", "float32"):
        raise ValueError(
            f"{volume.source} holds {volume.dtype}, which no microscope gives; expected raw "
            f"intensities of uint8, uint16, int16 or float32, not labels"
        )
    if volume.dtype != "uint8" and tuple(intensity_range) == (0, 255):
        raise ValueError(
            f"{volume.source} holds {volume.dtype}, but data.intensity_range is that of uint8; "
            f"give the darkest and the brightest intensity of its tissue"
        )


def compute(config: Config) -> Compute:
    """How networks are computed here.

    Raises:
      ValueError: for an unknown dtype.
    """
    platform, name = jax.default_backend(), config.model.dtype
    if name not in ("auto", *_DTYPES):
        raise ValueError(f"model.dtype {name!r} is unknown; choose auto or one of {[*_DTYPES]}")
    dtype = _DTYPES[("float32" if platform == "cpu" else "bfloat16") if name == "auto" else name]
    attention = "xla"
    if platform == "gpu" and dtype == jnp.bfloat16 and _cudnn_attends(config):
        attention = "cudnn"
    elif platform == "cpu" and jax.device_count() == 1:
        attention = "sequential"
    return Compute(dtype, config.runtime.remat, config.model.scan, attention)


def _cudnn_attends(config: Config) -> bool:
    """Whether the fused kernel takes these heads on this GPU: Ampere or newer, width 8 to 128."""
    widths = [size.width // size.heads for size in (config.model.encoder, config.model.decoder)]
    capability = getattr(jax.devices()[0], "compute_capability", "0")
    fits = float(capability) >= 8 and all(n % 8 == 0 and n <= 128 for n in widths)
    if not fits:
        log.warning("no fused attention for heads %s wide on compute %s", widths, capability)
    return fits


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
