"""What the machine can do at most: float32 matrix products, and copies in memory.

A worker of `benchmarks.run`, which has its turn beside the two sides of every comparison. It uses
numpy alone, which belongs to neither of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

LIBRARIES = ("numpy",)


def prepare(width: int, copied_mb: int, threads: int):
    """A product of square matrices, and a copy that the threads share, the best of three each."""
    left = np.random.default_rng(0).normal(size=(width, width)).astype(np.float32)
    product = np.empty_like(left)
    source = np.ones((threads, copied_mb * 10**6 // threads), np.uint8)
    target = np.zeros_like(source)
    pool = ThreadPoolExecutor(threads)

    def step() -> dict[str, float]:
        multiply = best(lambda: np.matmul(left, left, out=product))
        copy = best(lambda: list(pool.map(np.copyto, target, source)))
        return {
            "gflop_per_second": 2 * width**3 / multiply / 1e9,
            "gb_per_second": source.nbytes / copy / 1e9,
        }

    return step, dict


def best(work: Callable[[], object], times: int = 3) -> float:
    """Seconds of the fastest."""
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)
