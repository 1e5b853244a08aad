"""Runs of several processes, as on several hosts."""

import os
import re
import shutil
import signal
import subprocess
import threading
import time

import numpy as np
import pytest

from tests import runs

pytestmark = pytest.mark.slow

LONG = runs.LONG["pretrain"] | {"pretrain__checkpoint_every": 20}
EVALUATION = {"pretrain": "eval_masked_mse", "finetune": "eval_loss"}


def cluster(count) -> list[dict[str, str]]:
    """What tells each of so many processes about the others."""
    address = f"localhost:{runs.free_port()}"
    shared = {
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_NUM_PROCESSES": str(count),
        "PYTHONFAULTHANDLER": "1",  # One that is aborted prints first where it hangs.
    }
    return [shared | {"JAX_PROCESS_ID": str(index)} for index in range(count)]


def start(workdir, count, devices=1, **overrides) -> list[subprocess.Popen]:
    """So many processes, each with so many devices."""
    return [runs.start(workdir, devices, one, **overrides) for one in cluster(count)]


def assert_restored_alike(workdir, step, count):
    """Each of so many processes restores what the checkpoint holds, bit for bit."""
    processes = [
        subprocess.Popen(
            runs.program("restore", workdir),
            cwd=runs.REPOSITORY,
            env=runs.environment(1, **variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for variables in cluster(count)
    ]
    finish(processes, [0] * count)
    for index in range(count):
        with np.load(workdir / f"restored-{index}.npz") as found:
            runs.assert_same_arrays(dict(found), runs.parameters(workdir, step))


def finish(processes, statuses) -> list[str]:
    """What they printed, once all have ended as expected."""

    def end(number: int) -> None:
        for process in processes:
            process.send_signal(number)

    deadline = threading.Timer(300, end, [signal.SIGABRT])
    deadline.start()
    try:
        outputs = [process.communicate()[0] for process in processes]
    finally:
        deadline.cancel()
        end(signal.SIGKILL)
    assert [process.returncode for process in processes] == statuses, "\n".join(outputs)
    return outputs


def assert_close(workdir, other, rtol, stage="pretrain"):
    """The same rows, each step once; sums over more devices are rounded differently."""
    rows, expected = runs.metrics(workdir, stage), runs.metrics(other, stage)
    assert [row["step"] for row in rows] == [row["step"] for row in expected]
    for name in ("loss", "gradient_norm", EVALUATION[stage]):
        ours, theirs = ([row[name] for row in of if name in row] for of in (rows, expected))
        assert ours
        np.testing.assert_allclose(ours, theirs, rtol=rtol, err_msg=name)


@pytest.mark.parametrize(("count", "devices"), [(4, 1), (2, 2)])
def test_processes_train_as_one(pretrained, tmp_path, count, devices):
    finish(start(tmp_path, count, devices), [0] * count)
    assert_close(tmp_path, pretrained, rtol=1e-4)


def test_processes_fine_tune_as_one_and_one_goes_on(whole, tmp_path):
    """Each of them starts from the encoder that a single one pre-trained."""
    options = {"stages": "('finetune',)", "finetune__encoder": str(whole[0])}
    outputs = finish(start(tmp_path, 2, **options), [0, 0])
    assert all("parameters matched, of encoder" in output for output in outputs)
    assert_close(tmp_path, whole[0], 1e-4, "finetune")

    for step in ("3", "4"):  # As if they had been lost after the second.
        shutil.rmtree(tmp_path / "finetune" / "checkpoints" / step)
    assert "training from step 2 to 4" in runs.run(tmp_path, **options)
    assert_close(tmp_path, whole[0], 1e-4, "finetune")


def test_stopped_and_killed_it_goes_on_with_any_number_of_processes(undisturbed, tmp_path):
    """Of four, one is asked to stop; then of two, one is killed; then a single one ends it."""
    four = start(tmp_path, 4, **LONG)
    runs.wait_for_rows(four[0], tmp_path, 10)
    four[2].send_signal(signal.SIGTERM)
    outputs = finish(four, [128 + signal.SIGTERM] * 4)
    (saved,) = {step for output in outputs for step in re.findall(r"saved step (\d+)", output)}

    assert_restored_alike(tmp_path, saved, 2)
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


def test_without_the_process_that_all_joined_the_others_stop(undisturbed, tmp_path):
    two = start(tmp_path, 2, **LONG)
    runs.wait_for_rows(two[0], tmp_path, 45)
    two[0].kill()
    begun = time.monotonic()
    output, _ = two[1].communicate(timeout=60)
    two[0].communicate()
    assert time.monotonic() - begun < 30
    # maemem and JAX notice it at the same time; either may end the process.
    said = {
        os.EX_TEMPFAIL: "process 1 of 2 stops; if it has lost another",
        -signal.SIGABRT: "This most likely indicates that another task died",
    }
    assert said[two[1].returncode] in output
    output = runs.run(tmp_path, **LONG)
    assert int(re.search(r"training from step (\d+) to 120", output)[1]) >= 20
    assert_close(tmp_path, undisturbed("pretrain"), rtol=1e-3)
