"""Looks for values in a config that no run can work with, before anything is opened."""

from __future__ import annotations

import math
import re
from typing import Any

from maemem.config import Config


def check_pretraining(config: Config) -> None:
    """Checks what pre-training reads.

    Raises:
      ValueError: naming the field, its value and what is expected.
    """
    _check_common(config)
    _check_size("model.decoder", config.model.decoder)
    _check_training("pretrain", config.pretrain)
    decoded = config.pretrain.masking.decoded
    _expect("pretrain.masking.decoded", decoded, decoded >= 0, "0 (all), or how many tokens")


def check_segmentation(config: Config) -> None:
    """Checks what fine-tuning and the stages after it read.

    Raises:
      ValueError: naming the field, its value and what is expected.
    """
    _check_common(config)
    _check_training("finetune", config.finetune)
    _choose("model.segmenter", config.model.segmenter, ("unetr", "unet"))
    channels = config.model.channels
    counts = bool(channels) and all(_is_count(n) for n in channels)
    _expect("model.channels", channels, counts, "positive whole numbers")
    _choose("objective.kind", config.objective.kind, ("affinity", "bcd"))
    _check_start(config)
    warp = config.finetune.augmentation
    for name in ("warp_voxels_zyx", "warp_spacing_zyx"):
        numbers = len(warp[name]) == 3 and all(isinstance(n, int | float) for n in warp[name])
        _expect(f"finetune.augmentation.{name}", warp[name], numbers, "three numbers z, y, x")
    decay, share = config.finetune.layer_decay, config.finetune.min_foreground
    _expect("finetune.layer_decay", decay, 0 < decay <= 1, "more than 0 and at most 1")
    _expect("finetune.min_foreground", share, 0 <= share <= 1, "a share from 0 to 1")
    settings = config.predict
    _check_triple("predict.window_zyx", settings.window_zyx)
    _check_triple("predict.stride_zyx", settings.stride_zyx)
    patch = config.model.patch_zyx
    tiled = all(w % p == 0 for w, p in zip(settings.window_zyx, patch, strict=True))
    _expect("predict.window_zyx", settings.window_zyx, tiled, f"a multiple of the patch {patch}")
    fits = all(s <= w for s, w in zip(settings.stride_zyx, settings.window_zyx, strict=True))
    _expect("predict.stride_zyx", settings.stride_zyx, fits, "no longer than predict.window_zyx")
    _expect("predict.batch_size", settings.batch_size, settings.batch_size > 0, "at least 1")
    _choose("predict.views", settings.views, ("one", "flips", "turns", "all"))
    _choose("predict.dtype", settings.dtype, ("uint8", "float16", "float32"))
    methods = ("waterz", "mutex") if config.objective.kind == "affinity" else ("markers",)
    _choose("segment.method", config.segment.method, methods)
    if config.segment.method == "mutex":
        long_range = config.objective.offsets == "lee"
        _expect("objective.offsets", config.objective.offsets, long_range, "lee, for mutex")
    if config.segment.method == "markers":
        named = "seed_distance" in config.segment.grid
        fits = named == config.objective.distance
        _expect("objective.distance", config.objective.distance, fits, "as segment.grid has it")
    for name, values in config.segment.grid.items():
        numbers = name == "score" or all(isinstance(n, int | float) for n in values)
        _expect(f"segment.grid.{name}", values, numbers, "numbers")
    _choose("segment.fragments", config.segment.fragments, ("steepest", "distance"))
    _check_triple("segment.block_zyx", config.segment.block_zyx)
    _check_triple("segment.halo_zyx", config.segment.halo_zyx)
    scores = ("adapted_rand", "voi", "ap50", "ap75", "ap", "dice")
    _choose("segment.select_by", config.segment.select_by, scores)
    for name in config.segment.baselines:
        _choose("segment.baselines", name, ("fragments", "intensity"))
    only = not config.segment.baselines or config.segment.method == "waterz"
    _expect("segment.baselines", config.segment.baselines, only, "none, but for waterz")


def _check_common(config: Config) -> None:
    _check_numbers("", config.to_dict())
    _check_triple("data.bin_zyx", config.data.bin_zyx)
    _check_triple("data.crop_zyx", config.data.crop_zyx)
    _check_triple("model.patch_zyx", config.model.patch_zyx)
    _check_size("model.encoder", config.model.encoder)
    _check_plane(config)
    _check_range("data.intensity_range", config.data.intensity_range)
    _expect("seed", config.seed, 0 <= config.seed < 2**32, "from 0 to 2**32 - 1")
    _check_workers(config.runtime.workers)
    for name, least in (("cache_bytes", 0), ("prefetch", 0), ("read_threads", 1)):
        value = config.runtime[name]
        _expect(f"runtime.{name}", value, value >= least, f"at least {least}")


