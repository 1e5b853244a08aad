"""Blocks on other processes, some of which are killed: the same bytes, and nothing lost."""

import contextlib
import functools
import logging
import os
import pathlib
import platform
import signal
import subprocess
import sys
import threading
import time

import dask.config
import numpy as np
import pytest

from maemem.blockwise.engine import do_blocks
from maemem.blockwise.workers import open_workers
from maemem.data.stores import ledger
from maemem.geometry import blocks
from maemem.segmentation.region_graph import Merging
from tests.blockwise import segmentations
from tests.blockwise.predictions import SHAPE, look_around, run
from tests.blockwise.volumes import files, grey_values, stored_volume
from tests.runs import REPOSITORY, program

log = logging.getLogger(__name__)
HUGE = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
EVERY = list(blocks((4, 6, 10), (1, 3, 5)))


@pytest.fixture(scope="module")
def cluster():
    """Four processes of this machine, which come again where they are killed."""
    with open_workers("local:4") as found:
        yield found


@pytest.fixture
def workers(cluster):
    """All four: work begins with the first, which on a busy machine might do it all alone."""
    cluster.args[0].wait_for_workers(4, timeout=120)
    return cluster


@contextlib.contextmanager
def finished_of(folder):
    """The record of a result under way."""
    folder.mkdir(exist_ok=True)
    with ledger.held(folder / "a.zarr.partial", folder / "a.zarr", wait=False):
        yield ledger.claim(folder / "a.zarr.partial", {})


def leave_name(folder, block):
    time.sleep(0.05)
    with (folder / f"{os.getpid()}-{time.monotonic_ns()}").open("w") as file:
        file.write(str(block))


def die_once(folder, block):
    """Kills its own process, the first two times that it is asked for the third block."""
    if block == EVERY[2] and len(list(folder.glob("died-*"))) < 2:
        (folder / f"died-{time.monotonic_ns()}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    leave_name(folder, block)


class DiesOnce:
    """Work whose first receiver kills its own process, when it is sent it or when it drops it."""

    def __init__(self, folder, when):
        self.folder, self.when = folder, when

    def __setstate__(self, state):
        self.__dict__ |= state | {"sent": True}
        self.die("sent")

    def __del__(self):
        if hasattr(self, "sent"):
            self.die("dropped")

    def __call__(self, block):
        return str(block)

    def die(self, now):
        with contextlib.suppress(FileExistsError):
            if self.when == now:
                (self.folder / now).touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)


def done_periodically(block):
    """What Dask does in the worker, every so often."""
    from distributed import get_worker

    return set(get_worker().periodic_callbacks)


def mistake(block):
    raise ValueError(f"block {block} is wrong; mend it")


def test_predictions_are_the_same_bytes_here_and_on_workers(tmp_path, workers):
    volume = stored_volume(tmp_path / "raw.zarr", grey_values(SHAPE))
    run(volume, tmp_path / "here" / "a.zarr")
    run(volume, tmp_path / "there" / "a.zarr", workers=workers)
    here = files(tmp_path / "here")
    assert len(here) == 12 + 2
    assert here == files(tmp_path / "there")


def test_threads_predict_the_same_bytes_several_blocks_at_a_time(tmp_path):
    volume = stored_volume(tmp_path / "raw.zarr", grey_values(SHAPE))
    run(volume, tmp_path / "here" / "a.zarr")
    inside, most = set(), 0

    def slowly(crops):
        nonlocal most
        inside.add(threading.get_ident())
        most = max(most, len(inside))
        time.sleep(0.005)
        inside.remove(threading.get_ident())
        return look_around(crops)

    with open_workers("threads:3") as threads:
        run(volume, tmp_path / "there" / "a.zarr", slowly, workers=threads)
    assert 1 < most <= 3
    assert files(tmp_path / "here") == files(tmp_path / "there")


