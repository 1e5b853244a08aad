"""What a process takes comes in large pages, or is kept; and what is looked through for garbage."""

import contextlib
import gc
import os
import pathlib
import platform
import resource
import subprocess
import sys
import weakref

import pytest

from maemem.memory import HUGE_PAGES, without_garbage_collection

HUGE = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
by_small_pages = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or (HUGE.exists() and "[always]" in HUGE.read_text()),
    reason="counts the pages that glibc fetches, where they are small",
)

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


@by_small_pages
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
import resource, sys, types
from unittest import mock
from maemem.memory import compute_on_calling_thread

if "here" in sys.argv:
    compute_on_calling_thread()

import jax
import jax.numpy as jnp
import numpy as np
from maemem.training.loop import Schedule, train
from maemem.training.mesh import make_mesh

@jax.jit
def loss(table, batch):  # A product takes 196 MB, of which nothing is left.
    return (table @ table.T @ table).mean() + batch[0, 0]

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])

def train_step(state, batch):
    before.append((faults(), resident()))
    return state, {"loss": loss(table, batch)}

def evaluate(state, step):
    evaluated.append(resident())
    return {}

before, evaluated = [], []
table = jnp.ones((7000, 8))
state = types.SimpleNamespace(step=0)
batches = [np.zeros(2**21 + 1, np.uint8)[1:].reshape(1, -1)] * 6  # Which JAX has to copy.
others = {"mesh": make_mesh(), "checkpoints": mock.Mock(), "writer": mock.Mock()}
train(state, train_step, batches, evaluate, schedule=Schedule(6, 6, 5, 6), **others)
began = faults()
bytearray(100 << 20)
bytearray(100 << 20)
fetched = before[4][0] - before[2][0]  # By the third step and the fourth.
print(fetched, before[4][1] - evaluated[0], faults() - began)
"""


@by_small_pages
def test_steps_of_training_take_again_what_others_have_freed_until_an_evaluation():
    environment = {
        key: value
        for key, value in os.environ.items()
        if key != "XLA_FLAGS" and not key.startswith("MALLOC_")
    }

    def run(*arguments: str) -> list[int]:
        ended = subprocess.run(
            [sys.executable, "-c", STEPS, *arguments],
            env={**environment, "GLIBC_TUNABLES": "", "JAX_PLATFORMS": "cpu"},  # Small pages.
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return [pages * resource.getpagesize() for pages in map(int, ended.stdout.split())]

    fetched, handed_back, fetched_afterwards = run("here")
    assert fetched < 50e6
    assert handed_back > 150e6
    assert fetched_afterwards > 2 * 100e6
    fetched, *_ = run()  # On a thread of JAX's.
    assert fetched > 2 * 150e6


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
    library, version = platform.libc_ver()
    glibc = library == "glibc" and tuple(map(int, version.split("."))) >= (2, 35)
    return glibc and HUGE.exists() and "[madvise]" in HUGE.read_text()


@pytest.mark.skipif(not given_on_demand(), reason="no huge pages on demand here")
def test_a_process_starts_anew_with_its_arguments_to_take_huge_pages():
    few, arguments = started(None)
    many, as_set = started("glibc.malloc.check=0")  # What the user has set, stays.
    assert arguments == as_set == ["--flag=a", "b", "c"]
    assert few * 20 < many


def test_what_was_made_without_garbage_collection_is_never_searched():
    try:
        with without_garbage_collection():
            made = [[] for _ in range(10)]
        assert gc.isenabled()
        assert not {id(each) for each in made} & {id(each) for each in gc.get_objects()}
    finally:
        gc.unfreeze()


def test_what_was_garbage_before_and_what_a_failure_leaves_is_freed():
    class Cycle:
        def __init__(self):
            self.me = self

    gone = []
    try:
        gone.append(weakref.ref(Cycle()))
        with without_garbage_collection():
            pass
        with contextlib.suppress(RuntimeError), without_garbage_collection():
            gone.append(weakref.ref(Cycle()))
            raise RuntimeError
        gc.collect()
        assert [each() for each in gone] == [None, None]
    finally:
        gc.unfreeze()
