"""How much of the machine a pre-training step uses.

    python -m benchmarks.training_step --config=configs/pretrain_snemi.py
    python -m benchmarks.training_step --config=configs/pretrain_fib25.py

Times whole steps (forward, backward, AdamW) of a config on random crops, and beside each one a row
of large float32 matrix products: the ratio of their rates is what counts, since machines are noisy.
It is given against the mean of the row (what the machine sustains, its disturbances included, as in
the step) and against the fastest of it.
Operations are those of its matrix products alone. Also prints the seconds from the first import to
the end of the first step, most of which is compilation, and the peak memory of the process.
"""

from __future__ import annotations

import json
import operator
import resource
import statistics
import time

STARTED = time.perf_counter()

import jax
import jax.numpy as jnp
from absl import app, flags
from ml_collections import config_flags

from benchmarks.ours.mae import product_operations
from benchmarks.ours.training import ADAMW, like_of, random_crops, training
from maemem.assembly.learners import make_learner
from maemem.geometry import format_zyx
from maemem.learners.mae import MaskedReconstruction

_CONFIG = config_flags.DEFINE_config_file("config", "configs/pretrain_snemi.py", "What to time.")
_BATCH = flags.DEFINE_integer("batch_size", 16, "Crops in a step.", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 10, "Steps to time.", lower_bound=1)
_PRODUCTS = flags.DEFINE_integer("products", 40, "Products in a row.", lower_bound=1)
_PRODUCT = flags.DEFINE_integer("product", 2048, "Width of the matrices of the product.")


def main(argv: list[str]) -> None:
    config = _CONFIG.value
    crops = {"image": random_crops(_BATCH.value, *config.data.crop_zyx)}
    step, _ = training(make_learner(config, "pretrain"), crops, ADAMW)
    step()
    cold = time.perf_counter() - STARTED

    left = jax.random.normal(jax.random.key(0), (_PRODUCT.value, _PRODUCT.value), jnp.float32)
    product = jax.jit(jnp.matmul)
    product(left, left).block_until_ready()
    steps, products = [], []
    for _ in range(_REPEATS.value):
        products.append([seconds(lambda: product(left, left)) for _ in range(_PRODUCTS.value)])
        began = time.perf_counter()
        step()
        steps.append(time.perf_counter() - began)
    with config.unlocked():
        config.runtime.remat = False
    learner = make_learner(config, "pretrain")
    assert isinstance(learner, MaskedReconstruction)
    operations = product_operations(learner, like_of(crops))
    of_product = 2 * _PRODUCT.value**3
    sustained = [of_product / statistics.mean(times) for times in products]
    best = [of_product / min(times) for times in products]
    rates = [operations / step for step in steps]
    result = {
        "crop_zyx": format_zyx(config.data.crop_zyx),
        "batch_size": _BATCH.value,
        "gflop_per_crop": operations / _BATCH.value / 1e9,
        "seconds_per_step": statistics.median(steps),
        "crops_per_second": _BATCH.value / statistics.median(steps),
        "gflop_per_second": statistics.median(rates) / 1e9,
        "product_gflop_per_second": {
            "sustained": statistics.median(sustained) / 1e9,
            "best": statistics.median(best) / 1e9,
        },
        "share_of_product": {
            "sustained": statistics.median(map(operator.truediv, rates, sustained)),
            "best": statistics.median(map(operator.truediv, rates, best)),
        },
        "first_step_after_seconds": cold,
        "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    print(json.dumps(result, indent=2))


def seconds(function) -> float:
    began = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - began


if __name__ == "__main__":
    app.run(main)
