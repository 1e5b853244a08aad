"""Predicts a volume by batches that all devices share: OUTPUT, DEVICES."""

import pathlib
import sys

import jax
import jax.numpy as jnp

from maemem.training.mesh import batch_sharding, make_mesh
from tests.blockwise.predictions import SHAPE, run
from tests.blockwise.volumes import grey_values, stored_volume

if __name__ == "__main__":
    output, devices = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    rows = batch_sharding(make_mesh())

    @jax.jit
    def predict(crops):
        given = jax.lax.with_sharding_constraint(jnp.asarray(crops), rows)
        return jax.lax.with_sharding_constraint(jnp.stack([given, 255 - given], -1) / 255, rows)

    volume = stored_volume(output.with_suffix(".raw"), grey_values(SHAPE))
    run(volume, output, predict, batch_size=4)
    assert len(predict(jnp.zeros((4, 2, 2, 2), jnp.uint8)).addressable_shards) == devices
