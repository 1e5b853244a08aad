"""What a pre-training step moves between devices, read from the program that XLA has compiled.

    python -m benchmarks.collectives --config=configs/pretrain_snemi.py --devices=2,4,8

For every number of devices, all of them made up on this CPU, and for parameters that every device
keeps (`data`) or that are split over them (`fsdp`): the bytes of the results of all collective
operations of a step, and beside them those of the parameters. Data parallelism has to reduce one
gradient, as large as the parameters; FSDP to gather the parameters that are split, for the forward
pass and again for the backward pass, and to reduce their gradient.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
from absl import app, flags
from ml_collections import config_flags

from benchmarks.operations import collective_bytes
from benchmarks.ours.training import ADAMW, step_of
from maemem.assembly.learners import make_learner
from maemem.config import Config

_CONFIG = config_flags.DEFINE_config_file("config", "configs/pretrain_snemi.py", "Whose step.")
_DEVICES = flags.DEFINE_list("devices", "2,4,8", "How many there are.")
_ONE = flags.DEFINE_bool("one", False, "Of the devices that JAX sees here only; prints JSON.")


def main(argv: list[str]) -> None:
    del argv
    if _ONE.value:
        print(json.dumps({way: moved(_CONFIG.value, way == "fsdp") for way in ("data", "fsdp")}))
        return
    print("| devices | parameters | of which split | moved (MB), by operation |\n|---|---|---|---|")
    for count in _DEVICES.value:
        flag = f"--xla_force_host_platform_device_count={count}"
        said = subprocess.run(
            [sys.executable, "-m", "benchmarks.collectives", *sys.argv[1:], "--one"],
            env={**os.environ, "XLA_FLAGS": flag, "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
        for way, row in json.loads(said.splitlines()[-1]).items():
            each = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in row["moved"].items())
            sizes = f"{row['parameters'] / 1e6:.1f} | {row['split'] / 1e6:.1f}"
            print(f"| {count}, {way} | {sizes} | {each} |", flush=True)


def moved(config: Config, fsdp: bool) -> dict:
    """Bytes of a step over all devices: of the parameters, of those that are split, and moved."""
    shape = (jax.device_count(), *config.data.crop_zyx)
    crops = {"image": jax.ShapeDtypeStruct(shape, jnp.uint8)}
    _, like, _, step = step_of(make_learner(config, "pretrain"), crops, ADAMW, fsdp)
    program = step.lower(like, crops).compile().as_text() or ""
    leaves = jax.tree.leaves(like.params)
    return {
        "parameters": sum(leaf.size * leaf.dtype.itemsize for leaf in leaves),
        "split": sum(
            leaf.size * leaf.dtype.itemsize
            for leaf in leaves
            if not leaf.sharding.is_fully_replicated
        ),
        "moved": collective_bytes(program),
    }


if __name__ == "__main__":
    app.run(main)
