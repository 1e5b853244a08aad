"""What is freed is kept, whatever its size and whoever took it."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, threading
from maemem.memory import keep_freed_memory

if "keep" in sys.argv:
    keep_freed_memory()

def take():
    for _ in range(3):
        bytearray(int(sys.argv[1]) << 20)  # numpy's may lie in few, large pages.

take()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
thread = threading.Thread(target=take)  # Whose own heap could not hold it.
thread.start()
thread.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, resource.getpagesize())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators do as they do")
@pytest.mark.parametrize(
    ("mebibytes", "argument", "fetched"),
    [(100, "keep", False), (100, "leave", True), (1000, "keep", False)],
)
def test_memory_is_fetched_anew_where_it_went_back(mebibytes, argument, fetched):
    command = [sys.executable, "-c", FAULTS, str(mebibytes), argument]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    faults, page = map(int, ended.stdout.split())
    assert (faults * page > mebibytes << 20) == fetched
