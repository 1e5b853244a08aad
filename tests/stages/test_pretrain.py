"""Whole pre-training runs, and what happens when they are killed."""

import json
import random
import re
import shutil
import signal
import socket
import time

import matplotlib.image
import numpy as np
import pytest
from orbax import checkpoint as ocp

from tests import runs


def final_params(workdir, step=12):
    """All arrays of a checkpoint, as read from disk."""
    state = ocp.StandardCheckpointer().restore(
        (workdir / "pretrain" / "checkpoints" / str(step) / "default").absolute()
    )
    return {
        "/".join(map(str, path)): np.asarray(leaf)
        for path, leaf in ocp.tree.to_flat_dict(state).items()
    }


def assert_same_arrays(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody disturbed."""
    workdir = tmp_path_factory.mktemp("whole run")
    runs.run(workdir)
    return workdir


def test_a_run_leaves_encoder_curve_and_picture(whole):
    rows = runs.metrics(whole)
    assert [row["step"] for row in rows] == list(range(1, 13))
    for row in rows:
        assert {"loss", "learning_rate", "gradient_norm"} <= row.keys()
    assert all(row["crops_per_second"] > 0 for row in rows[1:])
    assert [row["step"] for row in rows if "eval_masked_mse" in row] == [4, 8, 12]
    picture = matplotlib.image.imread(whole / "pretrain" / "reconstruction.png")
    assert picture.std() > 0.1
    assert (whole / "pretrain" / "curve.png").exists()
    kept = sorted(int(p.name) for p in (whole / "pretrain" / "checkpoints").iterdir())
    assert kept == [4, 8, 12]
    record = json.loads((whole / "config.json").read_text())
    assert record["config"]["pretrain"]["steps"] == 12
    assert "jax" in record["versions"]
    assert "commit" in record


def test_learning_rate_warms_up_and_falls(whole):
    rates = [row["learning_rate"] for row in runs.metrics(whole)]
    assert rates[0] == 0
    assert np.argmax(rates) == 3
    assert rates[3] == pytest.approx(2e-3)
    assert rates[3:] == sorted(rates[3:], reverse=True)


def test_a_finished_run_does_nothing_more(whole):
    before = final_params(whole)
    runs.run(whole)
    assert [row["step"] for row in runs.metrics(whole)] == list(range(1, 13))
    assert_same_arrays(before, final_params(whole))


def rows_written(workdir) -> int:
    path = workdir / "pretrain" / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def wait_for_rows(process, workdir, count):
    """Returns once a run has written so many rows, while it goes on."""
    deadline = time.monotonic() + 120
    while rows_written(workdir) < count:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.002)


LONG = {"pretrain__steps": 120, "pretrain__eval_every": 40}


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """A longer run that nobody disturbed."""
    workdir = tmp_path_factory.mktemp("long run")
    runs.run(workdir, **LONG)
    return workdir


def assert_same_run(workdir, other):
    """The same parameters, bit for bit, and the same rows, each step once."""
    assert_same_arrays(final_params(workdir, 120), final_params(other, 120))
    names = ("step", "loss", "learning_rate", "gradient_norm", "eval_masked_mse")
    ours, theirs = (
        [{name: row[name] for name in names if name in row} for row in runs.metrics(folder)]
        for folder in (workdir, other)
    )
    assert ours == theirs
    assert [row["step"] for row in ours] == list(range(1, 121))


@pytest.mark.slow
def test_killed_at_random_it_ends_the_same(long, tmp_path):
    """SIGKILL three times in the midst of training; each time it goes on from a checkpoint."""
    draw = random.Random(time.time_ns())
    for first, last in ((5, 40), (45, 80), (85, 110)):
        process = runs.start(tmp_path, **LONG)
        wait_for_rows(process, tmp_path, draw.randint(first, last))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert rows_written(tmp_path) < 120
    output = runs.run(tmp_path, **LONG)
    resumed = int(re.search(r"training from step (\d+) to 120", output)[1])
    assert 76 <= resumed < 120
    assert_same_run(tmp_path, long)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_saves_first_and_goes_on_later(long, tmp_path, number):
    process = runs.start(tmp_path, **LONG)
    wait_for_rows(process, tmp_path, 10)
    process.send_signal(number)
    if number == signal.SIGTERM:  # Some schedulers say it twice.
        process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, output
    last = runs.metrics(tmp_path)[-1]["step"]
    assert last < 120
    assert f"saved step {last}" in output
    assert f"training from step {last} to 120" in runs.run(tmp_path, **LONG)
    assert_same_run(tmp_path, long)


def test_two_runs_in_one_workdir_are_refused(tmp_path):
    process = runs.start(tmp_path, **LONG)
    wait_for_rows(process, tmp_path, 1)
    output = runs.run(tmp_path, status=1, **LONG)
    process.kill()
    process.communicate()
    assert "another process works in" in output
    assert "Traceback" not in output


def test_a_truncated_checkpoint_falls_back_to_the_one_before(whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    newest = tmp_path / "pretrain" / "checkpoints" / "12"
    for path in newest.rglob("*"):
        if path.is_file() and path.stat().st_size > 1000:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    output = runs.run(tmp_path)
    assert "checkpoint of step 12 cannot be read" in output
    assert "falling back to the checkpoint of step 8" in output
    assert_same_arrays(final_params(whole), final_params(tmp_path))
    assert [row["step"] for row in runs.metrics(tmp_path)] == list(range(1, 13))
    assert any((tmp_path / "pretrain" / "damaged").iterdir())


def test_another_config_is_refused(whole):
    before = final_params(whole)
    output = runs.run(whole, status=1, pretrain__masking__ratio=0.6, seed=7)
    assert "pretrain.masking.ratio: 0.75 there, 0.6 now" in output
    assert "seed: 0 there, 7 now" in output
    assert "Traceback" not in output
    assert_same_arrays(before, final_params(whole))


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
        sum(np.square(x.astype(float)).sum() for x in final_params(tmp_path, int(good)).values())
    )
    assert norm < 1e4


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"data__train__unlabelled__path": "nowhere.zarr"}, "nowhere.zarr"),
        ({"data__crop_zyx": "(4,33,32)"}, "not divisible by patch 1x8x8 along y"),
        ({"data__crop_zyx": "(16,32,32)"}, "smaller than the crop 16x32x32"),
        ({"pretrain__masking__ratio": 1.5}, "masking ratio 1.5"),
        ({"pretrain__masking__strategy": "tube"}, "'tube' is unknown"),
        ({"pretrain__batch_size": 7, "pretrain__accumulation": 2}, "batch_size 7"),
        ({"model__encoder__heads": 5}, "the width an even multiple of heads"),
        ({"model__patch_zyx": "(0,8,8)"}, "model.patch_zyx is (0, 8, 8)"),
        ({"data__crop_zyx": "(32,32)"}, "three positive whole numbers"),
        ({"data__intensity_range": "(5.,5.)"}, "a lower and a higher intensity"),
        ({"pretrain__accumulation": 0}, "pretrain.accumulation is 0"),
        ({"pretrain__eval_crops": 0}, "pretrain.eval_crops is 0"),
        ({"data__train__unlabelled__path": ""}, "has no path"),
        ({"model__dtype": "float8"}, "'float8' is unknown"),
        ({"stages": "('finish',)"}, "unknown stages"),
        (
            {"data__validation__labelled__path": "synthetic:?shape_zyx=12,64,64&seed=0"},
            "'train' and 'validation' share voxels",
        ),
    ],
)
def test_bad_input_is_named_before_training(tmp_path, overrides, message):
    output = runs.run(tmp_path, status=1, **overrides)
    assert message in output
    assert "Traceback" not in output
    assert not (tmp_path / "pretrain" / "metrics.jsonl").exists()


def test_a_misspelt_field_is_refused(tmp_path):
    output = runs.run(tmp_path, status=1, pretrain__setps=3)
    assert "setps" in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_devices_and_sharding_do_not_change_the_loss(tmp_path):
    """1, 2 and 8 devices, replicated or FSDP, and accumulated: the same to rounding."""
    losses = {}
    for name, devices, overrides in [
        ("one", 1, {}),
        ("two", 2, {}),
        ("eight", 8, {}),
        ("eight, fsdp", 8, {"runtime__fsdp": True, "model__encoder__width": 96}),
        ("one, wide", 1, {"model__encoder__width": 96}),
        ("accumulated", 1, {"pretrain__accumulation": 4}),
        ("two, accumulated", 2, {"pretrain__accumulation": 4}),
    ]:
        workdir = tmp_path / name
        runs.run(workdir, devices=devices, pretrain__steps=4, **overrides)
        losses[name] = [row["loss"] for row in runs.metrics(workdir)]
    for name in ("two", "eight", "accumulated", "two, accumulated"):
        np.testing.assert_allclose(losses[name], losses["one"], rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(losses["eight, fsdp"], losses["one, wide"], rtol=1e-5)


@pytest.mark.slow
def test_scan_remat_and_ema_train(tmp_path):
    """The options that change how a state looks, saved and resumed."""
    options = LONG | {
        "model__scan": True,
        "runtime__remat": True,
        "pretrain__ema_decay": 0.9,
        "model__encoder__depth": 2,
    }
    runs.run(tmp_path / "whole", **options)
    process = runs.start(tmp_path / "killed", **options)
    wait_for_rows(process, tmp_path / "killed", 60)
    process.kill()
    process.communicate()
    assert rows_written(tmp_path / "killed") < 120
    assert "training from step 0 " not in runs.run(tmp_path / "killed", **options)
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


def test_unreadable_checkpoints_stay_where_they_are(whole, tmp_path):
    """Nothing that can be read is worth more than a fresh start over what may yet be mended."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "pretrain" / "checkpoints"
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    output = runs.run(tmp_path, status=1)
    assert "none of the checkpoints" in output
    assert sorted(int(p.name) for p in folder.iterdir()) == [4, 8, 12]
    assert [row["step"] for row in runs.metrics(tmp_path)] == list(range(1, 13))


def test_results_without_their_config_are_refused(whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    (tmp_path / "config.json").unlink()
    assert "no readable config.json" in runs.run(tmp_path, status=1)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return server.getsockname()[1]


@pytest.mark.slow
def test_two_processes_train_as_one(whole, tmp_path):
    """As on two hosts: the same losses, and one set of files."""
    address = f"localhost:{free_port()}"
    processes = [
        runs.start(
            tmp_path,
            variables={
                "JAX_COORDINATOR_ADDRESS": address,
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": str(index),
            },
        )
        for index in range(2)
    ]
    outputs = [process.communicate(timeout=200)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    rows, expected = runs.metrics(tmp_path), runs.metrics(whole)
    for name in ("step", "loss", "gradient_norm"):
        np.testing.assert_allclose(
            [row[name] for row in rows], [row[name] for row in expected], rtol=1e-4
        )
    np.testing.assert_allclose(
        rows[-1]["eval_masked_mse"], expected[-1]["eval_masked_mse"], rtol=1e-4
    )
