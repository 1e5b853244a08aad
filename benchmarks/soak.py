"""Trains and segments for long, unharmed and then killed again and again: are both the same?

    python -m benchmarks.soak
    python -m benchmarks.soak --minutes=2 --kill_every=20 --part=training

Trains the demo's encoder, and segments volumes block by block, both for about so many minutes: once
unharmed, when memory and open files have to stay as they are from the first third on, and once with
a SIGKILL so many seconds after each start has got further, after which it has to end with the same
parameters, losses and bytes. Both work in processes of their own, without Dask. Ends with status 1
where anything differs or grows. Needs Linux.
"""

from __future__ import annotations

import functools
import glob
import hashlib
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from absl import app, flags

from maemem.blockwise.segment import segment_volume
from maemem.data.sets.synthetic import make_tissue
from maemem.data.stores import ledger
from maemem.geometry import Box, Zyx
from maemem.learners.targets.affinity import Affinity, Waterz
from maemem.segmentation.intensity import intensity_affinities
from maemem.segmentation.region_graph import Merging
from maemem.training.checkpoint import read_parameters
from maemem.training.metrics import read_metrics

ROOT = pathlib.Path(__file__).parents[1]
PARTS = ("training", "segmenting")
_SHAPE: Zyx = (16, 96, 96)  # Of a volume that is segmented, in eight blocks.
_BLOCK: Zyx = (8, 48, 48)
_CALIBRATION_SECONDS = 60
_SAMPLE_SECONDS = 0.25
# What may be held more towards the end: allocators round, and the system takes its time.
_MORE_MEBIBYTES, _MORE_SHARE, _MORE_FILES = 16, 0.03, 3


class Sample(NamedTuple):
    """What a process holds at one time."""

    mebibytes: float
    files: int


class Part(NamedTuple):
    """Something to do for long.

    Attributes:
      command: of so much of it, into a folder.
      done: how much of it a folder holds by now, that a kill leaves there.
      result: what a folder ends with, which must be the same.
    """

    command: Callable[[pathlib.Path, int], list[str]]
    done: Callable[[pathlib.Path], float]
    result: Callable[[pathlib.Path], Mapping[str, str]]


def sample(pid: int) -> Sample | None:
    """None where the process has ended."""
    folder = pathlib.Path("/proc") / str(pid)
    try:
        (resident,) = re.findall(r"VmRSS:\s+(\d+) kB", (folder / "status").read_text())
        return Sample(int(resident) / 1024, len(list((folder / "fd").iterdir())))
    except (OSError, ValueError):
        return None


def watch(
    command: Sequence[str],
    is_due: Callable[[], bool] = lambda: False,
    counts: Callable[[], bool] = lambda: False,
) -> tuple[int, list[Sample]]:
    """Runs a command, killed when that is due; its status, and what it held while that counts."""
    samples = []
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        while process.poll() is None:
            if is_due():
                process.kill()
            if counts() and (found := sample(process.pid)):
                samples.append(found)
            time.sleep(_SAMPLE_SECONDS)
        if process.returncode > 0:
            log.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{log.read()}")
    return process.returncode, samples