def test_threads_make_the_same_segmentation(tmp_path):
    affinities = segmentations.smooth_affinities(0, (6, 24, 24))
    options = {"block_zyx": (3, 12, 12), "merging": Merging("median", 0.6), "smallest": 5}
    segmentations.run(affinities, segmentations.linked, tmp_path / "here" / "a.zarr", **options)
    with open_workers("threads:3") as threads:
        options["workers"] = threads
        segmentations.run(
            affinities, segmentations.linked, tmp_path / "there" / "a.zarr", **options
        )
    assert files(tmp_path / "here") == files(tmp_path / "there")


def test_what_a_thread_raises_is_raised_once_no_thread_works_any_longer(tmp_path):
    volume = stored_volume(tmp_path / "raw.zarr", grey_values(SHAPE))
    calls, done = iter(range(1000)), []

    def fail_once(crops):
        if next(calls) == 5:
            raise ValueError("the sixth")
        time.sleep(0.02)
        done.append(crops)
        return look_around(crops)

    with open_workers("threads:3") as threads:
        with pytest.raises(ValueError, match="the sixth"):
            run(volume, tmp_path / "a.zarr", fail_once, workers=threads)
        count = len(done)
        time.sleep(0.1)
        assert len(done) == count
    assert not (tmp_path / "a.zarr").exists()
    run(volume, tmp_path / "a.zarr")
    run(volume, tmp_path / "whole" / "a.zarr")
    assert files(tmp_path / "a.zarr") == files(tmp_path / "whole" / "a.zarr")


def dying_cut(folder, affinities):
    """Kills its own process, once for each of the first two calls."""
    died = folder / f"died-{len(list(folder.glob('died-*')))}"
    if died.name != "died-2":
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return segmentations.linked(affinities)


def test_segmentations_are_the_same_bytes_though_workers_are_killed(tmp_path, workers):
    affinities = segmentations.smooth_affinities(0, (6, 24, 24))
    options = {"block_zyx": (3, 12, 12), "merging": Merging("median", 0.6), "smallest": 5}
    segmentations.run(affinities, segmentations.linked, tmp_path / "here" / "a.zarr", **options)
    cut = functools.partial(dying_cut, tmp_path)
    segmentations.run(affinities, cut, tmp_path / "there" / "a.zarr", workers=workers, **options)
    assert files(tmp_path / "here") == files(tmp_path / "there")
    assert len(list(tmp_path.glob("died-*"))) == 2


def test_every_block_is_done_once_and_by_several_processes(tmp_path, workers):
    (tmp_path / "done").mkdir()
    with finished_of(tmp_path) as finished:
        work = functools.partial(leave_name, tmp_path / "done")
        do_blocks(work, EVERY, finished, verb="named", log=log, workers=workers)
        assert finished.missing(EVERY) == []
    done = list((tmp_path / "done").iterdir())
    assert sorted(path.read_text() for path in done) == sorted(map(str, EVERY))
    processes = {path.name.split("-")[0] for path in done}
    assert len(processes) > 1
    assert str(os.getpid()) not in processes


def test_what_a_block_gives_comes_back(workers):
    assert set(workers(str, EVERY)) == set(map(str, EVERY))


def test_workers_spend_no_time_on_profiles_of_themselves(workers):
    (names,) = workers(done_periodically, EVERY[:1])
    assert "heartbeat" in names
    assert "profile" not in names


def test_a_block_whose_worker_is_killed_is_done_by_another(tmp_path, workers):
    (tmp_path / "done").mkdir()
    with finished_of(tmp_path) as finished:
        work = functools.partial(die_once, tmp_path / "done")
        do_blocks(work, EVERY, finished, verb="named", log=log, workers=workers)
        assert finished.missing(EVERY) == []
    assert len(list((tmp_path / "done").glob("died-*"))) == 2
    done = [path.read_text() for path in (tmp_path / "done").iterdir()]
    assert set(done) - {""} == set(map(str, EVERY))


