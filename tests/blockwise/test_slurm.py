"""Blocks as jobs of a real SLURM: the same bytes as in this process."""

import functools
import os
import subprocess
import time

import dask.config
import pytest

from maemem.blockwise.workers import open_workers
from maemem.geometry import blocks
from maemem.segmentation.region_graph import Merging
from tests.blockwise import segmentations
from tests.blockwise.predictions import SHAPE, run
from tests.blockwise.volumes import files, grey_values, stored_volume
from tests.slurm import cluster, why_not

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A SLURM, and Dask's configuration of jobs for it."""
    if reason := why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("slurm")
    job = {"cores": 1, "processes": 1, "memory": "900MB", "log-directory": str(folder)}
    with (
        cluster(folder) as variables,
        pytest.MonkeyPatch.context() as patch,
        dask.config.set({f"jobqueue.slurm.{name}": value for name, value in job.items()}),
    ):
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


def test_jobs_write_the_same_bytes(slurm, tmp_path):
    volume = stored_volume(tmp_path / "raw.zarr", grey_values(SHAPE))
    affinities = segmentations.smooth_affinities(0, (6, 24, 24))
    options = {"block_zyx": (3, 12, 12), "merging": Merging("median", 0.6), "smallest": 5}
    for place, where in (("here", ""), ("jobs", "slurm:2")):
        folder = tmp_path / place
        with open_workers(where) as workers:
            run(volume, folder / "a.zarr", workers=workers)
            labels = folder / "b.zarr"
            segmentations.run(affinities, segmentations.linked, labels, workers=workers, **options)
    assert files(tmp_path / "here") == files(tmp_path / "jobs")


def cancel_own_job(folder, block):
    """The first time, and never comes back from it; then gives the job that it is done in."""
    job = os.environ["SLURM_JOB_ID"]
    if not list(folder.iterdir()):
        (folder / job).touch()
        subprocess.run(["scancel", job], check=True)
        time.sleep(60)
    return job


def test_a_job_that_ends_early_is_replaced(slurm, tmp_path):
    work = functools.partial(cancel_own_job, tmp_path)
    with open_workers("slurm:1") as workers:
        jobs = set(workers(work, list(blocks((2, 1, 1), (1, 1, 1)))))
    (cancelled,) = (path.name for path in tmp_path.iterdir())
    assert len(jobs) == 1
    assert cancelled not in jobs


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [("memory", "900TB", "not available"), ("queue", "nobodys", "nobodys")],
)
def test_a_job_that_slurm_refuses_is_said(slurm, name, value, reason):
    with (
        dask.config.set({f"jobqueue.slurm.{name}": value}),
        pytest.raises(ValueError, match=f"SLURM takes no such job: .*{reason}"),
        open_workers("slurm:2"),
    ):
        pass
