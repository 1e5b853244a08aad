"""The networks of a config, with what they learn, and how they are computed on this machine."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from maemem.config import UINT8_RANGE, Config
from maemem.data.samples.augment import Augmentation
from maemem.data.stores.formats import VoxelSize
from maemem.geometry import View, Zyx, alike_axes, views
from maemem.learners.mae import Reconstruction
from maemem.learners.supervised import Segmentation
from maemem.learners.targets.affinity import LEE, NEAREST, Affinity
from maemem.learners.targets.bcd import Bcd
from maemem.models.layers import Compute
from maemem.models.mae import MaskedAutoencoder
from maemem.models.segmenters.unet import ResidualUnet
from maemem.models.segmenters.unetr import Unetr
from maemem.models.variants import Size

log = logging.getLogger(__name__)

# What the parameters of an encoder mean, beyond their names and shapes.
ENCODER_FIELDS = (
    *("model.patch_zyx", "model.rotary"),
    *("model.encoder.width", "model.encoder.depth", "model.encoder.heads"),
)

_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


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
    return Compute(dtype, config.runtime.remat, attention, convolution)


def _cudnn_attends(sizes: Sequence[Config]) -> bool:
    """Whether the fused kernel takes these heads on this GPU: Ampere or newer, width 8 to 128."""
    widths = [size.width // size.heads for size in sizes]
    capability = getattr(jax.devices()[0], "compute_capability", "0")
    fits = float(capability) >= 8 and all(n % 8 == 0 and n <= 128 for n in widths)
    if not fits:
        log.warning("no fused attention for heads %s wide on compute %s", widths, capability)
    return fits


def intensity_range(config: Config) -> tuple[float, float]:
    """The raw intensities that become −1 and 1."""
    low, high = config.data.intensity_range or UINT8_RANGE
    return float(low), float(high)


def plane_yx(config: Config) -> tuple[int, int] | None:
    """How many places 2-D weights know, of an encoder that starts from them."""
    y, x = config.model.plane_yx or (0, 0)
    return (y, x) if y else None


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
            plane_yx=plane_yx(config),
        ),
        intensity_range(config),
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
      ValueError: if network, patch and channels do not fit each other, or a crop or a window is too
        small for what is predicted.
    """
    model, what = config.model, target(config.objective)
    what.check_crop("data.crop_zyx", config.data.crop_zyx)
    what.check_crop("predict.window_zyx", config.predict.window_zyx)
    common = {
        "patch_zyx": model.patch_zyx,
        "channels": model.channels,
        "outputs": len(what.channels),
        "compute": compute(config, model.encoder),
    }
    network = (
        Unetr(
            encoder_size=Size(**model.encoder),
            rotary=model.rotary,
            plane_yx=plane_yx(config),
            **common,
        )
        if model.segmenter == "unetr"
        else ResidualUnet(**common)
    )
    orders = alike_axes(config.data.crop_zyx, _rounded(voxel_size_nm))
    augmentation = Augmentation(orders_zyx=tuple(orders), **config.finetune.augmentation)
    return Segmentation(network, what, intensity_range(config), augmentation)


def segmenter_fields(config: Config) -> tuple[str, ...]:
    """What the parameters of a segmenter mean, beyond their names and shapes."""
    seen = ENCODER_FIELDS if config.model.segmenter == "unetr" else ENCODER_FIELDS[:1]
    return ("objective.kind", *seen)


def tta_views(config: Config, voxel_size_nm: VoxelSize) -> list[View]:
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
