"""Predict, segment and evaluate of many blocks, killed when some of a step's blocks are done."""

import random
import signal
import time

import pytest

from tests import runs
from tests.blockwise.volumes import files

STAGES = ("predict", "segment", "evaluate")
TISSUE = "synthetic:?shape_zyx=8,256,256&seed=3"
COUNT = 16  # Blocks of the test volume.
FIELDS = {
    "stages": str(STAGES),
    "data__test__labelled__path": TISSUE,
    "data__test__labelled__labels": f"{TISSUE}&show=neurites",
    "predict__memory_bytes": 1,
    "segment__block_zyx": "(8,64,64)",
    "segment__halo_zyx": "(2,8,8)",
    "segment__grid__score": "('mean',)",
    "segment__grid__low": "(0.1,)",
    "segment__baselines": "()",
}


def recorded(workdir, stage, step):
    """When each block was recorded that a step has finished of what a stage has begun."""
    records = workdir.glob(f"{stage}/test/*.partial/.conversion/{'?' * 16}")
    blocks = (path for record in records for path in (record / step).glob("*-*"))
    return {path: path.stat().st_mtime_ns for path in blocks}


def kill_in(workdir, stage, step, fields):
    """Runs until some blocks of a step are done, kills the process, and returns their record."""
    process = runs.start(workdir, **fields)
    deadline = time.monotonic() + 120
    while len(recorded(workdir, stage, step)) < 3:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    found = recorded(workdir, stage, step)
    assert 3 <= len(found) < COUNT
    return found


@pytest.mark.slow
def test_killed_between_blocks_of_any_step_it_ends_with_the_same_bytes(whole, tmp_path):
    """The blocks that were done are not done again. Some runs have workers, and some have none."""
    fields = FIELDS | {"predict__network": str(whole[0])}
    runs.run(tmp_path / "whole", **fields)
    workdir, done = tmp_path / "killed", {}
    for stage, step, workers in (
        ("predict", "", "local:2"),
        ("segment", "cut", ""),
        ("segment", "connected", "local:2"),
        ("segment", "labelled", ""),
    ):
        done |= kill_in(workdir, stage, step, fields | {"runtime__workers": workers})
        again = [
            path for path, then in done.items() if path.exists() and path.stat().st_mtime_ns != then
        ]
        assert not again
    process = runs.start(workdir, **fields)
    assert any("stage evaluate, in" in line for line in process.stdout)
    time.sleep(random.uniform(0, 0.3))
    process.kill()
    process.communicate()
    runs.run(workdir, **fields)
    for stage in STAGES:
        assert files(tmp_path / "whole" / stage) == files(workdir / stage), stage
