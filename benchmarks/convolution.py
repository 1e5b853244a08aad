"""How fast a CPU is at the forms of a 3 × 3 × 3 convolution.

    python -m benchmarks.convolution

For each shape the rate of both forms of `maemem.models.convolution.convolve`, forward, and with the
gradients of input and kernel, in GFLOP/s of the convolution as it is defined (what a form computes
beyond does not count); and how many times as fast the folded form is, the median over rounds in
which the two take turns, since machines are noisy.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from maemem.models.convolution import convolve

_ROUNDS = flags.DEFINE_integer("rounds", 7, "How often each is timed.", lower_bound=1)

# Crops, voxels along z, y and x, channels in and out.
SHAPES = [
    ((4, 48, 48, 48), 8, 8),
    ((4, 48, 48, 48), 16, 8),
    ((4, 48, 48, 48), 32, 16),
    ((2, 6, 96, 96), 16, 16),
    ((4, 6, 96, 96), 4, 8),
    ((4, 24, 24, 24), 16, 16),
    ((4, 24, 24, 24), 32, 32),
    ((4, 12, 12, 12), 32, 64),
]


def main(argv: Sequence[str]) -> None:
    print(f"{'crops, voxels, channels':28} {'':10} {'xla':>6} {'folded':>6}  times as fast")
    for shape, channels, features in SHAPES:
        draw = np.random.default_rng(0)
        volume = jnp.asarray(draw.normal(size=(*shape, channels)), jnp.float32)
        kernel = jnp.asarray(draw.normal(size=(3, 3, 3, channels, features)), jnp.float32)
        operations = 2 * math.prod(shape) * kernel.size
        for name, share, pass_of in (("forward", 1, forward), ("gradients", 3, gradients)):
            xla, folded = take_turns(pass_of("xla"), pass_of("folded"), volume, kernel)
            rates = [share * operations / statistics.median(s) / 1e9 for s in (xla, folded)]
            ratio = statistics.median(a / b for a, b in zip(xla, folded, strict=True))
            what = f"{shape} {channels} to {features}"
            print(f"{what:28} {name:10} {rates[0]:6.0f} {rates[1]:6.0f}  {ratio:5.1f}", flush=True)


def forward(form: Literal["xla", "folded"]) -> Callable:
    return jax.jit(lambda volume, kernel: convolve(volume, kernel, form))


def gradients(form: Literal["xla", "folded"]) -> Callable:
    """The output, and the gradients of half the sum of its squares."""

    def run(volume: jax.Array, kernel: jax.Array):
        out, pull = jax.vjp(lambda v, k: convolve(v, k, form), volume, kernel)
        return out, *pull(out)

    return jax.jit(run)


def take_turns(first: Callable, second: Callable, *operands) -> tuple[list[float], list[float]]:
    """Seconds of each call, one after the other in turn."""
    both = (first, []), (second, [])
    for warm in (True, *[False] * _ROUNDS.value):
        for function, seconds in both:
            started = time.perf_counter()
            jax.block_until_ready(function(*operands))
            if not warm:
                seconds.append(time.perf_counter() - started)
    return both[0][1], both[1][1]


if __name__ == "__main__":
    app.run(main)
