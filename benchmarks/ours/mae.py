"""A step of pre-training: forward, backward, AdamW."""

from __future__ import annotations

import dataclasses

import jax

from benchmarks.operations import count_products
from benchmarks.ours.training import (
    ADAMW,
    COMPUTE,
    LIBRARIES,
    device,
    like_of,
    random_crops,
    training,
)
from maemem.learners.contract import At, Given, Like
from maemem.learners.mae import DecoderSize, MaskedReconstruction
from maemem.models.compute import Compute
from maemem.models.encoders.vit import Vit

__all__ = ["LIBRARIES", "prepare"]


def prepare(crop, patch, encoder, decoder, ratio, batch, steps=1, compiled=True):
    del compiled  # It is about the peer; ours always is.
    width, depth, heads = encoder
    vit = Vit(patch_zyx=tuple(patch), width=width, depth=depth, heads=heads, compute=COMPUTE)
    learner = MaskedReconstruction(
        ratio=ratio, decoder=DecoderSize(*decoder), given=Given((0.0, 255.0), COMPUTE, vit, _none)
    )
    crops = {"image": random_crops(batch, *crop)}
    step, parameters = training(learner, crops, ADAMW, steps)

    def facts():
        gflop = steps * product_operations(learner, like_of(crops)) / 1e9
        return {"amount": steps * batch, "parameters": parameters, "gflop": gflop, **device()}

    return step, facts


def product_operations(learner: MaskedReconstruction, like: Like) -> int:
    """Multiplications and additions of all matrix products of a step, and of nothing else."""
    plain = Compute()
    encoder = learner.given.encoder.clone(compute=plain)  # type: ignore
    given = dataclasses.replace(learner.given, compute=plain, encoder=encoder)
    learner = dataclasses.replace(learner, given=given)
    key, count = jax.random.key(0), like["image"].shape[0]
    params = jax.eval_shape(lambda key: learner.init(key, like), key)
    at = jax.eval_shape(lambda: At(0, 1, key, jax.random.split(key, count)))  # type: ignore

    def loss(params, batch, at):
        return learner.loss(params, (), batch, at)[0]

    return count_products(jax.make_jaxpr(jax.grad(loss))(params, like, at).jaxpr)


def _none(outputs: int):
    raise NotImplementedError
