"""From config to the objects that stages work with; below it nobody knows a config."""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from maemem.config import Config
from maemem.data.augment import Augmentation
from maemem.data.crops import check_crops
from maemem.data.datasets import open_dataset
from maemem.data.formats import VoxelSize
from maemem.data.pipeline import Labels, batches
from maemem.data.volumes import Volume, shared_context
from maemem.geometry import View, Zyx, alike_axes, format_zyx, views
from maemem.models.layers import Compute
from maemem.models.mae import MaskedAutoencoder
from maemem.models.unet import ResidualUnet
from maemem.models.unetr import Unetr
from maemem.models.variants import Size
from maemem.objectives.affinity import LEE, NEAREST, Affinity
from maemem.objectives.bcd import Bcd
from maemem.objectives.reconstruction import Reconstruction
from maemem.objectives.segmentation import Segmentation
from maemem.training.fit import Training
from maemem.training.loop import Schedule
from maemem.training.mesh import check_divisible
from maemem.training.optimizer import OptimizerSettings

log = logging.getLogger(__name__)
Batch = TypeVar("Batch")

# Held-out crops and masks are the same whatever the run's seed, so that runs compare.
EVAL_SEED = 0

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


def open_raw(config: Config, entry: Config, workdir: pathlib.Path) -> Volume:
    """Opens the whole of a volume of the config.

    Raises:
      ValueError: if it cannot serve as an image.
      FileNotFoundError: if its path does not exist.
    """
    volume = _open(config, entry, entry.path, workdir)
    _check_intensities(volume, config.data.intensity_range)
    return volume


def open_labels(config: Config, entry: Config, workdir: pathlib.Path, raw: Volume) -> Volume:
    """Opens the labels of a whole volume of the config.

    Raises:
      ValueError: if they are of another shape than the volume, or no ids.
      FileNotFoundError: if their path does not exist.
    """
    labels = _open(config, entry, entry.labels, workdir)
    if labels.shape_zyx != raw.shape_zyx:
        raise ValueError(
            f"the labels {labels.source} have shape zyx {format_zyx(labels.shape_zyx)}, and their "
            f"volume {raw.source} has {format_zyx(raw.shape_zyx)}; expected the same"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"the labels {labels.source} hold {labels.dtype}; expected whole ids")
    return labels


def _entries(config: Config, name: str) -> Config:
    if not config.data[name]:
        raise ValueError(f"the config names no volumes in data.{name}")
    return config.data[name]


def _open(config: Config, entry: Config, path: str, workdir: pathlib.Path) -> Volume:
    volume = open_dataset(
        path,
        root=config.data.root,
        cache=workdir / "cache",
        voxel_size_nm=tuple(entry.voxel_size_nm) or None,
        context=shared_context(config.runtime.cache_bytes),
    )
    log.info(
        "volume %s: %s %s at %s nm",
        *(volume.source, format_zyx(volume.shape_zyx), volume.dtype),
        format_zyx(volume.voxel_size_nm),
    )
    return volume


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


def compute(config: Config, *sizes: Config) -> Compute:
    """How networks are computed here that have transformers of these sizes.

    Raises:
      ValueError: for an unknown dtype.
    """
    platform, name = jax.default_backend(), config.model.dtype
    if name not in ("auto", *_DTYPES):
        raise ValueError(f"model.dtype {name!r} is unknown; choose auto or one of {[*_DTYPES]}")
    dtype = _DTYPES[("float32" if platform == "cpu" else "bfloat16") if name == "auto" else name]
    attention = "xla"
    if platform == "gpu" and dtype == jnp.bfloat16 and _cudnn_attends(sizes):
        attention = "cudnn"
    elif platform == "cpu" and jax.device_count() == 1:
        attention = "sequential"
    convolution = "folded" if platform == "cpu" else "xla"
    return Compute(dtype, config.runtime.remat, config.model.scan, attention, convolution)


def _cudnn_attends(sizes: Sequence[Config]) -> bool:
    """Whether the fused kernel takes these heads on this GPU: Ampere or newer, width 8 to 128."""
    widths = [size.width // size.heads for size in sizes]
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
            compute=compute(config, config.model.encoder, config.model.decoder),
        ),
        config.data.intensity_range,
        masking.strategy,
        masking.ratio,
        masking.decoded or None,
    )


