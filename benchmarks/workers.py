"""How much sooner several processes segment a volume than one does.

    python -m benchmarks.workers --processes=2 --repeats=3

The same made-up prediction is segmented block by block (waterz), in turns: in this process, bound
to one core; in this process with all cores, some of which it uses by threads; and by `local:N`.
Starting the workers, which is done once in a run, is not in their time; it is given by itself. What
one process does for all, the agglomeration, is in the time of each, and bounds the ratio: fragments
of steepest ascent are many, and take it long. So does the machine, whose cores share its memory:
each turn measures, too, by how much the cutting of a block is slower while others are cut. It wants
a quiet machine with N cores, and Linux.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence

from absl import app, flags

from benchmarks.ours.segmentation import cutting, segment, write_prediction
from maemem.blockwise import store
from maemem.blockwise.engine import Map
from maemem.blockwise.workers import open_workers
from maemem.geometry import Box, Zyx, blocks
from maemem.logs import log_to_terminal

_PROCESSES = flags.DEFINE_integer("processes", 2, "How many, beside one.", lower_bound=2)
_REPEATS = flags.DEFINE_integer("repeats", 3, "Times that both segment it.", lower_bound=1)
_SIDE = flags.DEFINE_integer("side", 192, "Of the volume, in voxels.")
_FRAGMENTS = flags.DEFINE_enum(
    "fragments", "distance", ["distance", "steepest"], "As `segment.fragments`."
)
_BLOCK: Zyx = (64, 96, 96)


def seconds(prediction: store.Stored, output: pathlib.Path, workers: Map) -> float:
    """How long it takes to segment it."""
    begun = time.perf_counter()
    segment(prediction, output, _FRAGMENTS.value, _BLOCK, workers)
    return time.perf_counter() - begun


def cut_seconds(prediction: store.Stored, fragments: str, block: Box) -> float:
    """How long it takes to cut a block up, once it is read, without anything around that."""
    values = prediction.read_probabilities(block)
    cut, _ = cutting(fragments)
    begun = time.perf_counter()
    cut(values)
    return time.perf_counter() - begun


@contextlib.contextmanager
def bound_to(cores: Collection[int]) -> Iterator[None]:
    """Binds all threads of this process, and those that they start, to some cores."""
    before = os.sched_getaffinity(0)

    def bind(where: Collection[int]) -> None:
        for thread in pathlib.Path("/proc/self/task").iterdir():
            with contextlib.suppress(ProcessLookupError):  # It has ended.
                os.sched_setaffinity(int(thread.name), where)

    bind(cores)
    try:
        yield
    finally:
        bind(before)


def spread(ratios: Sequence[float]) -> str:
    """Their median, least and greatest."""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def main(argv: list[str]) -> None:
    del argv
    log_to_terminal()
    cores = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        prediction = write_prediction(folder / "prediction.zarr", _SIDE.value)
        begun = time.perf_counter()
        with open_workers(f"local:{_PROCESSES.value}") as workers:
            print(f"{_PROCESSES.value} processes start in {time.perf_counter() - begun:.1f} s")
            # In the order of the columns: which cores this process has, and who does the blocks.
            sides = {
                "one core": ({min(cores)}, map),
                "one process": (cores, map),
                f"{_PROCESSES.value} processes": (cores, workers),
            }
            seconds(prediction, folder / "warm.zarr", workers)  # They import what they need.
            taken: dict[str, list[float]] = {side: [] for side in sides}
            every = list(blocks(prediction.region.shape_zyx, _BLOCK))
            cut = functools.partial(cut_seconds, prediction, _FRAGMENTS.value)
            allowed = []
            for turn in range(_REPEATS.value):
                for side, (where, doing) in sides.items():
                    with bound_to(where):
                        output = folder / f"{side}-{turn}.zarr"
                        taken[side].append(seconds(prediction, output, doing))
                alone = sum(sum(workers(cut, [block])) for block in every)
                allowed.append(_PROCESSES.value * alone / sum(workers(cut, every)))
                print(", ".join(f"{side} {each[-1]:.2f} s" for side, each in taken.items()))
    *others, several = taken
    for side in others:
        ratios = [a / b for a, b in zip(taken[side], taken[several], strict=True)]
        print(f"{several} are {spread(ratios)} times as fast as {side}")
    print(f"the cutting alone would allow {spread(allowed)} times")


if __name__ == "__main__":
    app.run(main)
