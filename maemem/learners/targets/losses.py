"""Losses of dense predictions, over the known voxels of each crop and channel.

Logits, targets and `known` are `[b z y x c]`; a loss is float32 `[b c]`, computed in float32. Where
nothing is known it is exactly 0, and so is its gradient.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32

Maps = Float[Array, "b z y x c"]
Known = Bool[Array, "b z y x c"]
PerChannel = Float32[Array, "b c"]


def balanced_bce(logits: Maps, targets: Maps, known: Known, bound: float = 10.0) -> PerChannel:
    """Mean binary cross-entropy in which both classes weigh the same.

    A voxel of a class that has m of the n known voxels weighs n / 2m, so each class gives half of
    the loss; but at most `bound`, so a class with less than 1 / (2 bound) of them gives less. The
    counts are of one crop and one channel.

    Args:
      logits: of the probability that the target is 1.
      targets: 0 or 1.
      known: which voxels count.
      bound: the greatest weight of a voxel; 10 is reached at 5 %.
    """
    logits = _only(known, logits)
    positive = known & (targets > 0.5)
    count, positives = _total(known), _total(positive)

    def weight(members: PerChannel) -> PerChannel:
        return jnp.minimum(count / jnp.maximum(2 * members, 1), bound)

    # −log of the probability of 1, without overflow; that of 0 is larger by the logit.
    cost = jax.nn.softplus(-logits)
    ones = weight(positives) * _total(jnp.where(positive, cost, 0))
    zeros = weight(count - positives) * _total(jnp.where(known & ~positive, cost + logits, 0))
    return (ones + zeros) / jnp.maximum(count, 1)


def soft_dice(logits: Maps, targets: Maps, known: Known, smooth: float = 100.0) -> PerChannel:
    """1 − Dice overlap of probabilities and targets (Milletari et al. 2016, without squares).

    Args:
      logits: of the probability that the target is 1.
      targets: 0 or 1.
      known: which voxels count.
      smooth: voxels added to overlap and sum, so that crops with few positives neither jump from
        0 to 1 nor weigh as much as full ones.
    """
    guess = jnp.where(known, jax.nn.sigmoid(_only(known, logits)), 0)
    truth = _only(known, targets)
    overlap, total = _total(guess * truth), _total(guess) + _total(truth)
    return 1 - (2 * overlap + smooth) / (total + smooth)


def squared_error(prediction: Maps, targets: Maps, known: Known) -> PerChannel:
    """Mean squared difference."""
    error = jnp.square(_only(known, prediction) - _only(known, targets))
    return _total(error) / jnp.maximum(_total(known), 1)


def _only(known: Array, values: Array) -> Array:
    """The values in float32, 0 where unknown: there not even an infinity reaches the gradient."""
    return jnp.where(known, values.astype(jnp.float32), 0)


def _total(values: Array) -> Array:
    """The sum over a crop, `[b c]`."""
    return values.sum((1, 2, 3), dtype=jnp.float32)
