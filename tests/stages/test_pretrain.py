"""Whole pre-training runs: what they leave, refuse, and keep the same on any devices."""

import json
import shutil
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest

from tests import runs


def test_a_run_leaves_encoder_curve_and_picture(pretrained):
    rows = runs.metrics(pretrained)
    assert [row["step"] for row in rows] == list(range(1, 13))
    for row in rows:
        assert {"loss", "learning_rate", "gradient_norm"} <= row.keys()
    assert all(row["crops_per_second"] > 0 for row in rows[1:])
    assert [row["step"] for row in rows if "eval_masked_mse" in row] == [4, 8, 12]
    picture = matplotlib.image.imread(pretrained / "pretrain" / "held_out.png")
    assert picture.std() > 0.1
    assert (pretrained / "pretrain" / "curve.png").exists()
    kept = sorted(int(p.name) for p in (pretrained / "pretrain" / "checkpoints").iterdir())
    assert kept == [4, 8, 12]
    record = json.loads((pretrained / "config.json").read_text())
    assert record["config"]["pretrain"]["steps"] == 12
    assert "jax" in record["versions"]
    assert "commit" in record


def test_learning_rate_warms_up_and_falls(pretrained):
    rates = [row["learning_rate"] for row in runs.metrics(pretrained)]
    assert rates[0] == 0
    assert np.argmax(rates) == 3
    assert rates[3] == pytest.approx(2e-3)
    assert rates[3:] == sorted(rates[3:], reverse=True)


def test_a_finished_run_does_nothing_more(pretrained):
    before = runs.parameters(pretrained)
    runs.run(pretrained)
    assert [row["step"] for row in runs.metrics(pretrained)] == list(range(1, 13))
    runs.assert_same_arrays(before, runs.parameters(pretrained))


def test_another_config_is_refused(pretrained):
    before = runs.parameters(pretrained)
    output = runs.run(pretrained, status=1, pretrain__learner__ratio=0.6, seed=7)
    assert "pretrain.learner.ratio: 0.75 there, 0.6 now" in output
    assert "seed: 0 there, 7 now" in output
    assert "Traceback" not in output
    runs.assert_same_arrays(before, runs.parameters(pretrained))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"data__train__unlabelled__path": "nowhere.zarr"}, "nowhere.zarr"),
        ({"data__crop_zyx": "(4,33,32)"}, "not divisible by patch 1x8x8 along y"),
        ({"data__crop_zyx": "(16,32,32)"}, "smaller than the crop 16x32x32"),
        ({"pretrain__learner__ratio": 1.5}, "masking ratio 1.5"),
        ({"pretrain__learner__strategy": "tube"}, "pretrain.learner.strategy is 'tube'"),
        ({"pretrain__batch_size": 7, "pretrain__accumulation": 2}, "batch_size 7"),
        ({"model__encoder__heads": 5}, "the width an even multiple of heads"),
        ({"model__encoder__patch_zyx": "(0,8,8)"}, "model.encoder.patch_zyx is (0, 8, 8)"),
        ({"data__crop_zyx": "(32,32)"}, "three positive whole numbers"),
        ({"data__intensity_range": "(5.,5.)"}, "a lower and a higher intensity"),
        ({"pretrain__accumulation": 0}, "pretrain.accumulation is 0"),
        ({"pretrain__eval_crops": 0}, "pretrain.eval_crops is 0"),
        ({"data__train__unlabelled__path": ""}, "has no path"),
        ({"model__dtype": "float8"}, "model.dtype is 'float8'"),
        ({"stages": "('finish',)"}, "unknown stages"),
        ({"stages": "predict,segment"}, "write several as in"),
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
    assert "error: the config has no such field: 'setps'. Did you mean \"steps\"" in output
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


def test_results_without_their_config_are_refused(pretrained, tmp_path):
    shutil.copytree(pretrained, tmp_path, dirs_exist_ok=True)
    (tmp_path / "config.json").unlink()
    assert "no readable config.json" in runs.run(tmp_path, status=1)


@pytest.mark.slow
def test_unicode_and_spaces_in_workdir_and_config(tmp_path):
    folder = tmp_path / "Gewebe für später — 脑 #1%"
    folder.mkdir()
    config = folder / "ä b.py"
    shutil.copy(runs.REPOSITORY / "configs" / "demo.py", config)
    line = [f"--config={config}", *runs.arguments(folder / "mein Lauf", pretrain__steps=4)[1:]]
    done = subprocess.run(
        [sys.executable, "-m", "maemem.main", *line],
        cwd=tmp_path,
        env=runs.environment(1),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert runs.parameters(folder / "mein Lauf", 4)
    assert "was made with" not in done.stderr
