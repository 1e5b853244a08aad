"""Locks of this machine are refused at once; those of a machine that may be lost are outwaited."""

import contextlib
import subprocess
import time

import pytest

from maemem import locks
from tests import runs


@contextlib.contextmanager
def held(path, machine="", seconds=60):
    """Another process, of this machine or of one of another name, holds a lock for a while."""
    command = runs.program("hold_lock", path, machine, seconds)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=runs.REPOSITORY, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_that_of_a_process_here_is_refused_at_once(tmp_path):
    with held(tmp_path / "lock") as process:
        begun = time.monotonic()
        with pytest.raises(BlockingIOError, match=f"process {process.pid} of "):
            locks.lock(tmp_path / "lock")
        assert time.monotonic() - begun < locks._RETRY_SECONDS


def test_that_of_a_lost_machine_is_outwaited(tmp_path, caplog):
    caplog.set_level("INFO", "maemem")
    with held(tmp_path / "lock", "another", seconds=1):
        locks.lock(tmp_path / "lock").close()
    assert "in case that machine is lost" in caplog.text


def test_that_of_another_machine_that_works_is_refused_in_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_LEASE_SECONDS", 1)
    with (
        held(tmp_path / "lock", "another") as process,
        pytest.raises(BlockingIOError, match=rf"process {process.pid} of .*delete {tmp_path}/lock"),
    ):
        locks.lock(tmp_path / "lock")


def test_a_lock_is_free_once_its_process_is_killed_or_it_is_waited_for(tmp_path):
    with held(tmp_path / "lock", seconds=1):
        locks.lock(tmp_path / "lock", wait=True).close()
    with held(tmp_path / "lock"):
        pass
    locks.lock(tmp_path / "lock").close()