def _check_numbers(name: str, value: Any, shown: Any = None) -> None:
    """Looks at every number of a config: finite, of a sensible size, and no less than 0."""
    shown = value if shown is None else shown
    if isinstance(value, dict):
        for field, each in value.items():
            _check_numbers(f"{name}.{field}" if name else field, each)
    elif isinstance(value, tuple | list):
        for each in value:
            _check_numbers(name, each, value)
    elif isinstance(value, int | float) and name != "data.intensity_range":  # It has its own.
        large = name.endswith(("_bytes", ".unlabelled"))
        limit = 2.0 ** (64 if large else 32) if isinstance(value, int) else math.inf
        _expect(name, shown, -limit < value < limit, "a number, finite and not that large")
        _expect(name, shown, value >= 0 or name.endswith(".unlabelled"), "0 or more")


def _check_workers(where: str) -> None:
    counted = re.fullmatch(r"(threads|local|slurm):[1-9]\d*", where)
    address = re.fullmatch(r"(tcp|tls)://.+", where)
    fits = "empty, threads:N, local:N, slurm:N, or the address of a Dask scheduler, tcp://HOST:PORT"
    _expect("runtime.workers", repr(where), bool(not where or counted or address), fits)


def _check_training(stage: str, settings: Config) -> None:
    positive = ("steps", "batch_size", "accumulation", "eval_crops", "keep_checkpoints")
    for name in (*positive, "log_every", "eval_every", "checkpoint_every"):
        _expect(
            f"{stage}.{name}", settings[name], 0 < settings[name] < 2**31, "from 1 to 2**31 - 1"
        )
    _expect(f"{stage}.ema_decay", settings.ema_decay, 0 <= settings.ema_decay < 1, "in [0, 1)")
    optimizer = settings.optimizer
    _choose(f"{stage}.optimizer.name", optimizer.name, ("adamw", "sgd"))
    shares = [isinstance(beta, int | float) and 0 <= beta < 1 for beta in optimizer.betas]
    _expect(f"{stage}.optimizer.betas", optimizer.betas, shares == [True, True], "two in [0, 1)")
    _expect(f"{stage}.optimizer.momentum", optimizer.momentum, optimizer.momentum < 1, "in [0, 1)")


def _check_start(config: Config) -> None:
    """Refuses to start or freeze an encoder that is not there, and to freeze a random one."""
    encoder, frozen = config.finetune.encoder, config.finetune.freeze_encoder
    if config.model.segmenter == "unet":
        why = "for model.segmenter unet, which has no encoder"
        fits = f"empty {why}; set --config.finetune.encoder="
        _expect("finetune.encoder", repr(encoder), not encoder, fits)
        _expect("finetune.freeze_encoder", frozen, not frozen, f"False {why}")
    fits = "False where finetune.encoder is empty, or the encoder would keep its random weights"
    _expect("finetune.freeze_encoder", frozen, bool(encoder) or not frozen, fits)
    for name, path in (("finetune.encoder", encoder), ("predict.network", config.predict.network)):
        _expect(name, repr(path), "://" not in path, "a folder, not a URL; copy it to one")


def _check_plane(config: Config) -> None:
    """Refuses 2-D weights where the network has no place for them."""
    plane = config.model.plane_yx
    whole = all(isinstance(n, int) and n > 0 for n in plane)
    _expect("model.plane_yx", plane, len(plane) in (0, 2) and whole, "(), or two whole numbers")
    fits = "False where model.plane_yx says that places are those of 2-D weights"
    _expect("model.rotary", config.model.rotary, not (plane and config.model.rotary), fits)
    _choose("model.inflation", config.model.inflation, ("centre", "average"))


def _check_triple(name: str, triple: Any) -> None:
    whole = len(triple) == 3 and all(_is_count(n) for n in triple)
    _expect(name, triple, whole, "three positive whole numbers z, y, x")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _check_range(name: str, ends: Any) -> None:
    numbers = all(isinstance(n, int | float) and math.isfinite(n) for n in ends)
    fits = not ends or (len(ends) == 2 and numbers and ends[0] < ends[1])
    _expect(name, ends, fits, "a lower and a higher intensity, or () for the 0 to 255 of uint8")


def _check_size(name: str, size: Config) -> None:
    fits = min(size.width, size.depth, size.heads) > 0 and size.width % (2 * size.heads) == 0
    _expect(name, size.to_dict(), fits, "positive, the width an even multiple of heads")
    _expect(f"{name}.depth", size.depth, size.depth <= 1000, "at most 1000")


def _choose(name: str, value: Any, choices: tuple[str, ...]) -> None:
    _expect(name, repr(value), value in choices, f"one of {', '.join(choices)}")


def _expect(name: str, value: Any, holds: bool, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value}; expected: {expected}")
