"""A SIGTERM at any time: the work ends as interrupted, or, where it is finished, as finished."""

import subprocess
import sys

import pytest

WORK = """
import os, signal, sys, time
from maemem.interrupts import ignore_sigterm, interrupt_at_sigterm, interrupted_status

class Lost:
    def __del__(self):  # What is raised here goes nowhere.
        os.kill(os.getpid(), signal.SIGTERM)
        sum(range(1000))

class SlowExit:
    def __del__(self, again="again" in sys.argv, os=os, signal=signal, time=time):
        if again:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1.5)

slow_exit = SlowExit()  # Goes when modules do, after Python has handed signals back.
interrupt_at_sigterm()
try:
    if "lost" in sys.argv:
        Lost()
    if "working" in sys.argv:
        time.sleep(10)
    ignore_sigterm()
    print("finished")
except KeyboardInterrupt as interrupt:
    print("interrupted")
    sys.exit(interrupted_status(interrupt))
"""


@pytest.mark.parametrize(
    ("when", "output", "status"),
    [
        (["lost", "working"], "interrupted\n", 143),
        (["lost", "working", "again"], "interrupted\n", 143),
        (["lost"], "finished\n", 0),
        (["again"], "finished\n", 0),
    ],
)
def test_work_ends_as_interrupted_or_as_finished(when, output, status):
    command = [sys.executable, "-c", WORK, *when]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.stdout, ended.stderr, ended.returncode) == (output, "", status)
