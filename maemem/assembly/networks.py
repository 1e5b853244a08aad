"""The networks and the target of a config."""

from __future__ import annotations

from maemem.config import UINT8_RANGE, Config
from maemem.data.stores.formats import VoxelSize
from maemem.fields import build_kind
from maemem.geometry import View, Zyx, alike_axes, views
from maemem.learners.targets import TARGETS
from maemem.learners.targets.contract import Decoder, Target
from maemem.models.compute import DTYPES, Compute, compute_here
from maemem.models.contract import Encoder, Segmenter
from maemem.models.encoders import ENCODERS
from maemem.models.segmenters import SEGMENTERS


def compute(config: Config) -> Compute:
    """How networks are computed here.

    Raises:
      ValueError: for an unknown dtype.
    """
    dtype = config.model.dtype
    if dtype not in ("auto", *DTYPES):
        raise ValueError(f"model.dtype is {dtype!r}; expected: one of auto, {', '.join(DTYPES)}")
    return compute_here(dtype, config.runtime.remat)


def encoder(config: Config) -> Encoder:
    """The encoder of `model.encoder`.

    Raises:
      ValueError: if a field has a value that it cannot work with.
    """
    how = compute(config)
    return build_kind(ENCODERS, config.model.encoder, "model.encoder", compute=how)


def segmenter(config: Config, outputs: int) -> Segmenter:
    """The network of `model.segmenter` on the encoder, with so many logits a voxel.

    Raises:
      ValueError: if a field has a value that it cannot work with.
    """
    return build_kind(
        SEGMENTERS,
        config.model.segmenter,
        "model.segmenter",
        encoder=encoder(config),
        outputs=outputs,
        compute=compute(config),
    )


def target(config: Config) -> Target:
    """What a segmenter predicts.

    Raises:
      ValueError: if a field has a value that it cannot work with.
    """
    return build_kind(TARGETS, config.target, "target")


def decoder(config: Config) -> Decoder:
    """What makes objects of the target's predictions.

    Raises:
      ValueError: if there is no such decoder of this target, or a field has a value that it cannot
        work with.
    """
    what = target(config)
    return build_kind(what.decoders, config.segment.decoder, "segment.decoder", target=what)


def intensity_range(config: Config) -> tuple[float, float]:
    """The raw intensities that become −1 and 1."""
    low, high = config.data.intensity_range or UINT8_RANGE
    return float(low), float(high)


def tta_views(config: Config, voxel_size_nm: VoxelSize) -> list[View]:
    """The views of a window that predictions are averaged over.

    `flips` are those along y and x, `turns` also swap these two; `all` also flips z, and permutes
    the axes of cubic windows of cubic voxels, as far as what is predicted admits it.
    """
    plain: list[Zyx] = [(0, 1, 2)]
    alike = alike_axes(config.predict.window_zyx, rounded(voxel_size_nm))
    in_plane = [order for order in alike if order[0] == 0]
    orders = {"one": plain, "flips": plain, "turns": in_plane, "all": alike}
    found = views(orders[config.predict.views])
    if config.predict.views == "one":
        return found[:1]
    if config.predict.views == "all":
        admits = target(config).admits
        return [view for view in found if admits(view)]
    return [view for view in found if not view.flips_zyx[0]]


def rounded(voxel_size_nm: VoxelSize) -> tuple[float, ...]:
    """Sizes that differ by a few per cent only count as the same."""
    smallest = min(voxel_size_nm)
    return tuple(smallest if n < 1.1 * smallest else n for n in voxel_size_nm)
