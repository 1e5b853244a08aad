"""A step of training a segmenter: forward, mean cross-entropy, backward, SGD with momentum."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.ours.training import COMPUTE, LIBRARIES, SGD, device, random_crops, training
from maemem.learners.contract import Aux, Given, Learner
from maemem.models.encoders.vit import Vit
from maemem.models.segmenters.unetr import Unetr

__all__ = ["LIBRARIES", "given", "prepare"]


def given(patch, encoder, channels, **more) -> Given:
    """The network as it is computed on this machine."""
    width, depth, heads = encoder
    vit = Vit(patch_zyx=tuple(patch), width=width, depth=depth, heads=heads, compute=COMPUTE)

    def segmenter(outputs: int) -> Unetr:
        return Unetr(channels=tuple(channels), encoder=vit, outputs=outputs, compute=COMPUTE)

    return Given((0.0, 255.0), COMPUTE, vit, segmenter, **more)


@dataclasses.dataclass(frozen=True)
class CrossEntropy(Learner):
    """Of maps that are given."""

    outputs: int = 3

    def init(self, key, like):
        image = jnp.zeros((1, *like["image"].shape[1:], 1))
        return self.given.segmenter(self.outputs).init(key, image)["params"]

    def loss(self, params, state, batch, at):
        network, image = self.given.segmenter(self.outputs), self.image(batch)[..., None]
        logits = network.apply({"params": params}, image)
        return optax.sigmoid_binary_cross_entropy(logits, batch["maps"]).mean(), Aux({})


def prepare(crop, patch, encoder, channels, outputs, batch, steps=1):
    learner = CrossEntropy(outputs=outputs, given=given(patch, encoder, channels))
    maps = np.random.default_rng(1).integers(0, 2, (batch, *crop, outputs)).astype(np.float32)
    crops = {"image": random_crops(batch, *crop), "maps": maps}
    step, parameters = training(learner, crops, SGD, steps)
    return step, lambda: {"amount": steps * batch, "parameters": parameters, **device()}
