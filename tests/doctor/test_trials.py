"""What is said of memory, disk and pace, in numbers that are given."""

import pytest

from maemem.blockwise.windows import Windows
from maemem.config import pretraining, segmenting
from maemem.doctor.machine import fits, free_disk
from maemem.doctor.trials import foretell, per_second, total
from maemem.doctor.verdict import Verdict, amount, duration, worst
from maemem.geometry import Box


@pytest.mark.parametrize(("needed", "level"), [(80, "ok"), (95, "warn"), (101, "fail")])
def test_what_does_not_fit_is_told_with_how_to_mend_it(needed, level):
    verdict = fits("it", needed, 100, "there", "use less")
    assert verdict.level == level
    assert verdict.mend == ("" if level == "ok" else "use less")


def test_a_stage_takes_as_long_as_its_steps_or_its_crops():
    settings = pretraining().pretrain
    settings.steps, settings.batch_size = 1000, 10
    settings.eval_every, settings.eval_crops = 500, 30
    quick = foretell(1.0, 1000.0, "pretrain", settings)
    assert quick.level == "ok"
    assert "about 17 min for 1,000 steps" in quick.found  # 1000 s, and twice a third of 3 s.
    slow = foretell(1.0, 2.0, "pretrain", settings)
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
