"""How this process takes memory from the system, hands it back, and looks for garbage."""

import contextlib
import ctypes
import gc
import os
import platform
import sys
from collections.abc import Iterator, Mapping

# Of glibc's allocator: huge pages, where the system gives them on demand.
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}

_GLIBC = platform.libc_ver()[0] == "glibc"
# Options of mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -3, -4, -8
_KEEP = {
    _TRIM_THRESHOLD: -1,  # Never hand back what is free at the end of the heap.
    _MMAP_MAX: 0,  # No array lies outside the heap, from where it would go back.
}
# One heap for all threads: those that threads have of their own are cut into pieces of 64 MiB.
_ONE_HEAP = {_ARENA_MAX: 1}
# Where glibc's own would have risen to by then, had they not been set.
_USUAL = {_TRIM_THRESHOLD: 2**26, _MMAP_THRESHOLD: 2**25, _MMAP_MAX: 2**16}


def use_huge_pages() -> None:
    """Starts this process anew, to take memory in pages of 2 MiB where Linux has them.

    A step of training takes hundreds of MB or GiB, which the system zeroes and maps page by page:
    by pages of 4 KiB, that can take as long as the step.
    glibc reads how to be set up when a process starts, so to be called before anything that takes
    time. Does nothing on other systems, and where the user has set GLIBC_TUNABLES.
    """
    if _GLIBC and sys.executable and not HUGE_PAGES.keys() & os.environ.keys():
        os.execve(
            sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **HUGE_PAGES}
        )


def compute_on_calling_thread() -> None:
    """Has JAX compute on a CPU where it is called, as `freed_memory_kept` needs.

    By default it does on a thread of its own, as it still does while an input is being copied. To
    be called before JAX knows its devices, and not where there are several processes: that one of
    them was lost would be raised as a plain ValueError, like bad input.
    """
    import jax  # Late: whoever only asks for huge pages should not have to wait for it.

    jax.config.update("jax_cpu_enable_async_dispatch", False)


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Has glibc's allocator keep what is freed of the main thread's heap; elsewhere, does nothing.

    For steps of training, each of which takes as much as the one before: they need not wait for the
    system. Of the heaps of other threads no single array of 64 MiB or more is part, so that these
    are not kept. What takes more or less in turn would cut up what is kept, until the process holds
    more than it needs: around that, call `hand_back_memory`. At the end it is called, too.
    """
    _set(_KEEP)
    try:
        yield
    finally:
        _set(_USUAL)
        hand_back_memory()


def hand_back_memory() -> None:
    """Has glibc's allocator hand back what is free now; elsewhere, does nothing."""
    if _GLIBC:
        ctypes.CDLL(None).malloc_trim(0)


def keep_freed_memory() -> None:
    """Has glibc's allocator keep for good what any thread frees; elsewhere, does nothing.

    For workers that cut up blocks of one size: Dask sets theirs to hand everything back at once.
    To be called before there are threads: a heap that a thread has, stays.
    """
    _set(_KEEP | _ONE_HEAP)


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Has no thread of the process collect garbage; what there is at the end is never searched.

    For imports and traces: they make many objects, which stay, and to search them is slow. Not for
    what makes large objects that refer to each other: those would never be freed.
    """
    if not gc.isenabled():
        yield
        return
    gc.collect()  # Else what is garbage by now would stay.
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def _set(options: Mapping[int, int]) -> None:
    if _GLIBC:
        for option, value in options.items():
            ctypes.CDLL(None).mallopt(option, value)
