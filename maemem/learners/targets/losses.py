"""Losses of dense predictions: weighted means over the voxels of each crop and channel.

Logits, targets and weights are `[b z y x c]`; a loss is float32 `[b c]`, computed in float32. A
weight is 0 where the truth is unknown and 1 where it is known. Where all are 0, the loss is exactly
0, and so is its gradient.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

Maps = Float[Array, "b z y x c"]
Weight = Float[Array, "b z y x c"]
PerChannel = Float32[Array, "b c"]


def balanced_bce(logits: Maps, targets: Maps, weight: Weight, bound: float = 10.0) -> PerChannel:
    """Mean binary cross-entropy in which both classes weigh the same.

    A voxel of a class that has m of the n known voxels weighs n / 2m, so each class gives half of
    the loss; but at most `bound`, so a class with less than 1 / (2 bound) of them gives less. The
    counts are sums of weights in one crop and one channel.

    Args:
      logits: of the probability that the target is 1.
      targets: 0 or 1.
      weight: of each voxel.
      bound: the greatest factor of a class; 10 is reached at 5 %.
    """
    logits = _only(weight, logits)
    positive = jnp.where(targets > 0.5, weight, 0)
    count, positives = _total(weight), _total(positive)

    def balance(members: PerChannel) -> PerChannel:
        return jnp.minimum(count / jnp.maximum(2 * members, 1), bound)

    # −log of the probability of 1, without overflow; that of 0 is larger by the logit.
    cost = jax.nn.softplus(-logits)
    ones = balance(positives) * _total(positive * cost)
    zeros = balance(count - positives) * _total((weight - positive) * (cost + logits))
    return (ones + zeros) / jnp.maximum(count, 1)


def soft_dice(logits: Maps, targets: Maps, weight: Weight, smooth: float = 100.0) -> PerChannel:
    """1 − Dice overlap of probabilities and targets (Milletari et al. 2016, without squares).

    Args:
      logits: of the probability that the target is 1.
      targets: 0 or 1.
      weight: of each voxel.
      smooth: voxels added to overlap and sum, so that crops with few positives neither jump from
        0 to 1 nor weigh as much as full ones.
    """
    guess = weight * jax.nn.sigmoid(_only(weight, logits))
    truth = weight * _only(weight, targets)
    overlap = _total(guess * _only(weight, targets))
    return 1 - (2 * overlap + smooth) / (_total(guess) + _total(truth) + smooth)


def squared_error(prediction: Maps, targets: Maps, weight: Weight) -> PerChannel:
    """Mean squared difference."""
    error = weight * jnp.square(_only(weight, prediction) - _only(weight, targets))
    return _total(error) / jnp.maximum(_total(weight), 1)


def _only(weight: Weight, values: Array) -> Array:
    """The values in float32, 0 where unknown: there not even an infinity reaches the gradient."""
    return jnp.where(weight > 0, values.astype(jnp.float32), 0)


def _total(values: Array) -> Array:
    """The sum over a crop, `[b c]`."""
    return values.sum((1, 2, 3), dtype=jnp.float32)
