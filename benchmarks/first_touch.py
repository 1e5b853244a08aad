"""What it takes this machine to hand out memory: a process that fills some for the first time.

A worker of `benchmarks.run cold_start`. A virtual machine's host may hand out a GiB in a tenth of a
second or in two, and no first step can be ready sooner than it has its memory.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

LIBRARIES = ("numpy",)


def prepare(gib: float, threads: int):
    """So much memory, of which each thread fills its share."""

    def step() -> None:
        shares = np.empty((threads, int(gib * 2**30) // threads), np.uint8)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda share: share.fill(1), shares))

    return step, dict
