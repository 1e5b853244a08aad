"""Checks of the machine: devices, memory, disk."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import pathlib
import platform
import shutil

import jax
import numpy as np

from maemem import layout
from maemem.assembly.networks import target
from maemem.config import Config
from maemem.data.convert import copy_path
from maemem.data.sets.datasets import located
from maemem.data.stores.omezarr import chunk_shape
from maemem.data.stores.readers import is_foreign, open_source
from maemem.doctor.verdict import Verdict, amount
from maemem.doctor.volumes import SETS, Opened
from maemem.stages.thresholds import methods

# Of what is there, so much can be counted on: other programs run, and plans are not exact.
_FULL = 0.9

# Bytes a voxel of a block with its halo while it is cut up, at the peak; and, of steepest ascent,
# of a block whose pieces' graph is made, by scores that are means and by those that are ranks.
# Measured on affinities that differ from voxel to voxel, of an unsure network: the most fragments.
_CUTTING_BYTES = {"distance": 222, "steepest": 212, "mutex": 997, "markers": 84}
_GRAPH_BYTES = {"mean": 208, "ranks": 1255}
# Beside the image, bytes a voxel at the peak of `intensity_affinities`, by tracemalloc.
_INTENSITY_BYTES = 32


def devices() -> Verdict:
    """What JAX computes on."""
    found, first = jax.devices(), jax.devices()[0]
    said = (
        f"{len(found)} × {first.device_kind} ({first.platform}), {_cores()} cores; jax "
        f"{jax.__version__}, Python {platform.python_version()}"
    )
    if first.platform == "cpu" and shutil.which("nvidia-smi"):
        return Verdict(
            "warn",
            f"{said}; there is an NVIDIA driver, but JAX does not use it",
            "pip install 'jax[cuda12]', and leave JAX_PLATFORMS unset",
        )
    return Verdict("ok", said)


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it.
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def memory_of_device() -> tuple[int, str]:
    """The bytes that a device has for JAX, and what they are called."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"], "of the device"
    return memory_of_machine(), "of RAM that are free"


