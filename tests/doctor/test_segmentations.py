"""How long segmentation takes, and what memory: what is foretold, and what it really takes."""

import concurrent.futures
import ctypes
import gc
import json
import math
import multiprocessing
import pathlib
import re

import numpy as np
import pytest

from maemem.blockwise import pieces
from maemem.blockwise.segment import segment_volume
from maemem.config import affinity, bcd, markers, mutex, waterz
from maemem.data.sets.synthetic import make_tissue
from maemem.doctor import machine
from maemem.doctor.samples import SURE, UNSURE, made_up
from maemem.doctor.segmentations import (
    Rates,
    open_trial,
    pace,
    pace_of_scores,
)
from maemem.doctor.volumes import open_entry
from maemem.geometry import Box, blocks
from maemem.segmentation.decoders import cutter
from maemem.segmentation.region_graph import region_graph
from maemem.stages.segment import labels_path
from maemem.stages.thresholds import settings_of
from tests import runs

RATES = Rates(tune=16.0, cut=4.0, block=2.0, whole=1.0, score=0.5)


def lee():
    objective = affinity()
    objective.offsets = "lee"
    return objective


def opened(config, folder):
    return [open_entry(config, name, "labelled", folder) for name in ("validation", "test")]


def trial_of(config, folder):
    config.stages = ("finetune", "predict", "segment", "evaluate")
    (folder / "doctor").mkdir(exist_ok=True)
    return open_trial(config, opened(config, folder), None, folder)


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


def test_the_time_of_a_stage_is_that_of_its_volumes_blocks_and_workers(tmp_path):
    config = runs.config(
        segment__block_zyx=(8, 64, 64),
        segment__baselines=("fragments",),
        data__test__labelled__path="synthetic:?shape_zyx=24,64,64&seed=3",
        data__test__labelled__labels="",
        segment__halo_zyx=(1, 1, 1),
    )
    trial = trial_of(config, tmp_path)
    trial.__dict__["rates"] = [{"network": RATES, "fragments": Rates(0, 1.0, 0, 0, 0.5)}]
    section = 64 * 64
    # Of the network, a block of the labelled volume and three of the other, two faces between them.
    block_by_block = 4.0 * (8 + 28) + 2.0 * (8 + 24)
    once = (block_by_block + 1.0 * (8 + 24) + 1.0 * 8) * section
    assert pace(trial, tuned=True).seconds == pytest.approx(once)
    assert pace(trial, tuned=False).seconds == pytest.approx(once + 16.0 * 8 * section)
    assert pace_of_scores(trial).seconds == pytest.approx(2 * 0.5 * 8 * section)
    # Three blocks are two rounds of two workers.
    config.runtime.workers = "slurm:2"
    saved = (4.0 * 28 + 2.0 * 24) / 3 * section
    assert pace(trial, tuned=True).seconds == pytest.approx(once - saved)
    for alone in ("tcp://somewhere:1", "threads:2"):
        config.runtime.workers = alone
        assert pace(trial, tuned=True).seconds == pytest.approx(once)


@pytest.mark.slow
def test_a_sure_and_an_unsure_network_are_tried_by_every_method(tmp_path):
    config = runs.config(segment__baselines=("fragments", "intensity"))
    trial = trial_of(config, tmp_path)
    assert "a sure and an unsure network" in trial.sample.source
    assert [set(rates) for rates in trial.rates] == [{"network", "fragments", "intensity"}] * 2
    for rates in trial.rates:
        assert rates["fragments"].tune == 0 < rates["network"].tune
        assert all(min(rate.cut, rate.score) > 0 for rate in rates.values())
    assert not any((tmp_path / "doctor").iterdir())
    assert not labels_path(tmp_path, "test", "labelled", "network").exists()


def test_without_labels_and_a_network_nothing_is_foretold(tmp_path):
    config = runs.config(data__validation__labelled__labels="", data__test__labelled__labels="")
    with pytest.raises(ValueError, match="no network to ask"):
        trial_of(config, tmp_path)


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


def peak_of_a_block(path, method, chosen, settings):
    """Bytes at the peak of what a worker does of a block that is the whole of a prediction."""
    values = np.load(path)
    cut, merging = cutter(method, chosen, **settings)
    taken, ids = peak(lambda: cut(values))
    if merging:
        ids = np.pad(ids.astype(np.int64), [(1, 0)] * 3)
        taken = max(taken, peak(lambda: region_graph(values, ids, merging.score))[0])
    return taken


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/clear_refs").exists(), reason="needs Linux")
@pytest.mark.parametrize(
    ("section", "objective", "overrides", "look"),
    [
        (waterz(), affinity(), {"fragments": "distance"}, UNSURE),
        (waterz(), affinity(), {"grid": {"score": ("mean",)}}, UNSURE),
        (waterz(), affinity(), {}, UNSURE),
        (mutex(), lee(), {}, UNSURE),
        (markers(), bcd(), {}, SURE),
    ],
    ids=["distance", "mean", "ranks", "mutex", "markers"],
)
def test_the_peak_of_a_block_is_what_is_counted(tmp_path, section, objective, overrides, look):
    config = runs.config()
    with config.unlocked():
        config.segment, config.objective = section, objective
        config.segment.update(overrides)
    labels = make_tissue((48, 96, 96), (10.0, 10.0, 10.0)).neurites
    np.save(tmp_path / "said.npy", made_up(config, labels, *look))
    settings = settings_of(config, "network")
    settings.pop("smallest")
    chosen = {name: tried[len(tried) // 2] for name, tried in config.segment.grid.items()}
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, spawn) as process:
        given = (tmp_path / "said.npy", section.method, chosen, settings)
        taken = process.submit(peak_of_a_block, *given).result()
    counted = machine.block_bytes(config, machine.Blocks(1, *[labels.size] * 3))
    print(f"{taken / labels.size:.0f} bytes a voxel, {counted / labels.size:.0f} counted")
    assert 0.5 < taken / counted < 1.15
