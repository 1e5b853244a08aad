"""Whole pre-training runs, and what happens when they are killed."""

import json
import random
import signal
import socket
import time

import matplotlib
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


@pytest.mark.slow
def test_killed_at_random_it_ends_the_same(whole, tmp_path):
    """SIGKILL until it is through: the same parameters, bit for bit, and each step once."""
    kills, draw = 0, random.Random(time.time_ns())
    while kills < 4:
        process = runs.start(tmp_path)
        rows = tmp_path / "pretrain" / "metrics.jsonl"
        seen = rows.read_text().count("\n") if rows.exists() else 0
        deadline = time.monotonic() + 120
        # Wait until it works, then let it go on for a random while.
        while process.poll() is None and time.monotonic() < deadline:
            if rows.exists() and rows.read_text().count("\n") > min(seen, 11):
                break
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.5))
        process.kill()
        process.communicate()
        kills += 1
    runs.run(tmp_path)
    assert_same_arrays(final_params(whole), final_params(tmp_path))
    compared = ("step", "loss", "learning_rate", "gradient_norm", "eval_masked_mse")
    for row, other in zip(runs.metrics(whole), runs.metrics(tmp_path), strict=True):
        assert {k: row[k] for k in compared if k in row} == {
            k: other[k] for k in compared if k in other
        }


def test_sigterm_saves_first(whole, tmp_path):
    process = runs.start(tmp_path, pretrain__steps=100_000, pretrain__checkpoint_every=50_000)
    rows = tmp_path / "pretrain" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (rows.exists() and rows.read_text().count("\n") > 2):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    last = runs.metrics(tmp_path)[-1]["step"]
    assert f"saved step {last}" in output
    assert (tmp_path / "pretrain" / "checkpoints" / str(last)).is_dir()


def test_a_truncated_checkpoint_falls_back_to_the_one_before(whole, tmp_path):
    runs.run(tmp_path)
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
    assert "the loss is nan" in output or "the loss is inf" in output or "norm nan" in output
    assert "learning rate" in output
    assert "The last good checkpoint is step" in output
    saved = max(int(p.name) for p in (tmp_path / "pretrain" / "checkpoints").iterdir())
    assert all(np.isfinite(array).all() for array in final_params(tmp_path, saved).values())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"data__train__tissue__path": "nowhere.zarr"}, "nowhere.zarr"),
        ({"data__crop_zyx": "(4,33,32)"}, "not divisible by patch 1x8x8 along y"),
        ({"data__crop_zyx": "(16,32,32)"}, "smaller than the crop 16x32x32"),
        ({"pretrain__masking__ratio": 1.5}, "masking ratio 1.5"),
        ({"pretrain__masking__strategy": "tube"}, "'tube' is unknown"),
        ({"pretrain__batch_size": 7, "pretrain__accumulation": 2}, "batch_size 7"),
        ({"runtime__dtype": "float8"}, "'float8' is unknown"),
        ({"stages": "('finish',)"}, "unknown stages"),
        (
            {"data__validation__tissue__path": "synthetic:?shape_zyx=12,64,64&seed=0"},
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
    options = {
        "model__scan": True,
        "runtime__remat": True,
        "pretrain__ema_decay": 0.9,
        "model__encoder__depth": 2,
    }
    runs.run(tmp_path / "whole", **options)
    process = runs.start(tmp_path / "killed", **options)
    checkpoint = tmp_path / "killed" / "pretrain" / "checkpoints" / "4"
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.01)
    process.kill()
    process.communicate()
    runs.run(tmp_path / "killed", **options)
    assert_same_arrays(final_params(tmp_path / "whole"), final_params(tmp_path / "killed"))


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