@pytest.mark.slow
@pytest.mark.parametrize("when", ["sent", "dropped"])
def test_a_worker_that_dies_before_or_after_its_blocks_is_no_error(tmp_path, workers, when):
    assert set(workers(DiesOnce(tmp_path, when), EVERY)) == set(map(str, EVERY))
    assert (tmp_path / when).exists()


def test_what_a_worker_raises_is_raised_here(tmp_path, workers):
    with (
        finished_of(tmp_path) as finished,
        pytest.raises(ValueError, match=r"block .* is wrong; mend it"),
    ):
        do_blocks(mistake, EVERY, finished, verb="named", log=log, workers=workers)


def test_without_dask_it_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "maemem.blockwise.cluster", raising=False)
    monkeypatch.delattr("maemem.blockwise.cluster", raising=False)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(ValueError, match=r"pip install 'maemem\[cluster\]', or leave"),
        open_workers("local:2"),
    ):
        pass


def test_in_this_process_nothing_is_started():
    with open_workers("") as workers:
        assert workers is map


def test_a_running_scheduler_is_reached_by_its_address(tmp_path):
    from distributed import LocalCluster

    volume = stored_volume(tmp_path / "raw.zarr", grey_values(SHAPE))
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        open_workers(cluster.scheduler_address) as workers,
    ):
        there = run(volume, tmp_path / "there.zarr", workers=workers)
    np.testing.assert_array_equal(there, run(volume, tmp_path / "here.zarr"))


def test_no_scheduler_at_an_address_is_said():
    with (
        dask.config.set({"distributed.comm.timeouts.connect": 0.5}),
        pytest.raises(ValueError, match=r"tcp://127\.0\.0\.1:9, .*start one there"),
        open_workers("tcp://127.0.0.1:9"),
    ):
        pass


@pytest.mark.parametrize(
    ("settings", "path", "message"),
    [
        ({"cores": None, "memory": "1GB"}, "", r"does not say \['cores'\] .*SLURM__CORES=8"),
        ({"cores": 1, "memory": None}, "", r"does not say \['memory'\]"),
        ({"cores": 1, "memory": "1GB"}, "/nowhere", r"no such job: .*'sbatch'.*sbatch works"),
    ],
)
def test_what_slurm_jobs_lack_is_said(monkeypatch, settings, path, message):
    if path:
        monkeypatch.setenv("PATH", path)
    named = {f"jobqueue.slurm.{name}": value for name, value in settings.items()}
    with dask.config.set(named), pytest.raises(ValueError, match=message), open_workers("slurm:2"):
        pass


@pytest.mark.parametrize("where", ["", "local:2"])
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bytes(tmp_path, where):
    volume = stored_volume(tmp_path / "raw.zarr", grey_values(SHAPE))
    run(volume, tmp_path / "whole" / "a.zarr")
    command = program("predict_slowly", tmp_path, where)
    kills = 0
    for least in (1, 5, 9):
        process = subprocess.Popen(command, cwd=REPOSITORY)
        while process.poll() is None:
            done = len(list(tmp_path.glob("killed/*.partial/.conversion/*/*")))
            if least <= done < 12:
                process.kill()
                kills += 1
                break
            time.sleep(0.002)
        process.wait()
    assert kills >= 2
    subprocess.run(command, cwd=REPOSITORY, check=True)
    assert files(tmp_path / "whole") == files(tmp_path / "killed")


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or (HUGE.exists() and "[always]" in HUGE.read_text()),
    reason="counts the pages that glibc fetches, where they are small",
)
@pytest.mark.parametrize(("does", "fetched"), [("keep", False), ("leave", True)])
def test_workers_keep_what_blocks_have_freed(does, fetched):
    command = program("fault_pages", does, 100)
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert (int(ended.stdout) > 100 << 20) == fetched


def test_dask_says_nothing_on_the_terminal():
    command = program("one_worker")
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("['one block']\n", "")
