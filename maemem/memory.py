"""How this process takes memory from the system, and whether it hands it back."""

import ctypes
import os
import sys

# Of glibc's allocator: huge pages, where the system gives them on demand.
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}

_KEEP = (  # Of mallopt(3): options, and what they are set to.
    (-1, -1),  # M_TRIM_THRESHOLD: never hand back what is free at the end of the heap.
    (-4, 0),  # M_MMAP_MAX: no array lies outside the heap, from where it would go back.
    (-8, 1),  # M_ARENA_MAX: one heap for all threads; theirs are cut into pieces of 64 MiB.
)


def use_huge_pages() -> None:
    """Starts this process anew, to take memory in pages of 2 MiB where Linux has them.

    A step of training takes GiB and hands them back; the system zeroes them and maps them page by
    page, which by pages of 4 KiB can take as long as the step. To keep all that is freed would
    spare that, too, but cut it up, until a process holds several times what it needs.
    glibc reads how to be set up when a process starts, so to be called before anything that takes
    time. Does nothing on other systems, and where the user has set GLIBC_TUNABLES.
    """
    if sys.platform == "linux" and sys.executable and not HUGE_PAGES.keys() & os.environ.keys():
        os.execve(
            sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **HUGE_PAGES}
        )


def keep_freed_memory() -> None:
    """Has glibc's allocator keep what is freed; elsewhere, does nothing.

    For workers that cut up blocks of one size: Dask sets theirs to hand everything back at once.
    To be called before there are threads: a heap that a thread has, stays.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in _KEEP:
            mallopt(option, value)
