"""How much of the machine a pre-training step uses.

    python -m benchmarks.training_step --config=configs/pretrain_snemi.py
    python -m benchmarks.training_step --config=configs/pretrain_fib25.py

Times whole steps (forward, backward, AdamW) of a config on random crops, and beside each one a
large float32 matrix product: the ratio of their rates is what counts, since machines are noisy.
Operations are those that XLA counts in the compiled step. Also prints the seconds from the start of
the process to the end of the first step, and the memory of the process.
"""

from __future__ import annotations

import json
import resource
import statistics
import time

STARTED = time.perf_counter()

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from ml_collections import config_flags

from maemem.geometry import format_zyx
from maemem.stages.build import optimizer_settings, reconstruction
from maemem.training.mesh import make_mesh, place
from maemem.training.step import init_state, make_train_step

_CONFIG = config_flags.DEFINE_config_file("config", "configs/pretrain_snemi.py", "What to time.")
_BATCH = flags.DEFINE_integer("batch_size", 16, "Crops in a step.", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 10, "Steps to time.", lower_bound=1)
_PRODUCT = flags.DEFINE_integer("product", 2048, "Width of the matrices of the product.")


def main(argv: list[str]) -> None:
    config, mesh = _CONFIG.value, make_mesh()
    objective = reconstruction(config)
    optimizer = optimizer_settings(config.pretrain.optimizer, config.pretrain.steps)
    state = init_state(
        lambda key: objective.init(key, config.data.crop_zyx),
        optimizer.transformation(),
        seed=0,
        ema=False,
        mesh=mesh,
        fsdp=False,
    )
    shape = (_BATCH.value, *config.data.crop_zyx)
    crops = place(np.random.default_rng(0).integers(0, 256, shape, np.uint8), mesh)
    step = make_train_step(
        objective.loss,
        optimizer.transformation(),
        optimizer.schedule(),
        state,
        seed=0,
        ema_decay=0.0,
        accumulation=1,
        mesh=mesh,
        fsdp=False,
    )
    compiled = step.lower(state, crops).compile()
    operations = compiled.cost_analysis()["flops"]
    state = jax.block_until_ready(compiled(state, crops)[0])
    cold = time.perf_counter() - STARTED

    left = jax.random.normal(jax.random.key(0), (_PRODUCT.value, _PRODUCT.value), jnp.float32)
    product = jax.jit(jnp.matmul)
    product(left, left).block_until_ready()
    steps, products = [], []
    for _ in range(_REPEATS.value):
        products.append(min(seconds(lambda: product(left, left)) for _ in range(10)))
        began = time.perf_counter()
        state = jax.block_until_ready(compiled(state, crops)[0])
        steps.append(time.perf_counter() - began)
    peak = 2 * _PRODUCT.value**3 / statistics.median(products)
    rate = operations / statistics.median(steps)
    result = {
        "crop_zyx": format_zyx(config.data.crop_zyx),
        "batch_size": _BATCH.value,
        "gflop_per_crop": operations / _BATCH.value / 1e9,
        "seconds_per_step": statistics.median(steps),
        "crops_per_second": _BATCH.value / statistics.median(steps),
        "gflop_per_second": rate / 1e9,
        "matrix_product_gflop_per_second": peak / 1e9,
        "share_of_matrix_product": rate / peak,
        "share_of_matrix_product_best": max(
            (operations / s) / (2 * _PRODUCT.value**3 / p)
            for s, p in zip(steps, products, strict=True)
        ),
        "cold_start_seconds": cold,
        "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    print(json.dumps(result, indent=2))


def seconds(function) -> float:
    began = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - began


if __name__ == "__main__":
    app.run(main)
