"""Predict, segment and evaluate of many blocks, killed when some of a step's blocks are done."""

import itertools
import os
import random
import re
import signal
import time

import pytest

from maemem.assembly.volumes import open_raw
from maemem.blockwise.workers import open_workers
from maemem.stages import predict
from tests import runs
from tests.blockwise.test_killed_workers import busy
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
    """How many blocks are recorded that a step has finished of what a stage has begun."""
    records = workdir.glob(f"{stage}/test/*.partial/.conversion/{'?' * 16}")
    # What ends otherwise is being written.
    return sum(1 for record in records for _ in (record / step).glob("*-*[0-9]"))


def kill_in(workdir, stage, step, fields):
    """Runs until some blocks of a step are done, and kills the process.

    Returns:
      how many are recorded, and what the process has printed.
    """
    process = runs.start(workdir, **fields)
    deadline = time.monotonic() + 120
    while recorded(workdir, stage, step) < 3:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.kill()
    output, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL
    done = recorded(workdir, stage, step)
    assert 3 <= done < COUNT
    return done, output


def assert_went_on(output, done):
    """The last step that went on did none of so many blocks again."""
    *_, missing = re.findall(rf"going on: (\d+) of {COUNT} blocks are missing", output)
    assert 0 < int(missing) <= COUNT - done


@pytest.mark.slow
def test_killed_between_blocks_of_any_step_it_ends_with_the_same_bytes(whole, tmp_path):
    """The blocks that were done are not done again. Some runs have workers, and some have none."""
    fields = FIELDS | {"predict__network": str(whole[0])}
    runs.run(tmp_path / "whole", **fields)
    workdir, done = tmp_path / "killed", 0
    for stage, step, workers in (
        ("predict", "", "local:2"),
        ("segment", "cut", ""),
        ("segment", "connected", "local:2"),
        ("segment", "labelled", ""),
    ):
        before = done
        done, output = kill_in(workdir, stage, step, fields | {"runtime__workers": workers})
        if before:
            assert_went_on(output, before)
    process = runs.start(workdir, **fields)
    output = itertools.takewhile(lambda line: "stage evaluate, in" not in line, process.stdout)
    assert_went_on("".join(output), done)
    time.sleep(random.uniform(0, 0.1))
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    runs.run(workdir, **fields)
    for stage in STAGES:
        assert files(tmp_path / "whole" / stage) == files(workdir / stage), stage


@pytest.mark.slow
def test_workers_that_are_killed_while_they_hold_the_network_predict_the_same_bytes(
    whole, tmp_path
):
    fields = FIELDS | {"predict__network": str(whole[0])}
    config = runs.config(**fields)
    test = config.data.test.labelled
    path, _ = predict.checked_network(config, tmp_path)
    raw = open_raw(config, test, tmp_path)
    network = predict.open_network(config, None, path, raw.voxel_size_nm)
    killed = []

    def under_fire(work, blocks):
        for number, result in enumerate(workers(work, blocks)):
            # Whoever did the first block holds the network, and is at another one.
            if not number:
                for process in busy(workers.args[0].cluster):
                    os.kill(process, signal.SIGKILL)
                    killed.append(process)
            yield result

    with open_workers("local:2") as workers:
        for name, by in (("here", map), ("there", under_fire)):
            output = tmp_path / name / "a.zarr"
            predict.write_prediction(network, raw, test.region, output, by)
    assert killed
    assert files(tmp_path / "here") == files(tmp_path / "there")
