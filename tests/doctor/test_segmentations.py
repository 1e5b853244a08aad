"""What memory segmentation takes: what is foretold, and what it really takes."""

import concurrent.futures
import ctypes
import gc
import json
import math
import multiprocessing
import pathlib
import re

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from maemem.assembly import networks
from maemem.blockwise import pieces
from maemem.blockwise.segment import segment_volume
from maemem.config import affinity, bcd, markers, mutex, waterz
from maemem.data.sets.synthetic import make_tissue
from maemem.data.truth.labels import renumber
from maemem.doctor import machine
from maemem.doctor.volumes import open_entry
from maemem.geometry import Box, blocks
from maemem.segmentation.region_graph import region_graph
from tests import runs
from tests.segmentation.decoding import middle

# What a network says where targets are 0 and 1, and its noise from voxel to voxel. Of 500 steps on
# FIB-25 it says 0.37 and 0.75, with 0.07; then steepest ascent makes ten times as many fragments.
SURE, UNSURE = (0.0, 1.0, 0.0), (0.3, 0.8, 0.05)
_SMOOTH_NOISE = 0.15  # Beside it, over some voxels.


def made_up(target, truth, low, high, noise):
    """What a network may say of tissue with these ids, `[c z y x]`."""
    maps, _ = target.targets({"labels": jnp.asarray(renumber(truth, -1)[None])})
    random = np.random.default_rng(0)
    values = low + (high - low) * np.moveaxis(np.asarray(maps[0]), -1, 0)  # [z y x c] -> [c z y x]
    for channel in values:
        smooth = gaussian_filter(random.standard_normal(channel.shape, np.float32), 2.0)
        channel += _SMOOTH_NOISE / smooth.std() * smooth
        channel += noise * random.standard_normal(channel.shape, np.float32)
    return np.clip(values, 0, 1).astype(np.float32)


def opened(config, folder):
    return [open_entry(config, name, "labelled", folder) for name in ("validation", "test")]


@pytest.mark.parametrize("block", [(8, 64, 64), (5, 40, 60), (1, 8, 200)])
def test_blocks_and_halos_are_counted_as_they_are_cut(tmp_path, block):
    shape, halo = (20, 130, 70), (2, 16, 3)
    found = runs.config(
        segment__block_zyx=block,
        segment__halo_zyx=halo,
        data__test__labelled__path="synthetic:?shape_zyx=20,130,70&seed=3",
        data__test__labelled__labels="",
    )
    segment_volume(
        lambda box: np.zeros(box.shape_zyx, np.uint32),
        lambda values: values,
        tmp_path / "ids.zarr",
        region=Box((0, 0, 0), shape),
        voxel_size_nm=(30.0, 6.0, 6.0),
        block_zyx=block,
        halo_zyx=halo,
        smallest=0,
        identity={},
        progress=False,
    )
    written = json.loads((tmp_path / "ids.zarr" / "zarr.json").read_text())
    rounded = written["attributes"]["maemem"]["attributes"]["block_zyx"]
    every = list(blocks(shape, rounded))
    volume = [pieces.grown(each, halo, shape) for each in every]
    sizes = [math.prod(each.shape_zyx) for each in volume]
    parts = machine.blocks_of(found, opened(found, tmp_path)[1])
    alone = max(math.prod(each.shape_zyx) for each in every)
    assert parts == machine.Blocks(len(every), sum(sizes), max(sizes), alone)


@pytest.mark.parametrize(
    ("workers", "level", "said"),
    [
        ("", "ok", "to decode a block"),
        ("local:2", "fail", "of which 2 are decoded at once"),
        ("threads:2", "fail", "of which 2 are decoded at once"),
        ("slurm:9", "ok", "which each worker needs"),
    ],
)
def test_every_worker_of_this_machine_holds_a_block(tmp_path, workers, level, said):
    config = runs.config(
        runtime__workers=workers,
        segment__block_zyx=(8, 64, 64),
        data__test__labelled__path="synthetic:?shape_zyx=24,64,64&seed=3",
        data__test__labelled__labels="",
    )
    volumes = opened(config, tmp_path)
    needed = machine.block_bytes(config, machine.blocks_of(config, volumes[1]))
    verdict = machine.decoding_memory(config, volumes, int(1.5 * needed))
    assert (verdict.level, said in verdict.found) == (level, True)
    assert bool(verdict.mend) == (level == "fail")


def resident(name):
    """Bytes of this process: VmRSS, held now, or VmHWM, the most since it was last asked."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.findall(rf"{name}:\s+(\d+) kB", status)[0]) << 10


def peak(work):
    """Bytes that work takes beyond what is held before it, and what it gives."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    done = work()
    return resident("VmHWM") - before, done


def peak_of_a_block(path, decoder, chosen):
    """Bytes at the peak of what a worker does of a block that is the whole of a prediction."""
    values = np.load(path)
    cuts, merges = ({n: chosen[n] for n in names} for names in (decoder.cuts, decoder.merges))
    taken, ids = peak(lambda: decoder.cut(values, **cuts))
    if merging := decoder.merging(**merges):
        ids = np.pad(ids.astype(np.int64), [(1, 0)] * 3)
        taken = max(taken, peak(lambda: region_graph(values, ids, merging.score))[0])
    return taken


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/clear_refs").exists(), reason="needs Linux")
@pytest.mark.parametrize(
    ("section", "target", "grid", "look"),
    [
        (waterz(fragments="distance"), affinity(), {}, UNSURE),
        (waterz(), affinity(), {"score": ("mean",)}, UNSURE),
        (waterz(), affinity(), {}, UNSURE),
        (mutex(), affinity(offsets="lee"), {}, UNSURE),
        (markers(), bcd(), {}, SURE),
    ],
    ids=["distance", "mean", "ranks", "mutex", "markers"],
)
def test_the_peak_of_a_block_is_what_is_counted(tmp_path, section, target, grid, look):
    config = runs.config()
    with config.unlocked():
        config.segment, config.target = section, target
        config.segment.grid.update(grid)
    labels = make_tissue((48, 96, 96), (10.0, 10.0, 10.0)).neurites
    np.save(tmp_path / "said.npy", made_up(networks.target(config), labels, *look))
    chosen = middle(config.segment.grid.to_dict())
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, spawn) as process:
        given = (tmp_path / "said.npy", networks.decoder(config), chosen)
        taken = process.submit(peak_of_a_block, *given).result()
    counted = machine.block_bytes(config, machine.Blocks(1, *[labels.size] * 3))
    print(f"{taken / labels.size:.0f} bytes a voxel, {counted / labels.size:.0f} counted")
    assert 0.5 < taken / counted < 1.15
