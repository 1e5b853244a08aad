"""Whether a pre-training step fits the memory of a device.

    python -m benchmarks.fits --config=configs/pretrain_snemi.py:large

Compiles the step with the config's batch on one device and prints what XLA has planned: the state
(parameters, both moments of AdamW), which is updated in place, and what is held beside it at once,
without and with rematerialisation. Planned here, on a CPU, for bfloat16: XLA computes part of that
in float32 there, so a GPU or a TPU should need no more than this.
"""

from __future__ import annotations

import json
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags
from ml_collections import config_flags

from benchmarks.ours.training import ADAMW, step_of
from maemem.assembly.learners import make_learner
from maemem.config import Config

_CONFIG = config_flags.DEFINE_config_file("config", "configs/pretrain_snemi.py", "Whose step.")
_BATCH = flags.DEFINE_integer("batch_size", 0, "Crops of a step; 0: as the config says.")


def main(argv: list[str]) -> None:
    del argv
    config = _CONFIG.value
    batch = _BATCH.value or config.pretrain.batch_size
    rows = {"kept": planned(config, batch, False), "recomputed": planned(config, batch, True)}
    print(json.dumps({"batch_size": batch, **rows}, indent=2))


def planned(config: Config, batch: int, remat: bool) -> dict[str, float]:
    """GB of a step: of its state, and beside it."""
    with config.unlocked():
        config.model.dtype, config.runtime.remat = "bfloat16", remat
    crops = {"image": jax.ShapeDtypeStruct((batch, *config.data.crop_zyx), jnp.uint8)}
    _, like, _, step = step_of(make_learner(config, "pretrain"), crops, ADAMW)
    plan: Any = step.lower(like, crops).compile().memory_analysis()
    return {
        "state_gb": plan.argument_size_in_bytes / 1e9,
        "beside_gb": (
            plan.temp_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
        )
        / 1e9,
    }


if __name__ == "__main__":
    app.run(main)
