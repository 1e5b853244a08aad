"""Crops to augment, and what comes of them."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np

from maemem.data.samples.augment import Augmentation

KINDS = (
    *("warp", "rotation", "translation", "slip", "missing_section", "blurred_section"),
    *("brightness", "contrast", "gamma", "noise", "cut_out"),
)
OFF = Augmentation(orders_zyx=((0, 1, 2),), flip=False, **dict.fromkeys(KINDS, 0.0))
SHAPE = (5, 12, 16)
properties = hypothesis.settings(max_examples=25, deadline=None)


def labelled(shape=SHAPE, seed=0):
    """Labels from −1 to 8, and an image that is a function of them, `paint`."""
    labels = np.random.default_rng(seed).integers(-1, 9, shape, np.int32)
    return {"image": jnp.asarray(paint(labels)), "labels": jnp.asarray(labels)}


def paint(labels):
    return np.float32(0.1) * np.asarray(labels).astype(np.float32)


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def augmented(settings, count, crop):
    """One crop, augmented from `count` keys; images and labels `[n z y x]` as numpy."""
    batch = jax.tree.map(lambda array: jnp.broadcast_to(array, (count, *array.shape)), crop)
    after = jax.tree.map(np.asarray, jax.jit(settings.apply)(keys(count), batch))
    return after["image"], after["labels"]


def drawn(kind, count, *arguments):
    """What `kind(key, *arguments)` gives for `count` keys, as numpy."""
    return np.asarray(jax.jit(jax.vmap(lambda key: kind(key, *arguments)))(keys(count)))


def noise_image(shape=SHAPE):
    return jnp.asarray(np.random.default_rng(1).uniform(-0.5, 0.5, shape).astype(np.float32))
