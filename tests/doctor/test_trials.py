"""What is said of memory, disk and pace, in numbers that are given."""

import pathlib
import tracemalloc
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from maemem.blockwise.windows import Windows
from maemem.config import segmenting
from maemem.doctor.machine import _INTENSITY_BYTES, fits, free_disk, intensity_memory
from maemem.doctor.trials import (
    foretell,
    open_trial,
    per_second,
    seconds_of_step,
    timed_crops,
    total,
)
from maemem.doctor.verdict import Verdict, amount, duration, worst
from maemem.geometry import Box
from maemem.segmentation.intensity import intensity_affinities
from maemem.training.fit import Training
from tests import runs


@pytest.mark.parametrize(("needed", "level"), [(80, "ok"), (95, "warn"), (101, "fail")])
def test_what_does_not_fit_is_told_with_how_to_mend_it(needed, level):
    verdict = fits("it", needed, 100, "there", "use less")
    assert verdict.level == level
    assert verdict.mend == ("" if level == "ok" else "use less")


def test_the_image_baseline_needs_the_largest_region_that_is_scored():
    def volume(set_, shape, labels):
        raw = SimpleNamespace(dtype=np.dtype(np.uint8))
        return SimpleNamespace(set=set_, raw=raw, labels=labels, region=Box((0, 0, 0), shape))

    opened = [
        volume("train", (100, 100, 100), "ids"),
        volume("validation", (1, 10, 100), "ids"),
        volume("test", (2, 10, 100), "ids"),
        volume("test", (100, 100, 100), None),
    ]
    assert intensity_memory(opened, 2000 * 40).level == "ok"
    assert intensity_memory(opened, 2000 * 30).level == "fail"


def test_the_peak_of_the_image_baseline_is_what_is_counted():
    image = np.random.default_rng(0).integers(0, 255, (16, 128, 128), np.uint8)
    tracemalloc.start()
    intensity_affinities(image)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak / image.size == pytest.approx(_INTENSITY_BYTES, rel=0.05)


def test_a_stage_takes_as_long_as_its_steps_or_its_crops():
    fields = {"steps": 1000, "batch_size": 10, "eval_every": 500, "eval_crops": 30}
    run = Training(**fields, folder=pathlib.Path(), seed=0)
    quick = foretell(1.0, 1000.0, run)
    assert quick.level == "ok"
    assert "about 17 min for 1,000 steps" in quick.found  # 1000 s, and twice a third of 3 s.
    slow = foretell(1.0, 2.0, run)
    assert slow.level == "warn"
    assert "about 83 min" in slow.found  # 5000 s
    assert "wait for crops" in slow.found
    assert (quick.seconds, slow.seconds) == (pytest.approx(1002), pytest.approx(5002))


def test_the_time_of_a_run_is_a_sum_that_names_what_it_lacks():
    stages = ("pretrain", "predict", "segment", "evaluate")
    some = total(stages, {"pretrain": 3600.0, "predict": 7200.0})
    assert some.found == (
        "about 3 h for pretrain, predict; not foretold, so it comes on top: segment, evaluate"
    )
    assert total(("pretrain",), {"pretrain": 3600.0}).found == "about 60 min for pretrain"
    assert total(("segment",), {}).found == "not foretold: segment"


def test_items_are_counted_to_their_end():
    assert per_second(iter(range(5))) > 0


def test_doubts_add_up_to_the_worst():
    assert worst("a", []) == Verdict("ok", "a")
    doubts = [Verdict("warn", "b", "c"), Verdict("fail", "d"), Verdict("warn", "e", "f")]
    assert worst("a", doubts) == Verdict("fail", "a; b; d; e", "c; f")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (amount(0), "0 B"),
        (amount(999), "999 B"),
        (amount(1_230_000), "1.23 MB"),
        (duration(0.25), "0.25 s"),
        (duration(80), "80 s"),
        (duration(600), "10 min"),
        (duration(6 * 3600), "6 h"),
        (duration(5 * 86400), "5 days"),
    ],
)
def test_numbers_are_short(said, expected):
    assert said == expected


def test_disk_is_that_of_the_next_folder_that_is_there(tmp_path):
    assert free_disk(tmp_path / "a" / "b") > 0


def test_windows_are_counted_without_making_them():
    config = segmenting()
    for shape in ((7, 100, 131), (3, 96, 48), (6, 97, 96)):
        region = Box((2, 3, 4), tuple(a + b for a, b in zip((2, 3, 4), shape, strict=True)))
        windows = Windows(region, config.predict.window_zyx, config.predict.stride_zyx)
        assert windows.count == len(windows.touching(region))


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="only on CPUs are steps so slow")
@pytest.mark.parametrize(
    ("operations", "parts", "count"),
    [(1e12, 1, 64), (8e12, 1, 8), (8e12, 4, 2), (1e20, 1, 1), (None, 1, 64)],
)
def test_of_what_takes_minutes_fewer_crops_are_timed(operations, parts, count):
    cost = None if operations is None else {"flops": operations}
    compiled = SimpleNamespace(cost_analysis=lambda: cost)
    assert timed_crops(compiled, 64, parts) == count


def test_a_training_in_smaller_batches_is_the_same_otherwise(tmp_path):
    trial = open_trial(runs.config(), "pretrain", tmp_path)
    few = trial.of_fewer_crops(2)
    assert few.ready.run.batch_size == 2
    assert len(few.batch["image"]) == 2
    assert few.parameters == trial.parameters
    assert seconds_of_step(few) > 0
