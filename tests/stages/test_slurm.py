"""launch/slurm.sh on a real SLURM: whole runs, through what happens to jobs."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from tests import runs
from tests.slurm import ask, cluster, why_not

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    if reason := why_not():
        pytest.skip(reason)
    with cluster(tmp_path_factory.mktemp("slurm")) as variables:
        yield variables


class Job:
    """A job that runs launch/slurm.sh, with the first `python` of a folder."""

    def __init__(self, slurm, log, *options, python=pathlib.Path(sys.executable).parent, **run):
        self._slurm, self._log = slurm, log
        submit = ["sbatch", "--parsable", f"--output={log}", *options, "launch/slurm.sh"]
        self.id = subprocess.run(
            [*submit, *runs.arguments(log.parent, **run)],
            cwd=runs.REPOSITORY,
            env=runs.environment(1, PATH=f"{python}:{os.environ['PATH']}", **slurm),
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    @property
    def state(self) -> str:
        """Such as RUNNING, with what it waits for and how often it was started again."""
        shown = ask("scontrol", "show", "job", self.id, variables=self._slurm)
        return " ".join(re.findall(r"(?:JobState|Reason|Restarts)=(\S+)", shown))

    @property
    def output(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def wait(self, reached) -> None:
        deadline = time.monotonic() + 300
        while not reached():
            assert time.monotonic() < deadline, f"{self.state}\n{self.output}"
            assert not self.state.startswith("FAILED"), self.output
            time.sleep(0.1)


def test_one_task_trains(slurm, pretrained, tmp_path):
    job = Job(slurm, tmp_path / "log")
    job.wait(lambda: job.state == "COMPLETED None 0")
    runs.assert_same_arrays(runs.parameters(pretrained), runs.parameters(tmp_path))


def test_two_tasks_train_as_one_and_go_on_after_a_preemption(slurm, undisturbed, tmp_path):
    run = runs.LONG["pretrain"] | {"pretrain__checkpoint_every": 30}
    job = Job(slurm, tmp_path / "log", "--ntasks=2", **run)
    job.wait(lambda: runs.rows_written(tmp_path) >= 10)
    ask("sbatch", "--partition=high", "--output=/dev/null", "--wrap=true", "-n2", variables=slurm)
    job.wait(lambda: job.state == "COMPLETED None 1")
    (step,) = set(re.findall(r"saved step (\d+)", job.output))
    assert int(step) < 120
    assert job.output.count(f"training from step {step} to 120") == 2
    rows, expected = runs.metrics(tmp_path), runs.metrics(undisturbed("pretrain"))
    assert [row["step"] for row in rows] == list(range(1, 121))
    for name in ("loss", "gradient_norm"):
        np.testing.assert_allclose(
            [row[name] for row in rows], [row[name] for row in expected], rtol=1e-3
        )


def test_blocks_are_jobs_that_end_with_the_one_that_asked_for_them(slurm, whole, tmp_path):
    """On two cores, one of which leads: one of its jobs runs, and the other is in the queue."""
    stages = ("predict", "segment", "evaluate")
    workdir = shutil.copytree(whole[0], tmp_path / "run")
    for stage in stages:
        shutil.rmtree(workdir / stage)
    asked = {"CORES": "1", "MEMORY": "900MB", "LOG_DIRECTORY": str(tmp_path)}
    variables = slurm | {f"DASK_JOBQUEUE__SLURM__{name}": value for name, value in asked.items()}
    listed = ("squeue", "-h", "--name=dask-worker", "--states=PENDING,RUNNING")
    run = {"stages": str(stages), "runtime__workers": "slurm:2"}
    job = Job(variables, workdir / "log", **run)
    job.wait(lambda: len(ask(*listed, variables=slurm).splitlines()) == 2)
    ask("scancel", "--signal=TERM", job.id, variables=slurm)  # As shortly before a time limit.
    job.wait(lambda: job.state.endswith(" 1"))
    assert not ask(*listed, variables=slurm), job.output
    job.wait(lambda: job.state == "COMPLETED None 1")
    for path in (p for stage in stages for p in (whole[0] / stage).rglob("*") if p.is_file()):
        assert (workdir / path.relative_to(whole[0])).read_bytes() == path.read_bytes(), path


@pytest.fixture
def patient(tmp_path):
    """A `python` that does nothing until it is asked to stop, and then leaves as maemem does."""
    path = tmp_path / "bin" / "python"
    path.parent.mkdir()
    path.write_text('#!/bin/bash\necho begun "$@"\ntrap "exit 143" TERM\nsleep 300 & wait\n')
    path.chmod(0o755)
    return path.parent


def test_a_time_limit_sends_the_job_back_to_the_queue(slurm, patient, tmp_path):
    job = Job(slurm, tmp_path / "log", "--time=1", "--signal=TERM@55", python=patient)
    job.wait(lambda: job.output.count("begun -m maemem.main --config=") == 2)
    assert job.state == "RUNNING None 1"
    ask("scancel", job.id, variables=slurm)


def test_a_cancelled_job_stays_cancelled(slurm, patient, tmp_path):
    job = Job(slurm, tmp_path / "log", python=patient)
    job.wait(lambda: "begun" in job.output)
    ask("scancel", job.id, variables=slurm)
    job.wait(lambda: not ask("squeue", "-h", f"-j{job.id}", variables=slurm))
    assert job.state == "CANCELLED None 0"


def test_an_error_is_not_tried_again(slurm, tmp_path):
    job = Job(slurm, tmp_path / "log", pretrain__batch_size=0)
    with pytest.raises(AssertionError, match=r"error: pretrain\.batch_size"):
        job.wait(lambda: job.state.startswith("COMPLETED"))
    assert job.state == "FAILED NonZeroExitCode 0"
