"""What is freed is kept: the same memory is used again, whichever thread asks for it."""

import platform
import subprocess
import sys

import pytest

# Bytes of an array; a thread's own heap cannot hold it.
SIZE = 100 << 20
FAULTS = f"""
import resource, sys, threading
from maemem.memory import keep_freed_memory

if "keep" in sys.argv:
    keep_freed_memory()

def take():
    for _ in range(3):
        bytearray({SIZE})  # Of numpy's the system may make large pages, few of them.

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for work in (take, lambda: [t := threading.Thread(target=take), t.start(), t.join()]):
    take()
    before = faults()
    work()
    print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators do as they do")
def test_memory_is_not_fetched_anew():
    def faults(*argument):
        command = [sys.executable, "-c", FAULTS, *argument]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return [int(line) for line in ended.stdout.split()]

    again, on_a_thread = faults("keep")
    assert max(again, on_a_thread) < SIZE / 4096 / 10
    assert all(count > again for count in faults())
