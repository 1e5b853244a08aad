"""What is kept beside a run."""

import json
import logging
import os
import subprocess

import pytest

from maemem import layout
from maemem.config import everything
from maemem.workdir import (
    check_network,
    claim_workdir,
    describe_differences,
    read_config,
    timed,
    workdir_folder,
)
from tests import runs


@pytest.mark.parametrize(("named", "kept"), [("", "run/cache/compiled"), ("mine", "mine")])
def test_compilations_are_kept_beside_the_run_or_where_jax_is_told(tmp_path, named, kept):
    inherited = {k: v for k, v in os.environ.items() if "CACHE" not in k}
    variables = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / named)} if named else {}
    command = runs.program("compile_once", tmp_path / "run")
    subprocess.run(command, cwd=runs.REPOSITORY, env=inherited | variables, check=True)
    folders = {path.parent for path in tmp_path.rglob("*-cache")}
    assert folders == {tmp_path / kept}


@pytest.fixture
def checkpoint(tmp_path):
    """Where a checkpoint would be, in a workdir with its record."""
    record = {"config": everything().to_dict()}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps(record))
    return tmp_path / "run" / "pretrain" / "checkpoints" / "400"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "encoder.patch_zyx",
            (4, 8, 8),
            r"model\.encoder\.patch_zyx: \[1, 16, 16\] there, \[4, 8, 8\] now",
        ),
        ("encoder.heads", 6, r"model\.encoder\.heads: 12 there, 6 now"),
        ("encoder.rotary", True, r"model\.encoder\.rotary: False there, True now"),
    ],
)
def test_a_network_that_was_trained_with_another_config_is_refused(
    checkpoint, field, value, message
):
    config = everything()
    config.model.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError, match=message):
        check_network(config, checkpoint, ("model.encoder",))


def test_a_network_that_sees_volumes_in_the_same_way_is_accepted(checkpoint, caplog):
    config = everything()
    config.data.intensity_range = (0, 255)  # As by default.
    config.data.crop_zyx = (12, 96, 96)
    config.seed = 7
    check_network(config, checkpoint, ("model.encoder",))
    assert not caplog.records
    record = json.loads((checkpoint.parents[2] / "config.json").read_text())["config"]
    differences = describe_differences(record, config)
    assert "seed" in differences
    assert "intensity_range" not in differences
    config.data.intensity_range = (0.0, 4000.0)  # Of another microscope, scaled to the same.
    check_network(config, checkpoint, ("model.encoder",))


@pytest.mark.parametrize("record", [None, "torn", "[]", '{"config": 3}'])
def test_a_network_without_a_record_is_a_warning(checkpoint, record, caplog):
    path = checkpoint.parents[2] / "config.json"
    path.unlink() if record is None else path.write_text(record)
    # Too far up to be its record.
    (path.parents[1] / "config.json").write_text('{"config": {}}')
    with caplog.at_level(logging.WARNING, "maemem"):
        check_network(everything(), checkpoint, ("model.encoder",))
    assert "no readable config.json" in caplog.text


def test_a_model_folder_is_no_workdir(tmp_path):
    for name in ("config.json", "SHA256SUMS", "weights.safetensors"):
        (tmp_path / name).write_text(name)
    with pytest.raises(ValueError, match=r"is a model folder.*name another folder by --workdir"):
        claim_workdir(everything(), tmp_path, ("pretrain", "finetune"))
    assert (tmp_path / "config.json").read_text() == "config.json"


def test_a_workdir_is_a_folder():
    assert str(workdir_folder("runs/my run")) == "runs/my run"
    with pytest.raises(ValueError, match=r"gs://bucket/mine is a URL; expected a folder"):
        workdir_folder("gs://bucket/mine")


def test_labels_of_baselines_lie_beside_those_of_the_network(tmp_path):
    named = {
        method: layout.labels_path(tmp_path, "test", "one", method).relative_to(tmp_path).as_posix()
        for method in (layout.NETWORK, "fragments")
    }
    assert named == {
        "network": "segment/test/one.zarr",
        "fragments": "segment/test/one.fragments.zarr",
    }


def test_a_claimed_workdir_gives_its_config_back(tmp_path):
    config = everything()
    config.seed = 7
    claim_workdir(config, tmp_path, ("pretrain",))
    assert read_config(tmp_path).to_dict() == config.to_dict()
    record = json.loads(layout.config_path(tmp_path).read_text())
    assert {"maemem", "jax", "python"} <= record["versions"].keys()


def test_times_of_a_stage_add_up_also_where_it_fails(tmp_path):
    with timed("predict", tmp_path):
        pass
    first = json.loads(layout.timings_path(tmp_path).read_text())["predict"]
    with pytest.raises(KeyError), timed("predict", tmp_path):
        raise KeyError
    assert json.loads(layout.timings_path(tmp_path).read_text())["predict"] > first
