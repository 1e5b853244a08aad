"""A trained model and a volume are all that the config `apply` needs."""

import json
import os
import runpy
import shutil
import subprocess
import sys

import numpy as np
import pytest
import zarr

from maemem.assembly.networks import target
from maemem.blockwise.store import read_labels
from maemem.config import everything, pretraining, segmenting
from maemem.data.sets.datasets import open_dataset
from maemem.doctor.examination import examine
from maemem.export_model import export_model
from maemem.stages import predict, segment
from maemem.stages.thresholds import check_thresholds
from maemem.workdir import check_network
from tests import runs

GET_CONFIG = runpy.run_path(str(runs.REPOSITORY / "configs" / "apply.py"))["get_config"]


def start(model, workdir, *fields):
    """Runs the command, and returns its exit status and what it printed."""
    command = [sys.executable, "-m", "maemem.main", f"--config=maemem:apply:{model}"]
    command += [f"--workdir={workdir}", *(f"--config.{field}" for field in fields)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        command, cwd=runs.REPOSITORY, env=environment, capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def model(whole, tmp_path):
    """A copy of a workdir that has been through all stages, to do harm to."""
    return shutil.copytree(whole[0], tmp_path / "model")


def predicted(model, tmp_path):
    """The config for a model, and a workdir with the prediction of the test volume by it."""
    config = GET_CONFIG(str(model))
    config.data.test.volume.path = runs.TINY["data.test.labelled.path"]
    folder = tmp_path / "applied" / "predict" / "test"
    shutil.copytree(model / "predict" / "test" / "labelled.zarr", folder / "volume.zarr")
    return config.lock(), tmp_path / "applied"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["workdir", "folder"])
def test_objects_are_those_of_the_run_that_tuned_the_thresholds(whole, tmp_path, kind):
    model = whole[0]
    if kind == "folder":
        model = tmp_path / "exported"
        export_model(whole[0], model, licence="CC-BY-4.0", data="Synthetic tissue.")
    path = f"data.test.volume.path={runs.TINY['data.test.labelled.path']}"
    status, printed = start(model, tmp_path / "large", path)
    assert status == 0, printed
    found = read_labels(tmp_path / "large" / "segment" / "test" / "volume.zarr")
    known = read_labels(whole[0] / "segment" / "test" / "labelled.zarr")
    np.testing.assert_array_equal(found, known)
    tuned = json.loads((tmp_path / "large" / "segment" / "tuned.json").read_text())
    assert tuned["taken_from"].startswith(str(model))


@pytest.mark.slow
def test_a_volume_with_labels_is_scored(whole, tmp_path):
    """And a plain zarr, which says nothing of its voxels, is told their size."""
    fields = ["stages=('predict','segment','evaluate')", "data.test.volume.voxel_size_nm=30,6,6"]
    for name, kind in (("path", "raw"), ("labels", "ids")):
        source = open_dataset(runs.TINY[f"data.test.labelled.{name}"], cache=tmp_path / "cache")
        path = tmp_path / f"{kind}.zarr"
        zarr.create_array(path, data=source.store.read().result())
        fields.append(f"data.test.volume.{name}={path}")
    status, printed = start(whole[0], tmp_path / "large", *fields)
    assert status == 0, printed
    scored, known = (
        json.loads((folder / "evaluate" / "scores.json").read_text())["sets"]["test"]
        for folder in (tmp_path / "large", whole[0])
    )
    known["labelled"]["baselines"] = {}
    assert scored["volume"] == known["labelled"]


@pytest.mark.slow
def test_a_model_without_thresholds_is_refused_before_it_predicts(model, tmp_path):
    shutil.rmtree(model / "segment")
    path = f"data.test.volume.path={runs.TINY['data.test.labelled.path']}"
    status, printed = start(model, tmp_path / "large", path)
    assert status == 1
    assert "the network has no tuned thresholds" in printed.splitlines()[-1]
    assert not (tmp_path / "large" / "predict").exists()


