"""What a process takes comes in large pages, or is kept."""

import os
import pathlib
import platform
import resource
import subprocess
import sys

import pytest

from maemem.memory import HUGE_PAGES

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


STEPS = """
import contextlib, resource, sys
from maemem.memory import compute_on_calling_thread, freed_memory_kept

compute_on_calling_thread()

import jax
import jax.numpy as jnp

@jax.jit
def step(side):  # A product takes 196 MB, of which nothing is left.
    table = jnp.full((7000, 8), side)
    return (table @ table.T @ table).sum()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def steps():
    step(2.0).block_until_ready()
    before = faults()
    for _ in range(3):
        step(2.0).block_until_ready()
    return faults() - before

if "keep" in sys.argv:
    with freed_memory_kept():
        kept = steps()
    before = faults()
    bytearray(100 << 20)
    bytearray(100 << 20)
    print(kept, faults() - before)
else:
    print(steps(), 0)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators do as they do")
def test_steps_take_again_what_others_have_freed_until_it_goes_back():
    def run(argument: str) -> list[int]:
        ended = subprocess.run(
            [sys.executable, "-c", STEPS, argument],
            env={**os.environ, "GLIBC_TUNABLES": "", "JAX_PLATFORMS": "cpu"},  # Small pages.
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return [faults * resource.getpagesize() for faults in map(int, ended.stdout.split())]

    kept, fetched_afterwards = run("keep")
    fetched, _ = run("leave")
    assert kept < 50e6
    assert fetched > 3 * 190e6
    assert fetched_afterwards > 2 * 100e6


STARTS = """
import os, resource, sys
from maemem.memory import use_huge_pages

use_huge_pages()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
bytearray(100 << 20)
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(os.getpid(), faults, *sys.argv[1:])
"""


def started(tunables: str | None) -> tuple[int, list[str]]:
    """A process's page faults for 100 MiB, and its arguments."""
    environment = {key: value for key, value in os.environ.items() if key not in HUGE_PAGES}
    if tunables is not None:
        environment["GLIBC_TUNABLES"] = tunables
    with subprocess.Popen(
        [sys.executable, "-c", STARTS, "--flag=a b", "c"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        pid, faults, *arguments = process.stdout.read().split()
    assert process.returncode == 0
    assert int(pid) == process.pid
    return int(faults), arguments


def given_on_demand() -> bool:
    """Whether glibc can ask for huge pages, and Linux gives them."""
    enabled = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
    library, version = platform.libc_ver()
    glibc = library == "glibc" and tuple(map(int, version.split("."))) >= (2, 35)
    return glibc and enabled.exists() and "[madvise]" in enabled.read_text()


@pytest.mark.skipif(not given_on_demand(), reason="no huge pages on demand here")
def test_a_process_starts_anew_with_its_arguments_to_take_huge_pages():
    few, arguments = started(None)
    many, as_set = started("glibc.malloc.check=0")  # What the user has set, stays.
    assert arguments == as_set == ["--flag=a", "b", "c"]
    assert few * 20 < many