def target(objective: Config) -> Affinity | Bcd:
    """What a segmenter predicts.

    Raises:
      ValueError: for an unknown kind, or unknown offsets.
    """
    settings = objective.to_dict()
    kind = settings.pop("kind")
    if kind == "bcd":
        return Bcd(**settings)
    names = {"nearest": NEAREST, "lee": LEE}
    offsets = settings.pop("offsets")
    if kind != "affinity" or offsets not in names:
        raise ValueError(
            f"objective.kind {kind!r} with offsets {offsets!r} is unknown; choose bcd, or affinity "
            f"with one of {list(names)}"
        )
    return Affinity(names[offsets], **settings)


def segmentation(config: Config, voxel_size_nm: VoxelSize) -> Segmentation:
    """The objective of fine-tuning with its network.

    Args:
      config: the experiment's.
      voxel_size_nm: z, y, x; crops may be turned only as it allows.

    Raises:
      ValueError: if network, patch and channels do not fit each other.
    """
    model, what = config.model, target(config.objective)
    common = {
        "patch_zyx": model.patch_zyx,
        "channels": model.channels,
        "outputs": len(what.channels),
        "compute": compute(config, model.encoder),
    }
    network = (
        Unetr(encoder_size=Size(**model.encoder), rotary=model.rotary, **common)
        if model.segmenter == "unetr"
        else ResidualUnet(**common)
    )
    orders = alike_axes(config.data.crop_zyx, _rounded(voxel_size_nm))
    augmentation = Augmentation(orders_zyx=tuple(orders), **config.finetune.augmentation)
    return Segmentation(network, what, config.data.intensity_range, augmentation)


def test_time_views(config: Config, voxel_size_nm: VoxelSize) -> list[View]:
    """The views of a window that predictions are averaged over.

    `flips` are those along y and x, `turns` also swap these two; `all` also flips z, and permutes
    the axes of cubic windows of cubic voxels, as far as what is predicted admits it.
    """
    plain: list[Zyx] = [(0, 1, 2)]
    alike = alike_axes(config.predict.window_zyx, _rounded(voxel_size_nm))
    in_plane = [order for order in alike if order[0] == 0]
    orders = {"one": plain, "flips": plain, "turns": in_plane, "all": alike}
    found = views(orders[config.predict.views])
    if config.predict.views == "one":
        return found[:1]
    if config.predict.views == "all":
        admits = target(config.objective).admits
        return [view for view in found if admits(view)]
    return [view for view in found if not view.flips_zyx[0]]


def _rounded(voxel_size_nm: VoxelSize) -> tuple[float, ...]:
    """Sizes that differ by a few per cent only count as the same."""
    smallest = min(voxel_size_nm)
    return tuple(smallest if n < 1.1 * smallest else n for n in voxel_size_nm)


def optimizer_settings(optimizer: Config, steps: int, **of_encoder) -> OptimizerSettings:
    """An optimizer section of a config, for a run of so many steps."""
    return OptimizerSettings(steps=steps, **optimizer.to_dict(), **of_encoder)


def training(config: Config, settings: Config, folder: pathlib.Path, **of_encoder) -> Training:
    """A training section of a config, `pretrain` or `finetune`, as a run in a folder.

    Raises:
      ValueError: if the schedule is impossible.
    """
    return Training(
        folder,
        config.seed,
        config.data.crop_zyx,
        optimizer_settings(settings.optimizer, settings.steps, **of_encoder),
        Schedule(
            settings.steps, settings.log_every, settings.eval_every, settings.checkpoint_every
        ),
        settings.ema_decay,
        settings.accumulation,
        config.runtime.fsdp,
        settings.keep_checkpoints,
    )


def check_batches(stage: str, settings: Config) -> None:
    """Checks that batches can be split over the devices.

    Raises:
      ValueError: if they cannot.
    """
    check_divisible(f"{stage}.batch_size", settings.batch_size, settings.accumulation)
    check_divisible(f"{stage}.eval_crops", settings.eval_crops, 1)


def read_batches(
    config: Config, settings: Config, read: Callable[[range], Batch]
) -> Callable[[int], Iterator[Batch]]:
    """This process's batches of a training section, from a step on.

    Args:
      config: with the runtime.
      settings: the section.
      read: of the samples; see `pipeline.batches`.
    """
    return lambda first_step: batches(
        read,
        batch_size=settings.batch_size,
        first_step=first_step,
        last_step=settings.steps,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        read_threads=config.runtime.read_threads,
        prefetch=config.runtime.prefetch,
    )