def memory_of_machine() -> int:
    """The bytes that programs can still have; where the system does not say it, all of them."""
    try:
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        return int(fields["MemAvailable"].split()[0]) << 10
    except (OSError, KeyError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def fits(what: str, needed: float, there: float, place: str, mend: str) -> Verdict:
    """Whether bytes fit a place.

    Args:
      what: what needs them.
      needed: how many.
      there: how many there are.
      place: where, as in "12 GB PLACE".
      mend: how to need less.
    """
    said = f"{what}; {amount(there)} {place}"
    if needed <= _FULL * there:
        return Verdict("ok", said)
    return Verdict("fail" if needed > there else "warn", said, mend)


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Those that the stage segment cuts a volume into.

    Attributes:
      count: how many there are.
      with_halos: voxels of all, each with its halo.
      largest: voxels of the largest, with its halo.
      largest_alone: without it.
    """

    count: int
    with_halos: int
    largest: int
    largest_alone: int


def blocks_of(config: Config, volume: Opened) -> Blocks:
    """The blocks of a volume, as `blockwise.segment` has them: of whole chunks."""
    shape = volume.region.shape_zyx
    chunk = chunk_shape(shape, volume.raw.voxel_size_nm)
    settings, lengths, alone = config.segment, [], 1
    axes = zip(shape, chunk, settings.block_zyx, settings.halo_zyx, strict=True)
    for size, part, wanted, halo in axes:
        block = -(-min(wanted, size) // part) * part
        starts, alone = range(0, size, block), alone * min(block, size)
        lengths.append([min(size, a + block + halo) - max(0, a - halo) for a in starts])
    count, total, largest = (math.prod(map(each, lengths)) for each in (len, sum, max))
    return Blocks(count, total, largest, alone)


def at_once(config: Config, count: int) -> int:
    """How many of so many blocks are done at the same time, on cores of their own.

    Threads are not counted: most of the work on a block lets none but one go on.
    """
    kind, _, workers = config.runtime.workers.partition(":")
    most = {"local": _cores, "slurm": lambda: count}
    return min(int(workers), count, most[kind]()) if kind in most else 1


def decoding_memory(config: Config, opened: list[Opened], there: int) -> Verdict:
    """Whether those who decode blocks fit the memory: each holds a block with its halo."""
    where, _, workers = config.runtime.workers.partition(":")
    held_out = [blocks_of(config, volume) for volume in opened if volume.set != "train"]
    if not held_out:
        return Verdict("ok", "no volume to segment could be opened")
    needed = max(block_bytes(config, parts) for parts in held_out)
    said = (
        f"about {amount(needed)} to decode a block of {config.segment.decoder.kind} with its halo"
    )
    if where not in ("", "threads", "local"):
        return Verdict("ok", f"{said}, which each worker needs to have")
    count = min(int(workers or 1), max(parts.count for parts in held_out))
    said += f", of which {count} are decoded at once" if count > 1 else ""
    mend = "a smaller --config.segment.block_zyx"
    mend += ", or fewer workers in --config.runtime.workers" if count > 1 else ""
    return fits(said, count * needed, there, "of RAM that are free", mend)


def block_bytes(config: Config, parts: Blocks) -> int:
    """What it takes to decode the largest block, at the peak."""
    settings = config.segment
    kind = settings.decoder.kind
    cut = settings.decoder.fragments if kind == "waterz" else kind
    needed = parts.largest * _CUTTING_BYTES[cut]
    if cut == "steepest":
        kind = "ranks" if _keeps_ranks(config) else "mean"
        needed = max(needed, parts.largest_alone * _GRAPH_BYTES[kind])
    return needed


def _keeps_ranks(config: Config) -> bool:
    """Whether each pair of fragments keeps a histogram, and there may be very many of them."""
    settings = config.segment
    steepest = settings.decoder.get("fragments") == "steepest"
    return steepest and set(settings.grid.score) != {"mean"}


def intensity_memory(opened: list[Opened], there: int) -> Verdict:
    """Whether the baseline `intensity` fits the memory: it holds a scored volume as a whole."""
    held = [
        math.prod(volume.region.shape_zyx) * (_INTENSITY_BYTES + volume.raw.dtype.itemsize)
        for volume in opened
        if volume.set != "train" and volume.labels
    ]
    needed = max(held, default=0)
    return fits(
        f"about {amount(needed)} for affinities of the largest scored image",
        needed,
        there,
        "of RAM that are free",
        "leave intensity out of --config.segment.baselines, or choose a smaller region",
    )


def copies(config: Config, workdir: pathlib.Path) -> Verdict:
    """Whether there is disk for the copies of files that cannot be read in place.

    What cannot be opened is left to the check that opens it.
    """
    needed, made, cache = 0, 0, layout.cache_folder(workdir)
    entries = itertools.chain(*(config.data[name].values() for name in SETS))
    wanted = {
        (located(path, config.data.root), tuple(entry.voxel_size_nm) or None)
        for entry in entries
        for path in (entry.path, entry.labels)
        if path
    }
    for path, size in wanted:
        if path.startswith("synthetic:") or not is_foreign(path):
            continue
        try:
            if copy_path(path, str(cache), voxel_size_nm=size).exists():
                continue
            with open_source(path, voxel_size_nm=size, cache_bytes=0) as source:
                needed += math.prod(source.shape_zyx) * source.dtype.itemsize
                made += 1
        except (ValueError, OSError):
            continue
    return fits(
        f"{made} files to convert into {cache}, at most {amount(needed)}",
        needed,
        free_disk(workdir),
        "of disk that are free",
        "choose a workdir on a larger disk, or convert elsewhere: python -m maemem.data.convert",
    )


def disk(
    config: Config, opened: list[Opened], states: dict[str, int], path: pathlib.Path
) -> Verdict:
    """Whether there is disk for what the stages write, uncompressed.

    Args:
      config: the experiment's.
      opened: its volumes.
      states: the bytes of a checkpoint, by stage.
      path: the workdir.
    """
    written = {}
    for stage, size in states.items():
        written["checkpoints"] = written.get("checkpoints", 0) + size * (
            config[stage].keep_checkpoints + 1  # One is written before the oldest is deleted.
        )
    voxels = sum(math.prod(v.region.shape_zyx) for v in opened if v.set != "train")
    if "predict" in config.stages:
        channels = len(target(config).channels)
        written["predictions"] = voxels * channels * np.dtype(config.predict.dtype).itemsize
    if "segment" in config.stages:
        # Blocks are first cut into fragments, which are kept until they are merged.
        written["segmentations"] = voxels * 4 * 2 * len(methods(config))
    parts = ", ".join(f"{name} {amount(size)}" for name, size in written.items())
    return fits(
        f"at most {amount(sum(written.values()))} to be written ({parts or 'nothing'})",
        sum(written.values()),
        free_disk(path),
        "of disk that are free",
        "choose a workdir on a larger disk, or fewer keep_checkpoints",
    )


def free_disk(path: pathlib.Path) -> int:
    """The free bytes where a folder is, or will be."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
