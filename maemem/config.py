"""Every field that a config has, its default and its meaning; and the config of a workdir.

An experiment in `configs/` starts from `pretraining()` and changes what it wants.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import logging
import os
import pathlib
import platform
import subprocess
from collections.abc import Iterable
from typing import Any, TypeAlias

from ml_collections import ConfigDict

log = logging.getLogger(__name__)

# A ConfigDict. Type checkers cannot follow its fields; that all of them exist is what its lock and
# the tests of the configs are for.
Config: TypeAlias = Any

# What a restart may change: it says how a run is computed, not what.
RUNTIME_FIELDS = ("stages", "runtime")

_LOCKS = []  # Open files, which hold their locks.

_PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "tensorstore", "grain", "numpy")


def volume(
    path: str,
    *,
    voxel_size_nm: tuple[float, ...] = (),
    region: str = "",
    weight: float = 1.0,
) -> Config:
    """A volume of a data set.

    Args:
      path: a store (zarr 2, zarr 3, N5, precomputed; a folder or a URL); or a TIFF, a folder of
        sections, an npy or `file.h5:/dataset`, which is converted once; or
        `synthetic:?shape_zyx=64,256,256&voxel_size_nm=30,6,6&seed=0`. Relative to `data.root`.
      voxel_size_nm: z, y, x; empty: as the volume itself says.
      region: the part to use, in voxels, such as `"0:120, :, :"`; empty: all of it.
      weight: its share of the crops, relative to the other volumes of its set.
    """
    return ConfigDict(
        {"path": path, "voxel_size_nm": voxel_size_nm, "region": region, "weight": weight}
    )


def pretraining() -> Config:
    """Pre-training as in Cheng et al. (2023), without volumes."""
    config: Config = ConfigDict()
    config.stages = ("pretrain",)  # What to run, in this order.
    config.seed = 0  # Of the parameters, the crops and the masks.

    config.data = ConfigDict()
    config.data.root = ""  # The folder that relative volume paths start from.
    config.data.train = ConfigDict()  # The volumes to learn from, by name; see `volume`.
    config.data.validation = ConfigDict()  # The volumes of the held-out crops.
    config.data.crop_zyx = (6, 96, 96)  # What a network sees at once, in voxels.
    config.data.intensity_range = (0.0, 255.0)  # Raw intensities that become −1 and 1.

    config.model = ConfigDict()
    config.model.patch_zyx = (1, 16, 16)  # In voxels; the crop is a multiple.
    config.model.encoder = transformer(768, 12, 12)
    config.model.decoder = transformer(512, 4, 16)
    config.model.rotary = False  # Rotary position embedding on top of sin-cos.
    config.model.dtype = "auto"  # Of compute. auto: bfloat16 on GPU and TPU, float32 on CPU.
    config.model.scan = False  # Loop over stacked blocks: compiles faster, for deep models.

    config.pretrain = ConfigDict()
    config.pretrain.steps = 400_000
    config.pretrain.batch_size = 128  # Crops a step, over all devices.
    config.pretrain.accumulation = 1  # Compute the gradient in this many parts, to save memory.
    config.pretrain.masking = ConfigDict()
    config.pretrain.masking.strategy = "random"  # Or "space" or "section".
    config.pretrain.masking.ratio = 0.9
    config.pretrain.masking.decoded = 0  # Masked tokens decoded in a training step; 0: all.
    config.pretrain.optimizer = ConfigDict()
    config.pretrain.optimizer.learning_rate = 1e-4  # At its peak.
    config.pretrain.optimizer.warmup_steps = 100_000
    config.pretrain.optimizer.betas = (0.9, 0.95)
    config.pretrain.optimizer.weight_decay = 0.0  # Of kernels; never of biases and norms.
    config.pretrain.optimizer.clip_norm = 0.0  # The largest gradient norm; 0: never clipped.
    config.pretrain.ema_decay = 0.0  # Of the average of parameters that is evaluated; 0: none.
    config.pretrain.log_every = 100  # Steps between rows of metrics.
    config.pretrain.eval_every = 5_000
    config.pretrain.eval_crops = 128  # Held out; the same crops and masks at every evaluation.
    config.pretrain.checkpoint_every = 5_000
    config.pretrain.keep_checkpoints = 3

    config.runtime = ConfigDict()
    config.runtime.remat = False  # Recompute activations in the backward pass, to save memory.
    config.runtime.fsdp = False  # Split parameters and optimizer state over the devices.
    config.runtime.cache_bytes = 1 << 30  # Of decoded chunks, shared by all volumes.
    config.runtime.read_threads = 2  # Batches read at the same time.
    config.runtime.prefetch = 8  # Batches read ahead.
    return config


def transformer(width: int, depth: int, heads: int) -> Config:
    """A transformer's size: the tokens' width, blocks, attention heads."""
    return ConfigDict({"width": width, "depth": depth, "heads": heads})


def claim_workdir(config: Config, workdir: pathlib.Path, stages: Iterable[str]) -> None:
    """Records the config in WORKDIR/config.json, or compares it with what is recorded there.

    Beside it are recorded the versions of the libraries and the commit of maemem. A workdir in
    which no stage has begun (a folder `WORKDIR/STAGE`) may be claimed anew. It is locked until this
    process ends.

    Raises:
      ValueError: if the workdir was made with another config, naming each field that differs; if
        its record cannot be read; or if another process works in it.
    """
    path = workdir / "config.json"
    workdir.mkdir(parents=True, exist_ok=True)
    _lock(workdir)
    record = {"config": config.to_dict(), "versions": _versions(), "commit": _commit()}
    if any((workdir / stage).exists() for stage in stages):
        try:
            before = json.loads(path.read_text())
            differences = describe_differences(before["config"], config)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{workdir} holds results, but no readable config.json of theirs ({error}); use "
                f"another workdir"
            ) from None
        if differences:
            raise ValueError(
                f"{workdir} was made with another config; use another workdir, or the fields that "
                f"it was made with:\n{differences}"
            )
        for name in ("versions", "commit"):
            if before.get(name) != record[name]:
                log.warning("%s was begun with %s %s", workdir, name, before.get(name))
                log.warning("it goes on with %s", record[name])
        return
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(record, indent=2, default=str) + "\n")
    os.replace(temporary, path)


def describe_differences(before: dict[str, Any], config: Config) -> str:
    """The fields in which a config differs from an earlier one, a line each; none, if "".

    Fields that only say how a run is computed (`RUNTIME_FIELDS`) do not count.
    """
    old = _flat(before)
    new = _flat(json.loads(json.dumps(config.to_dict(), default=str)))
    lines = []
    for name in sorted(old.keys() | new.keys()):
        if name.split(".")[0] not in RUNTIME_FIELDS and old.get(name) != new.get(name):
            lines.append(
                f"  {name}: {old.get(name, 'absent')!r} there, {new.get(name, 'absent')!r} now"
            )
    return "\n".join(lines)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in tree.items():
        nested = isinstance(value, dict)
        flat |= _flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return flat


def _lock(workdir: pathlib.Path) -> None:
    """Holds WORKDIR/.lock until the process ends; the system then lets go of it."""
    file = (workdir / ".lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"another process works in {workdir}; use another workdir") from None
    _LOCKS.append(file)


def _versions() -> dict[str, str]:
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), "maemem": _own_version(), **versions}


def _own_version() -> str:
    import maemem

    return maemem.__version__


def _commit() -> str | None:
    """The commit of the checkout that maemem runs from; None where it was installed otherwise."""
    root = pathlib.Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    command += ["--exclude=*"]  # The bare commit, even where there are tags.
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def check_config(config: Config) -> None:
    """Looks for values that no run can work with, so that it is said before anything is opened.

    Raises:
      ValueError: naming the field, its value and what is expected.
    """
    model, settings = config.model, config.pretrain
    triples = {"data.crop_zyx": config.data.crop_zyx, "model.patch_zyx": model.patch_zyx}
    for name, triple in triples.items():
        whole = all(isinstance(n, int) and n > 0 for n in triple)
        _expect(name, triple, len(triple) == 3 and whole, "three positive whole numbers z, y, x")
    for name, size in (("encoder", model.encoder), ("decoder", model.decoder)):
        fits = min(size.width, size.depth, size.heads) > 0 and size.width % (2 * size.heads) == 0
        expected = "positive, the width an even multiple of heads"
        _expect(f"model.{name}", size.to_dict(), fits, expected)
    positive = ("steps", "batch_size", "accumulation", "eval_crops", "keep_checkpoints")
    for name in (*positive, "log_every", "eval_every", "checkpoint_every"):
        _expect(f"pretrain.{name}", settings[name], settings[name] > 0, "at least 1")
    low, high = config.data.intensity_range
    _expect("data.intensity_range", (low, high), low < high, "a lower and a higher intensity")
    _expect("pretrain.ema_decay", settings.ema_decay, 0 <= settings.ema_decay < 1, "in [0, 1)")
    decoded = settings.masking.decoded
    _expect("pretrain.masking.decoded", decoded, decoded >= 0, "0 (all), or how many tokens")
    _expect("seed", config.seed, 0 <= config.seed < 2**32, "from 0 to 2**32 - 1")
    for name, least in (("cache_bytes", 0), ("prefetch", 0), ("read_threads", 1)):
        value = config.runtime[name]
        _expect(f"runtime.{name}", value, value >= least, f"at least {least}")


def _expect(name: str, value: Any, holds: bool, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value}; expected: {expected}")
