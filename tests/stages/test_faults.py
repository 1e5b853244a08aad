"""Runs that are killed, stopped or damaged: they end as if nothing had been, or say why not."""

import random
import re
import shutil
import signal
import time

import numpy as np
import pytest

from tests import runs


def assert_same_run(workdir, other, stage="pretrain"):
    """The same parameters, bit for bit, and the same rows, each step once."""
    runs.assert_same_arrays(
        runs.parameters(workdir, 120, stage), runs.parameters(other, 120, stage)
    )
    names = ("step", "loss", "learning_rate", "gradient_norm", "eval_masked_mse", "eval_loss")
    ours, theirs = (
        [{name: row[name] for name in names if name in row} for row in runs.metrics(folder, stage)]
        for folder in (workdir, other)
    )
    assert ours == theirs
    assert [row["step"] for row in ours] == list(range(1, 121))


@pytest.mark.slow
@pytest.mark.parametrize("stage", runs.LONG)
def test_killed_at_random_it_ends_the_same(undisturbed, tmp_path, stage):
    """SIGKILL three times in the midst of training; each time it goes on from a checkpoint."""
    draw = random.Random(time.time_ns())
    for first, last in ((5, 40), (45, 80), (85, 110)):
        process = runs.start(tmp_path, **runs.LONG[stage])
        runs.wait_for_rows(process, tmp_path, draw.randint(first, last), stage)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert runs.rows_written(tmp_path, stage) < 120
    output = runs.run(tmp_path, **runs.LONG[stage])
    resumed = int(re.search(r"training from step (\d+) to 120", output)[1])
    assert 76 <= resumed < 120
    assert_same_run(tmp_path, undisturbed(stage), stage)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "number"),
    [
        ("pretrain", signal.SIGTERM),
        ("pretrain", signal.SIGINT),
        ("finetune", signal.SIGTERM),
    ],
)
def test_asked_to_stop_it_saves_first_and_goes_on_later(undisturbed, tmp_path, stage, number):
    process = runs.start(tmp_path, **runs.LONG[stage])
    runs.wait_for_rows(process, tmp_path, 10, stage)
    process.send_signal(number)
    if number == signal.SIGTERM:  # Some schedulers say it twice.
        process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, output
    last = runs.metrics(tmp_path, stage)[-1]["step"]
    assert last < 120
    assert f"saved step {last}" in output
    assert f"training from step {last} to 120" in runs.run(tmp_path, **runs.LONG[stage])
    assert_same_run(tmp_path, undisturbed(stage), stage)


def test_two_runs_in_one_workdir_are_refused(tmp_path):
    process = runs.start(tmp_path, **runs.LONG["pretrain"])
    runs.wait_for_rows(process, tmp_path, 1)
    output = runs.run(tmp_path, status=1, **runs.LONG["pretrain"])
    process.kill()
    process.communicate()
    assert "another process works in" in output
    assert "Traceback" not in output


def test_a_truncated_checkpoint_falls_back_to_the_one_before(pretrained, tmp_path):
    shutil.copytree(pretrained, tmp_path, dirs_exist_ok=True)
    newest = tmp_path / "pretrain" / "checkpoints" / "12"
    for path in newest.rglob("*"):
        if path.is_file() and path.stat().st_size > 1000:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    output = runs.run(tmp_path)
    assert "checkpoint of step 12 cannot be read" in output
    assert "falling back to the checkpoint of step 8" in output
    runs.assert_same_arrays(runs.parameters(pretrained), runs.parameters(tmp_path))
    assert [row["step"] for row in runs.metrics(tmp_path)] == list(range(1, 13))
    assert any((tmp_path / "pretrain" / "damaged").iterdir())


def test_unreadable_checkpoints_stay_where_they_are(pretrained, tmp_path):
    """Nothing that can be read is worth more than a fresh start over what may yet be mended."""
    shutil.copytree(pretrained, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "pretrain" / "checkpoints"
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    output = runs.run(tmp_path, status=1)
    assert "none of the checkpoints" in output
    assert sorted(int(p.name) for p in folder.iterdir()) == [4, 8, 12]
    assert [row["step"] for row in runs.metrics(tmp_path)] == list(range(1, 13))


def test_a_non_finite_loss_stops_the_run(tmp_path):
    output = runs.run(
        tmp_path,
        status=1,
        pretrain__optimizer__learning_rate=1e30,
        pretrain__optimizer__clip_norm=0.0,
        pretrain__checkpoint_every=1,
    )
    (step,) = re.findall(r"step (\d+) is not finite: .*learning_rate 3.333e\+29", output)
    (good,) = re.findall(r"The last good checkpoint is step (\d+) in", output)
    assert int(good) == int(step) - 1
    saved = [int(p.name) for p in (tmp_path / "pretrain" / "checkpoints").iterdir()]
    assert max(saved) == int(good)
    norm = np.sqrt(
        sum(np.square(x.astype(float)).sum() for x in runs.parameters(tmp_path, int(good)).values())
    )
    assert norm < 1e4


@pytest.mark.slow
def test_remat_and_ema_train(tmp_path):
    """The options that change how a state looks, saved and resumed; and taken over without them."""
    options = runs.LONG["pretrain"] | {
        "runtime__remat": True,
        "pretrain__ema_decay": 0.9,
        "model__encoder__depth": 2,
    }
    runs.run(tmp_path / "whole", **options)
    process = runs.start(tmp_path / "killed", **options)
    runs.wait_for_rows(process, tmp_path / "killed", 60)
    process.kill()
    process.communicate()
    assert runs.rows_written(tmp_path / "killed") < 120
    assert "training from step 0 " not in runs.run(tmp_path / "killed", **options)
    assert_same_run(tmp_path / "killed", tmp_path / "whole")

    without = {"stages": "('finetune',)", "model__encoder__depth": 2}
    said = runs.run(tmp_path / "other", **without, finetune__encoder=str(tmp_path / "whole"))
    assert "parameters matched, of encoder" in said
