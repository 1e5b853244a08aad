"""What this process has freed, it keeps, to use it again."""

import ctypes

# Of mallopt(3): options, and what they are set to.
_KEEP = (
    (-1, -1),  # M_TRIM_THRESHOLD: never hand back what is free at the end of the heap.
    (-4, 0),  # M_MMAP_MAX: no array lies outside the heap, from where it would go back.
    (-8, 1),  # M_ARENA_MAX: one heap for all threads; theirs are cut into pieces of 64 MiB.
)


def keep_freed_memory() -> None:
    """Has glibc's allocator keep what is freed; elsewhere, does nothing.

    A step of training, or a block, takes the same memory as the one before. To hand it back in
    between has the system zero and map it anew, page by page, which can take as long as the step.
    To be called before there are threads: a heap that a thread has, stays.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in _KEEP:
            mallopt(option, value)