def growth(samples: Sequence[Sample]) -> tuple[Sample, Sample]:
    """What was held at first, and at the end."""
    size = -(-len(samples) // 4)
    parts = samples[:size], samples[-size:]
    early, late = (
        Sample(
            statistics.median(each.mebibytes for each in part),
            round(statistics.median(each.files for each in part)),
        )
        for part in parts
    )
    return early, late


def is_flat(early: Sample, late: Sample) -> bool:
    """Whether a process held no more at the end."""
    more = _MORE_MEBIBYTES + _MORE_SHARE * early.mebibytes
    return late.mebibytes - early.mebibytes <= more and late.files - early.files <= _MORE_FILES


def alarm(seconds: float, has_begun: Callable[[], bool] = lambda: True) -> Callable[[], bool]:
    """Whether so many seconds are over since something was first seen to have begun."""
    began = None

    def is_due() -> bool:
        nonlocal began
        if began is None and has_begun():
            began = time.monotonic()
        return began is not None and time.monotonic() - began > seconds

    return is_due


def soak(name: str, part: Part, amount: int, folder: pathlib.Path) -> bool:
    """Does a part unharmed and killed; says how it went, and whether it went well."""
    if not amount:
        rate = folder / "rate"
        # From its first progress on: starting and compiling take their time only once.
        due = alarm(_CALIBRATION_SECONDS, lambda: part.done(rate) > 0)
        watch(part.command(rate, 1_000_000), due)
        amount = round(part.done(rate) * flags.FLAGS.minutes * 60 / _CALIBRATION_SECONDS)
    began = time.monotonic()
    whole = folder / "whole"
    # After a third of the work all is compiled and open.
    _, samples = watch(
        part.command(whole, amount), counts=lambda: part.done(whole) >= max(1, amount / 3)
    )
    spent = time.monotonic() - began
    early, late = growth(samples)
    kills, status, harmed = 0, -1, folder / "killed"
    while status:
        # Not before it has got further, or it would never end.
        further = functools.partial(lambda before: part.done(harmed) > before, part.done(harmed))
        status, _ = watch(part.command(harmed, amount), alarm(flags.FLAGS.kill_every, further))
        kills += status != 0
    other = sorted({key for key, _ in part.result(whole).items() ^ part.result(harmed).items()})
    print(
        f"{name}: {amount} in {spent / 60:.1f} minutes; memory {early.mebibytes:.0f} MiB after a "
        f"third, {late.mebibytes:.0f} at the end; open files {early.files}, {late.files}; after "
        f"{kills} kills the result is {f'ANOTHER ONE in {other[:9]}' if other else 'the same'}",
        flush=True,
    )
    return not other and kills > 0 and is_flat(early, late)


def training(given: Sequence[str]) -> Part:
    """The demo's pre-training, with checkpoints that kills leave something of."""
    fields = [
        "stages=('pretrain',)",
        "pretrain.log_every=5",
        "pretrain.eval_every=100",
        "pretrain.checkpoint_every=50",
        *given,
    ]

    def command(folder: pathlib.Path, steps: int) -> list[str]:
        of_config = [f"--config.{field}" for field in (*fields, f"pretrain.steps={steps}")]
        main = [sys.executable, "-m", "maemem.main", "--config=configs/demo.py"]
        return [*main, f"--workdir={folder}", *of_config]

    def done(folder: pathlib.Path) -> float:
        steps = (path.name for path in folder.glob("pretrain/checkpoints/*"))
        return max((int(step) for step in steps if step.isdecimal()), default=0)

    def result(folder: pathlib.Path) -> Mapping[str, str]:
        params, _ = read_parameters(folder, "pretrain")
        leaves = jax.tree_util.tree_leaves_with_path(params)
        sums = {
            jax.tree_util.keystr(path): hashlib.sha256(np.asarray(leaf).tobytes()).hexdigest()
            for path, leaf in leaves
        }
        rows = read_metrics(folder / "pretrain" / "metrics.jsonl")
        return sums | {f"loss of step {row['step']}": repr(row["loss"]) for row in rows}

    return Part(command, done, result)


def segmenting() -> Part:
    """Volumes of eight blocks, one after the other, by a process of its own."""

    def command(folder: pathlib.Path, volumes: int) -> list[str]:
        own = [sys.executable, "-m", "benchmarks.soak", f"--segment={folder}"]
        return [*own, f"--volumes={volumes}"]

    def done(folder: pathlib.Path) -> float:
        # Unlike pathlib, glob does not mind folders that vanish while it looks.
        cut = glob.glob(f"{folder}/*.partial/.conversion/*/cut/*")
        return len(glob.glob(f"{folder}/*.zarr")) + len(cut) / 8

    def result(folder: pathlib.Path) -> Mapping[str, str]:
        files = (path for path in folder.rglob("*") if path.is_file())
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
        }

    return Part(command, done, result)


def segment(folder: pathlib.Path, volumes: int) -> None:
    """Segments so many volumes of made-up tissue, each another one; those that are there are kept.

    Affinities are those of the grey values, shifted by some voxels from volume to volume.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tissue = make_tissue(_SHAPE, (30.0, 6.0, 6.0), seed=0)
    affinities = intensity_affinities(tissue.image)
    cut = functools.partial(Waterz(target=Affinity()).cut, low=0.05, high=0.98)
    merging = Merging("mean", 0.5)
    for number in range(volumes):
        if (output := folder / f"{number:06}.zarr").exists():
            ledger.tidy(output)  # As stages do with what they keep.
            continue
        shifted = np.roll(affinities, 7 * number, axis=3)
        segment_volume(
            lambda box, values=shifted: values[(slice(None), *box.slices)],
            cut,
            output,
            region=Box((0, 0, 0), _SHAPE),
            voxel_size_nm=(30.0, 6.0, 6.0),
            block_zyx=_BLOCK,
            halo_zyx=(4, 16, 16),
            smallest=64,
            identity={"number": number},
            merging=merging,
            chunk_zyx=_BLOCK,
            progress=False,
        )


def main(argv: list[str]) -> None:
    del argv
    given = flags.FLAGS
    if given.segment:
        segment(pathlib.Path(given.segment), given.volumes)
        return
    with tempfile.TemporaryDirectory() as name:
        parts = {
            "training": ("steps trained", training(given.set), given.steps),
            "segmenting": ("volumes segmented", segmenting(), given.volumes),
        }
        well = [soak(*parts[part], pathlib.Path(name) / part) for part in given.part]
    if not all(well):
        sys.exit(1)


def define_flags() -> None:
    """Only the command has these: whoever imports this module has flags of their own."""
    flags.DEFINE_float("minutes", 30, "About how long each part takes unharmed.")
    flags.DEFINE_float("kill_every", 60, "Seconds from progress to a SIGKILL.")
    flags.DEFINE_multi_enum("part", PARTS, PARTS, "What to do; repeatable.")
    flags.DEFINE_multi_string("set", [], "FIELD=VALUE of the config of the training.")
    flags.DEFINE_integer("steps", 0, "Of the training; 0: as many as fit the minutes.")
    flags.DEFINE_integer("volumes", 0, "To segment; 0: as many as fit the minutes.")
    flags.DEFINE_string("segment", "", "Only segment, into this folder; what it starts.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
