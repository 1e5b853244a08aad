"""Two thousand blocks hold no more memory than an eighth of them does."""

import concurrent.futures
import functools
import math
import multiprocessing
import re
from pathlib import Path

import numpy as np
import pytest

from maemem.blockwise.predict import predict_volume
from maemem.blockwise.segment import segment_volume
from maemem.data.stores.volumes import open_volume
from maemem.geometry import Box
from maemem.segmentation.region_graph import Merging
from tests.blockwise.segmentations import SIZE, linked
from tests.blockwise.volumes import grey_values, stored_volume

BLOCK = (8, 32, 32)
FEW, MANY = (6, 6, 7), (12, 12, 14)  # blocks along each axis: 252, and 2,016
CELL = 40  # Voxels from membrane to membrane, so that cells lie in several blocks.
MEBIBYTES = 12  # What is rounded and cached; the least that is held whole, grey values, is 14 more.


def shape_of(counts):
    return tuple(count * size for count, size in zip(counts, BLOCK, strict=True))


def cells(box):
    """Affinities of cubes between planes of membrane, made where they are asked for."""
    starts_and_stops = zip(box.start_zyx, box.stop_zyx, strict=True)
    grid = np.ogrid[tuple(slice(*ends) for ends in starts_and_stops)]
    membrane = functools.reduce(np.logical_or, (coordinate % CELL == 0 for coordinate in grid))
    values = np.where(membrane, np.float32(0.1), np.float32(0.9))
    return np.broadcast_to(values, (3, *box.shape_zyx))


def segment(folder: Path, counts) -> int:
    """Segments so many blocks; returns the number of objects."""
    return segment_volume(
        cells,
        linked,
        folder / "objects.zarr",
        region=Box((0, 0, 0), shape_of(counts)),
        voxel_size_nm=SIZE,
        block_zyx=BLOCK,
        halo_zyx=(1, 1, 1),
        smallest=0,
        identity={},
        merging=Merging("mean", 0.5),
        chunk_zyx=BLOCK,
        progress=False,
    )


def sure_of_nothing(crops):
    return np.full((*crops.shape, 3), 0.5, np.float32)


def predict(folder: Path, counts) -> int:
    """Predicts so many blocks; returns how many chunks were written."""
    volume = open_volume(str(folder / "raw.zarr"))
    predict_volume(
        sure_of_nothing,
        *(volume, folder / "out.zarr"),
        region=volume.region,
        window_zyx=BLOCK,
        stride_zyx=BLOCK,
        batch_size=4,
        channels="zyx",
        identity={},
        chunk_zyx=BLOCK,
        block_zyx=BLOCK,
        progress=False,
    )
    return len([path for path in (folder / "out.zarr").rglob("c/*/*/*/*") if path.is_file()])


def with_peak(work, folder: Path, counts) -> tuple[int, float]:
    """What the work gives, and the most that this process has held so far, in MiB."""
    found = work(folder, counts)
    # Unlike getrusage's maximum, this does not count what the parent held when it forked.
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return found, int(peak) / 1024


def cells_of(counts) -> int:
    """How many there are."""
    return math.prod(math.ceil(side / CELL) for side in shape_of(counts))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
@pytest.mark.parametrize(("work", "expected"), [(predict, math.prod), (segment, cells_of)])
def test_two_thousand_blocks_hold_no_more_than_an_eighth_of_them(tmp_path, work, expected):
    peaks = []
    for counts in (FEW, MANY):
        folder = tmp_path / str(math.prod(counts))
        folder.mkdir()
        stored_volume(folder / "raw.zarr", grey_values(shape_of(counts)))
        # A process of its own, whose peak is its own.
        spawn = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, spawn) as process:
            found, peak = process.submit(with_peak, work, folder, counts).result()
        assert found == expected(counts)
        peaks.append(peak)
    print(f"{peaks[0]:.0f} MiB for 252 blocks, {peaks[1]:.0f} MiB for 2,016")
    assert peaks[1] - peaks[0] < MEBIBYTES
