"""Arrays in, arrays out: what a workdir and its model folder say is what the stages wrote."""

import hashlib
import json
import logging
import re
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import maemem
from maemem.assembly.learners import make_learner
from maemem.assembly.starts import start_from
from maemem.assembly.trainings import make_training
from maemem.data.sets.datasets import open_dataset
from maemem.export_model import export_model
from maemem.training.checkpoint import read_parameters
from tests import runs
from tests.learners.made import like

pytestmark = pytest.mark.slow


def export(workdir, folder, *more):
    """Runs the command, and returns what it printed."""
    command = [sys.executable, "-m", "maemem.export_model", str(workdir), str(folder)]
    command += ["--licence=CC-BY-4.0", "--data=Synthetic tissue.", *more]
    done = subprocess.run(command, cwd=runs.REPOSITORY, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def workdir(whole):
    """A run of all stages."""
    return whole[0]


@pytest.fixture(scope="module")
def folder(workdir, tmp_path_factory):
    """Its model, exported."""
    folder = tmp_path_factory.mktemp("exported") / "neurites"
    status, printed = export(workdir, folder, "--citation=Nobody et al.")
    assert status == 0, printed
    return folder


@pytest.fixture(scope="module")
def raw(workdir):
    """The test volume."""
    path = runs.TINY["data.test.labelled.path"]
    return open_dataset(path, cache=workdir / "cache").store.read().result()


@pytest.fixture(scope="module")
def model(folder):
    """The model, loaded."""
    return maemem.load(folder)


@pytest.mark.parametrize("kind", ["workdir", "folder"])
def test_arrays_have_the_values_of_volumes(kind, workdir, folder, raw):
    model = maemem.load(workdir if kind == "workdir" else folder)
    assert model.channels == ("z-1", "y-1", "x-1")
    assert model.voxel_size_nm == (30, 6, 6)
    predicted = model.predict(raw)
    assert predicted.dtype == np.float32
    stored = maemem.read_prediction(workdir / "predict" / "test" / "labelled.zarr")
    np.testing.assert_array_equal(predicted, stored)
    labels = model.segment(raw, voxel_size_nm=(30, 6, 6))
    stored = maemem.read_labels(workdir / "segment" / "test" / "labelled.zarr")
    assert labels.dtype == np.uint32
    np.testing.assert_array_equal(labels, stored)


def test_the_card_says_what_the_model_is(workdir, folder):
    card = (folder / "README.md").read_text()
    scores = json.loads((workdir / "evaluate" / "scores.json").read_text())
    for said in (
        "# neurites",
        "CC-BY-4.0",
        "Synthetic tissue.",
        "Nobody et al.",
        "maemem.load",
        "30x6x6 nm",
        "width 24",
        "| segmenter | unetr, channels (4, 4, 8) |",
        f"{scores['sets']['test']['labelled']['adapted_rand']:.4f}",
    ):
        assert said in card
    assert {file.name for file in folder.iterdir()} == {
        *("README.md", "config.json", "weights.safetensors", "SHA256SUMS"),
        *("tuned.json", "scores.json"),
    }


def test_an_exported_encoder_starts_fine_tuning_and_segments_nothing(workdir, tmp_path):
    encoder = tmp_path / "encoder"
    status, printed = export(workdir, encoder, "--stage=pretrain")
    assert status == 0, printed
    with pytest.raises(ValueError, match="is pre-trained only"):
        maemem.load(encoder)
    config = runs.config(finetune__encoder=str(encoder))
    learner, crops = make_learner(config, "finetune"), like(config.data.crop_zyx)
    shapes = jax.eval_shape(lambda key: learner.init(key, crops), jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    run = make_training(config, "finetune", tmp_path)
    started = start_from(params, config, run, tmp_path)
    trained, _ = read_parameters(workdir, "pretrain")
    jax.tree.map(np.testing.assert_array_equal, started["encoder"], trained["encoder"])
    with pytest.raises(ValueError, match=r"model\.encoder\.rotary: True there, False now"):
        start_from(params, runs.config(model__encoder__rotary=False), run, tmp_path)


@pytest.mark.parametrize(
    ("volume", "size", "message"),
    [
        (np.ones((4, 32, 32), np.float32), None, "holds float32; expected uint8"),
        (np.ones((32, 32), np.uint8), None, r"shape \(32, 32\); expected \[z y x\]"),
        (np.zeros((4, 32, 32), np.uint8), None, "intensities lie between 0 and 0"),
        (np.ones((4, 32, 32), np.uint8), (30, 8, 8), "voxels of 30.0x8.0x8.0 nm"),
        (
            np.broadcast_to(np.uint8(1), (600, 600, 600)),
            None,
            r"let `python -m maemem\.main --config=maemem:apply:",
        ),
    ],
)
def test_volumes_that_the_network_cannot_judge_are_refused(model, volume, size, message):
    for judge in (model.predict, model.segment):
        with pytest.raises(ValueError, match=message):
            judge(volume, voxel_size_nm=size)


def test_a_changed_model_is_refused(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "tuned.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tuned\.json is not what SHA256SUMS says"):
        maemem.load(copy)


def test_without_thresholds_it_predicts_and_does_not_segment(workdir, tmp_path, raw):
    copy = shutil.copytree(workdir, tmp_path / "copy")
    shutil.rmtree(copy / "segment")
    model = maemem.load(copy)
    assert model.predict(raw[:4]).shape == (3, 4, 64, 64)
    with pytest.raises(ValueError, match="no tuned thresholds; run the stage segment"):
        model.segment(raw)


def test_thresholds_and_scores_of_another_checkpoint_do_not_travel(workdir, tmp_path, raw, caplog):
    copy = shutil.copytree(workdir, tmp_path / "copy")
    shutil.rmtree(copy / "finetune" / "checkpoints" / "4")  # So it is that of step 3.
    model = maemem.load(copy)
    assert model.predict(raw[:4]).shape == (3, 4, 64, 64)
    with pytest.raises(ValueError, match=r"tuned\.json was not tuned on .* run these stages again"):
        model.segment(raw)
    about = {"licence": "CC0", "data": "Synthetic tissue."}
    with caplog.at_level(logging.WARNING, "maemem"):
        export_model(copy, tmp_path / "model", **about)
    assert "thresholds and scores are left out: " in caplog.text
    assert not {"tuned.json", "scores.json"} & {
        file.name for file in (tmp_path / "model").iterdir()
    }
    assert "It was not scored." in (tmp_path / "model" / "README.md").read_text()
    # As a folder that was exported before this was looked at.
    lines = (tmp_path / "model" / "SHA256SUMS").read_text()
    shutil.copy(copy / "segment" / "tuned.json", tmp_path / "model")
    checksum = hashlib.sha256((copy / "segment" / "tuned.json").read_bytes()).hexdigest()
    (tmp_path / "model" / "SHA256SUMS").write_text(f"{lines}{checksum}  tuned.json\n")
    with pytest.raises(ValueError, match=r"export it anew"):
        maemem.load(tmp_path / "model").segment(raw)


def test_voxel_sizes_are_those_of_volumes_before_they_are_binned(workdir, tmp_path):
    copy = shutil.copytree(workdir, tmp_path / "copy")
    record = json.loads((copy / "config.json").read_text())
    record["config"]["data"]["bin_zyx"] = [1, 2, 2]  # As if its voxels had been binned to 30x6x6.
    (copy / "config.json").write_text(json.dumps(record))
    export_model(copy, tmp_path / "model", licence="CC0", data="Synthetic tissue.")
    assert "voxels of about 30x3x3 nm" in (tmp_path / "model" / "README.md").read_text()
    for folder in (copy, tmp_path / "model"):
        model = maemem.load(folder)
        assert model.voxel_size_nm == (30, 3, 3)
        volume = np.arange(4 * 64 * 64, dtype=np.uint8).reshape(4, 64, 64)
        assert model.predict(volume, voxel_size_nm=(30, 3, 3)).shape == (3, 4, 32, 32)
        with pytest.raises(ValueError, match=r"trained on 30\.0x3\.0x3\.0 nm"):
            model.predict(volume, voxel_size_nm=(30, 6, 6))


def test_scores_with_other_thresholds_do_not_travel(workdir, tmp_path):
    copy = shutil.copytree(workdir, tmp_path / "copy")
    tuned = copy / "segment" / "tuned.json"
    tuned.write_text(tuned.read_text() + "\n")
    export_model(copy, tmp_path / "model", licence="CC0", data="Synthetic tissue.")
    assert (tmp_path / "model" / "tuned.json").exists()
    assert not (tmp_path / "model" / "scores.json").exists()


def test_a_record_older_than_a_field_has_its_default(workdir, tmp_path):
    copy = shutil.copytree(workdir, tmp_path / "copy")
    record = json.loads((copy / "config.json").read_text())
    del record["config"]["model"]["encoder"]["positions_yx"]
    (copy / "config.json").write_text(json.dumps(record))
    assert maemem.load(copy).channels == ("z-1", "y-1", "x-1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--licence= "], "licence or data is empty"),
        (["--stage=finetune"], "there is no checkpoint at"),
    ],
)
def test_what_cannot_be_exported_is_named(whole, tmp_path, arguments, message):
    workdir = shutil.copytree(whole[0], tmp_path / "copy")
    shutil.rmtree(workdir / "finetune")
    status, printed = export(workdir, tmp_path / "model", *arguments)
    assert status == 1
    assert message in printed
    assert "Traceback" not in printed
    assert not (tmp_path / "model").exists()


def test_the_page_about_reuse_runs_as_it_is_written(workdir, raw, tmp_path, monkeypatch):
    page = (runs.REPOSITORY / "docs" / "reuse.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len([line for line in block.splitlines() if line.strip()]) == 3
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(workdir)
    monkeypatch.chdir(tmp_path)
    names = {"volume": raw}
    exec(block, names)
    stored = maemem.read_labels(workdir / "segment" / "test" / "labelled.zarr")
    np.testing.assert_array_equal(names["labels"], stored)
