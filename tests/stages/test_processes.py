"""Runs of several processes, as on several hosts."""

import os
import re
import signal
import subprocess

import numpy as np
import pytest

from tests import runs

pytestmark = pytest.mark.slow

LONG = runs.LONG["pretrain"] | {"pretrain__checkpoint_every": 20}


def start(workdir, count, **overrides) -> list[subprocess.Popen]:
    """So many processes, each with one device."""
    cluster = {
        "JAX_COORDINATOR_ADDRESS": f"localhost:{runs.free_port()}",
        "JAX_NUM_PROCESSES": str(count),
    }
    return [
        runs.start(workdir, variables=cluster | {"JAX_PROCESS_ID": str(index)}, **overrides)
        for index in range(count)
    ]


def finish(processes, statuses) -> list[str]:
    """What they printed, once all have ended as expected."""
    try:
        outputs = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == statuses, "\n".join(outputs)
    return outputs


def assert_close(workdir, other, rtol):
    """The same rows, each step once; sums over more devices are rounded differently."""
    rows, expected = runs.metrics(workdir), runs.metrics(other)
    assert [row["step"] for row in rows] == [row["step"] for row in expected]
    for name in ("loss", "gradient_norm", "eval_masked_mse"):
        ours, theirs = ([row[name] for row in of if name in row] for of in (rows, expected))
        np.testing.assert_allclose(ours, theirs, rtol=rtol, err_msg=name)


def test_processes_train_as_one(pretrained, tmp_path):
    finish(start(tmp_path, 4), [0] * 4)
    assert_close(tmp_path, pretrained, rtol=1e-4)


def test_stopped_and_killed_it_goes_on_with_any_number_of_processes(undisturbed, tmp_path):
    """Of four, one is asked to stop; then of two, one is killed; then a single one ends it."""
    four = start(tmp_path, 4, **LONG)
    runs.wait_for_rows(four[0], tmp_path, 10)
    four[2].send_signal(signal.SIGTERM)
    outputs = finish(four, [128 + signal.SIGTERM] * 4)
    (saved,) = {step for output in outputs for step in re.findall(r"saved step (\d+)", output)}

    two = start(tmp_path, 2, **LONG)
    runs.wait_for_rows(two[0], tmp_path, int(saved) + 10)
    two[1].kill()
    outputs = finish(two, [os.EX_TEMPFAIL, -signal.SIGKILL])
    assert f"training from step {saved} to 120" in outputs[0]
    assert "process 0 of 2 stops; if it has lost another" in outputs[0]
    assert "Traceback" not in outputs[0]

    output = runs.run(tmp_path, **LONG)
    resumed = int(re.search(r"training from step (\d+) to 120", output)[1])
    assert int(saved) <= resumed < 120
    assert_close(tmp_path, undisturbed("pretrain"), rtol=1e-3)
