"""How much sooner several processes segment a volume than one does.

    python -m benchmarks.workers --processes=2 --repeats=3

The same made-up prediction is segmented block by block (waterz), in this process and by `local:N`,
in turns. Starting the workers, which is done once in a run, is not in their time; it is given by
itself. What one process does for all, the agglomeration, is in the time of both, and bounds the
ratio: fragments of steepest ascent are many, and take it long. It wants a quiet machine with as
many cores.
"""

from __future__ import annotations

import functools
import pathlib
import statistics
import tempfile
import time

from absl import app, flags

from benchmarks.ours.segmentation import METHODS, made_up
from maemem.blockwise import store
from maemem.blockwise.engine import Map, open_workers
from maemem.blockwise.segment import segment_volume
from maemem.data import ledger, omezarr
from maemem.geometry import Box, Zyx
from maemem.logs import log_to_terminal
from maemem.segmentation.decoders import cutter

_PROCESSES = flags.DEFINE_integer("processes", 2, "How many, beside one.", lower_bound=2)
_REPEATS = flags.DEFINE_integer("repeats", 3, "Times that both segment it.", lower_bound=1)
_SIDE = flags.DEFINE_integer("side", 192, "Of the volume, in voxels; a multiple of 64.")

_FRAGMENTS = flags.DEFINE_enum(
    "fragments", "distance", ["distance", "steepest"], "As `segment.fragments`."
)

_VOXEL_SIZE_NM = (10.0, 10.0, 10.0)


def write_prediction(path: pathlib.Path, side: int) -> store.Stored:
    """A made-up prediction, as the stage `predict` leaves one."""
    values, _ = made_up("waterz", side)
    shape: Zyx = (side, side, side)
    chunk = omezarr.chunk_shape(shape, _VOXEL_SIZE_NM)
    partial, target = store.unfinished(path), store.local_path(path)
    with ledger.held(partial, target, wait=False):
        array = omezarr.open_array(
            partial, shape, "uint8", chunk_zyx=chunk, shard_zyx=chunk, channels=3
        )
        array.write(values).result()
        region = Box((0, 0, 0), shape)
        store.publish(partial, target, _VOXEL_SIZE_NM, region, {}, ("z", "y", "x"))
    return store.open_prediction(path)


def seconds(prediction: store.Stored, output: pathlib.Path, workers: Map) -> float:
    """How long it takes to segment it."""
    settings = METHODS["waterz"][0]()
    thresholds = {name: tried[0] for name, tried in settings.grid.to_dict().items()}
    cut, merging = cutter("waterz", thresholds, sectionwise=False, fragments=_FRAGMENTS.value)
    begun = time.perf_counter()
    segment_volume(
        prediction.read_probabilities,
        cut,
        output,
        region=prediction.region,
        voxel_size_nm=prediction.voxel_size_nm,
        block_zyx=(64, 96, 96),
        halo_zyx=settings.halo_zyx,
        smallest=settings.smallest,
        attributes={},
        identity={},
        merging=merging,
        workers=workers,
        progress=False,
    )
    return time.perf_counter() - begun


def main(argv: list[str]) -> None:
    del argv
    log_to_terminal()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        prediction = write_prediction(folder / "prediction.zarr", _SIDE.value)
        begun = time.perf_counter()
        with open_workers(f"local:{_PROCESSES.value}") as workers:
            print(f"{_PROCESSES.value} processes start in {time.perf_counter() - begun:.1f} s")
            measured = functools.partial(seconds, prediction)
            measured(folder / "warm.zarr", workers)  # The workers import what they need.
            ratios = []
            for turn in range(_REPEATS.value):
                one = measured(folder / f"one-{turn}.zarr", map)
                several = measured(folder / f"several-{turn}.zarr", workers)
                ratios.append(one / several)
                print(
                    f"one {one:.2f} s, several {several:.2f} s, {ratios[-1]:.2f} times", flush=True
                )
    print(f"median {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    app.run(main)
