"""A soak of seconds; `python -m benchmarks.soak` is one of an hour and more."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from benchmarks.soak import Sample, growth, is_flat
from tests import runs

SHORT = ["--kill_every=1", "--steps=60", "--volumes=10"]
TINY = {**runs.TINY, "pretrain.log_every": 5, "pretrain.eval_every": 10}


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/fd").exists(), reason="there is no /proc here")
def test_a_soak_of_seconds_holds_no_more_and_ends_the_same():
    fields = [f"--set={name}={value}" for name, value in TINY.items() if name != "pretrain.steps"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.soak", *SHORT, *fields],
        cwd=runs.REPOSITORY,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [int(n) for n in re.findall(r"after (\d+) kills the result is the same", done.stdout)]
    assert lines[0].startswith("steps trained: 60 in ")
    assert lines[1].startswith("volumes segmented: 10 in ")


@pytest.mark.parametrize(
    ("late", "flat"),
    [
        (Sample(500.0, 20), True),
        (Sample(520.0, 20), True),
        (Sample(560.0, 20), False),
        (Sample(500.0, 40), False),
    ],
)
def test_what_grows_is_told_from_what_does_not(late, flat):
    samples = [Sample(500.0, 20)] * 50 + [late] * 20
    assert is_flat(*growth(samples)) == flat
