"""A step of pre-training: forward, backward, AdamW."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from benchmarks.operations import count_products
from benchmarks.ours.training import ADAMW, COMPUTE, LIBRARIES, device, random_crops, training
from maemem.learners.mae import Reconstruction
from maemem.models.layers import Compute
from maemem.models.mae import MaskedAutoencoder

__all__ = ["LIBRARIES", "prepare"]


def prepare(crop, patch, encoder, decoder, ratio, batch, steps=1, compiled=True):
    del compiled  # It is about the peer; ours always is.
    model = MaskedAutoencoder(tuple(patch), tuple(encoder), tuple(decoder), compute=COMPUTE)
    objective = Reconstruction(model, (0, 255), "random", ratio)
    step, parameters = training(
        lambda key: objective.init(key, tuple(crop)),
        objective.loss,
        random_crops(batch, *crop),
        ADAMW,
        steps,
    )

    def facts():
        gflop = steps * product_operations(objective, batch, tuple(crop)) / 1e9
        return {"amount": steps * batch, "parameters": parameters, "gflop": gflop, **device()}

    return step, facts


def product_operations(objective: Reconstruction, batch: int, crop) -> int:
    """Multiplications and additions of all matrix products of a step, and of nothing else."""
    plain = dataclasses.replace(objective.model, compute=Compute())
    objective = dataclasses.replace(objective, model=plain)
    params = jax.eval_shape(lambda key: objective.init(key, crop), jax.random.key(0))
    crops = jax.ShapeDtypeStruct((batch, *crop), jnp.uint8)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), batch))
    return count_products(jax.make_jaxpr(jax.grad(objective.loss))(params, crops, keys).jaxpr)
