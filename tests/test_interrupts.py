"""A SIGTERM at any time: the work ends as interrupted, or, where it is finished, as finished."""

import subprocess

import pytest

from tests import runs


@pytest.mark.parametrize(
    ("when", "output", "status"),
    [
        (["lost", "working"], "interrupted\n", 143),
        (["lost", "working", "again"], "interrupted\n", 143),
        (["half_made"], "interrupted\n", 143),
        (["lost"], "finished\n", 0),
        (["again"], "finished\n", 0),
    ],
)
def test_work_ends_as_interrupted_or_as_finished(when, output, status):
    ended = subprocess.run(
        runs.program("end_by_sigterm", *when),
        cwd=runs.REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == (output, "", status)
