"""What a GPU can do at most: bfloat16 matrix products, and copies in its memory.

A worker of `benchmarks.run --device=gpu`, as `benchmarks.ceiling` is one of the CPU. The products
are cuBLAS's, which both sides use.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from benchmarks.ceiling import best

LIBRARIES = ("jax",)
_TIMES = 20  # In a row, so that starting them does not count.


def prepare(width: int, copied_mb: int):
    """A product of square matrices, and a copy, the best of three rows each."""
    key = jax.random.key(0)
    # Scaled so that products of products neither vanish nor grow.
    left = jax.random.normal(key, (width, width), jnp.bfloat16) / width**0.5
    source = jax.random.bits(key, (copied_mb * 10**6 // 4,), jnp.uint32)

    @jax.jit
    def product(left):
        return jax.lax.fori_loop(0, _TIMES, lambda _, right: left @ right, left)

    @jax.jit
    def copy(source):
        # Something is added, or there would be nothing to do.
        return jax.lax.fori_loop(0, _TIMES, lambda i, values: values + i.astype(jnp.uint32), source)

    def step() -> dict[str, float]:
        multiply = best(lambda: jax.block_until_ready(product(left))) / _TIMES
        copied = best(lambda: jax.block_until_ready(copy(source))) / _TIMES
        return {
            "gflop_per_second": 2 * width**3 / multiply / 1e9,
            "gb_per_second": source.nbytes / copied / 1e9,
        }

    return step, dict
