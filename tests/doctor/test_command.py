"""The command, on whole configs."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tests import runs

STAGES = "('pretrain','finetune','predict','segment','evaluate')"


def examine(workdir, *, status, variables=None, **overrides):
    """The output of the command, and the checks that it wrote, by name."""
    environment = runs.environment(1, **(variables or {}))
    command = [sys.executable, "-m", "maemem.doctor", *runs.arguments(workdir, **overrides)]
    done = subprocess.run(
        command, cwd=runs.REPOSITORY, env=environment, text=True, capture_output=True
    )
    assert done.returncode == status, done.stdout + done.stderr
    record = json.loads((workdir / "doctor" / "checks.json").read_text())
    return done.stdout, {line["check"]: line for line in record}


@pytest.mark.slow
def test_a_whole_config_is_examined_and_runs_afterwards(tmp_path):
    cache = tmp_path / "compiled"
    variables = {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    output, found = examine(tmp_path, status=0, variables=variables, stages=STAGES)
    assert {line["level"] for line in found.values()} <= {"ok", "warn"}
    for check in ("devices", "volume test/labelled", "shift train/labelled", "pace predict"):
        assert f"{found[check]['level']:4}  {check}: " in output
    assert "for 12 steps" in found["pace pretrain"]["found"]
    assert "for 4 steps" in found["pace finetune"]["found"]
    assert "for pretrain, finetune, predict; not foretold" in found["time"]["found"]
    assert "to decode a block" in found["memory blocks"]["found"]
    assert "makes it first" in found["start finetune"]["found"]
    names = {path.name for path in (tmp_path / "doctor").iterdir()}
    assert names == {"checks.json", "contact_pretrain.png", "contact_finetune.png"}
    assert not (tmp_path / "config.json").exists()
    compiled = set(cache.glob("jit_train_step*-cache"))
    assert len(compiled) == 2
    process = runs.start(tmp_path, variables=variables)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    assert set(cache.glob("jit_train_step*-cache")) == compiled


@pytest.mark.slow
def test_what_fails_is_named_and_the_rest_is_still_examined(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (8, 64, 64), np.uint8)
    np.save(tmp_path / "v.npy", image)
    np.save(tmp_path / "ids.npy", image[:4])
    output, found = examine(
        tmp_path,
        status=1,
        stages="('finetune',)",
        data__test__labelled__path=str(tmp_path / "v.npy"),
        data__test__labelled__labels=str(tmp_path / "ids.npy"),
        data__test__labelled__voxel_size_nm="(30.,6.,6.)",
    )
    failed = {name for name, line in found.items() if line["level"] == "fail"}
    assert failed == {"volume test/labelled"}
    assert "expected the same" in found["volume test/labelled"]["found"]
    assert found["sets"]["found"] == "not checked: see volume test/labelled"
    assert found["shift train/labelled"]["level"] in ("ok", "warn")
    assert output.strip().endswith("1 fail")


@pytest.mark.slow
def test_a_network_that_is_there_is_tried_before_it_predicts(tmp_path):
    process = runs.start(tmp_path / "made", stages="('finetune',)", finetune__encoder="")
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    wanted = {"stages": "('predict',)", "predict__network": str(tmp_path / "made")}
    _, found = examine(tmp_path / "a", status=0, **wanted)
    assert "finetune/checkpoints/4 fits" in found["network"]["found"]
    assert "a batch of windows" in found["memory predict"]["found"]
    assert "windows (views of each" in found["pace predict"]["found"]
    _, found = examine(tmp_path / "b", status=1, model__segmenter__channels="(4,4,16)", **wanted)
    assert "model.segmenter.channels: [4, 4, 8] there" in found["network"]["found"]
    assert "pace predict" not in found
