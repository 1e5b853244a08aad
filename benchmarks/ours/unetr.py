"""A step of training a segmenter: forward, mean cross-entropy, backward, SGD with momentum."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.ours.training import COMPUTE, LIBRARIES, SGD, device, random_crops, training
from maemem.learners.mae import scale_intensities
from maemem.models.segmenters.unetr import Unetr

__all__ = ["LIBRARIES", "network", "prepare"]


def network(patch, encoder, channels, outputs) -> Unetr:
    """The network as it is computed on this machine."""
    return Unetr(tuple(patch), tuple(encoder), tuple(channels), outputs, compute=COMPUTE)


def prepare(crop, patch, encoder, channels, outputs, batch, steps=1):
    model = network(patch, encoder, channels, outputs)
    targets = np.random.default_rng(1).integers(0, 2, (batch, *crop, outputs)).astype(np.float32)

    def init(key):
        return model.init(key, jnp.zeros((1, *crop, 1)))["params"]

    def loss(params, batch, keys):
        del keys  # Nothing is random here.
        crops, targets = batch
        logits = model.apply({"params": params}, scale_intensities(crops, (0, 255))[..., None])
        return optax.sigmoid_binary_cross_entropy(logits, targets).mean()

    step, parameters = training(init, loss, (random_crops(batch, *crop), targets), SGD, steps)
    return step, lambda: {"amount": steps * batch, "parameters": parameters, **device()}