@pytest.mark.slow
def test_a_check_up_foretells_what_is_refused(model, tmp_path):
    config, workdir = predicted(model, tmp_path)
    shutil.rmtree(model / "segment")
    with config.unlocked():
        config.data.test.volume.path += "&voxel_size_nm=30,12,12"
    lines = {line.check: line.verdict for line in examine(config, workdir, lambda line: None)}
    assert lines["network"].level == lines["thresholds"].level == "fail"
    assert "has voxels of 30.0x12.0x12.0 nm" in lines["network"].found
    assert "the network has no tuned thresholds" in lines["thresholds"].found
    assert "memory segment" not in lines


@pytest.mark.slow
def test_thresholds_of_another_way_to_decode_are_refused(model, tmp_path):
    config, workdir = predicted(model, tmp_path)
    with config.unlocked():
        config.segment.decoder.fragments = "distance"
    message = r"segment\.decoder\.fragments: 'steepest' there, 'distance' now"
    with pytest.raises(ValueError, match=message):
        segment.run(config, workdir)


@pytest.mark.slow
def test_thresholds_of_another_training_are_refused(model, tmp_path):
    config, workdir = predicted(model, tmp_path)
    shutil.rmtree(workdir / "predict")
    shutil.rmtree(model / "finetune" / "checkpoints" / "4")  # Leaves an earlier network.
    predict.run(config, workdir)
    for refuse in (check_thresholds, segment.run):
        with pytest.raises(ValueError, match="was not tuned on predictions of the network"):
            refuse(config, workdir)
    assert not (workdir / "segment" / "tuned.json").exists()


@pytest.mark.slow
def test_voxels_of_another_size_are_refused(model, tmp_path):
    config, workdir = predicted(model, tmp_path)
    with config.unlocked():
        config.data.test.volume.path += "&voxel_size_nm=30,12,12"
    with pytest.raises(ValueError, match=r"has voxels of 30\.0x12\.0x12\.0 nm, and the network"):
        predict.run(config, workdir)


@pytest.mark.slow
def test_a_baseline_without_thresholds_is_named(model, tmp_path):
    config, workdir = predicted(model, tmp_path)
    path = model / "segment" / "tuned.json"
    record = json.loads(path.read_text())
    del record["thresholds"]["intensity"]
    path.write_text(json.dumps(record))
    with config.unlocked():
        config.segment.baselines = ("fragments", "intensity")
    with pytest.raises(ValueError, match="holds no thresholds of intensity"):
        segment.run(config, workdir)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (None, "no model is named"),
        ({}, "is no workdir of a run"),
        ({"config": pretraining().to_dict()}, "is of pre-training only"),
        ({"config": everything().to_dict(), "stage": "pretrain"}, "is of pre-training only"),
    ],
)
def test_what_is_no_model_is_named(tmp_path, record, message):
    if record:
        (tmp_path / "config.json").write_text(json.dumps(record))
    with pytest.raises(FileNotFoundError, match=message):
        GET_CONFIG("" if record is None else str(tmp_path))


def test_fields_that_are_newer_than_the_model_have_their_defaults(tmp_path):
    fields = segmenting().to_dict()
    del fields["target"]["erosion"], fields["evaluate"]
    (tmp_path / "config.json").write_text(json.dumps({"config": fields}))
    made = GET_CONFIG(str(tmp_path))
    assert made.evaluate == segmenting().evaluate
    assert target(made) == target(segmenting())
    check_network(made, tmp_path / "segment" / "tuned.json", ("target",))
    with made.unlocked():
        made.target.offsets = "lee"
    with pytest.raises(ValueError, match=r"target\.offsets: 'nearest' there, 'lee' now"):
        check_network(made, tmp_path / "segment" / "tuned.json", ("target",))


@pytest.mark.slow
def test_a_config_that_cannot_be_made_is_one_line(tmp_path):
    status, printed = start(tmp_path, tmp_path / "large")
    assert status == 1
    assert printed.startswith(f"error: there is no {tmp_path}/config.json")
    assert len(printed.splitlines()) == 1
    (tmp_path / "config.json").write_text("{")
    status, printed = start(tmp_path, tmp_path / "large")
    assert status == 1
    assert printed.startswith(f"error: {tmp_path}/config.json cannot be read")
    assert len(printed.splitlines()) == 1
    assert not (tmp_path / "large").exists()
