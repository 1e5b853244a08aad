"""Restoration: a whole segmenter predicts the voxels of hidden blocks from those around them.

Context encoders (Pathak et al. 2016) in three dimensions. Unlike masked autoencoding, it trains all
of the segmenter but its head, and needs no tokens, so convolutional networks learn by it, too.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree, Shaped

from maemem.geometry import Zyx
from maemem.learners.contract import At, Aux, Batch, Learner, Like
from maemem.models.contract import Segmenter

Volume = Float[Array, "b z y x"]


@dataclasses.dataclass(frozen=True)
class Restoration(Learner):
    """The squared error of the hidden voxels alone, in standard deviations of their crop.

    Attributes:
      ratio: the share of voxels that are hidden, in the mean.
      blocks_zyx: the sizes of the blocks that are hidden, in voxels; each hides the same share.
      fill: what stands there instead: the `mean` of the crop, or Gaussian `noise` of its mean and
        deviation.
    """

    ratio: float = 0.5
    blocks_zyx: tuple[Zyx, ...] = ((2, 8, 8), (4, 16, 16))
    fill: Literal["mean", "noise"] = "mean"

    def __post_init__(self):
        if not 0 < self.ratio < 1:
            raise ValueError(f"ratio is {self.ratio}; expected: above 0 and below 1")
        if not self.blocks_zyx or min(map(min, self.blocks_zyx)) < 1:
            raise ValueError(
                f"blocks_zyx is {self.blocks_zyx}; expected: one or more shapes z, y, x in voxels"
            )

    @property
    def model(self) -> Segmenter:
        """The segmenter, with one logit a voxel."""
        return self.given.segmenter(1)

    def init(self, key: Key[Array, ""], like: Like) -> PyTree:
        """See `contract.Learner.init`."""
        image = jnp.zeros((1, *like["image"].shape[1:], 1), jnp.float32)
        return self.model.init(key, image)["params"]

    def loss(
        self, params: PyTree, state: PyTree, batch: Batch, at: At
    ) -> tuple[Float[Array, ""], Aux]:
        """The mean over crops."""
        image = self.augmented_image(batch, at.keys)
        return self.error(params, image, at.keys).mean(), Aux({})

    def evaluate(
        self, params: PyTree, state: PyTree, batch: Batch, keys: Key[Array, " b"]
    ) -> dict[str, Float[Array, " b"]]:
        """`hidden_mse`: about 1.0 is what the crop's mean scores."""
        return {"hidden_mse": self.error(params, self.image(batch), keys)}

    def inputs(self, batch: Batch, at: At) -> dict[str, Shaped[Array, "b z y x"]]:
        """The crops, and what is hidden of them."""
        image = self.augmented_image(batch, at.keys)
        hidden = self.hidden(at.keys, image)
        return {"crop": image, "visible": jnp.where(hidden, jnp.nan, image)}

    def pictures(
        self, params: PyTree, state: PyTree, batch: Batch, keys: Key[Array, " b"]
    ) -> dict[str, Shaped[Array, "b z y x"]]:
        """The crops, what is visible, and the prediction where it is not."""
        image = self.image(batch)
        hidden = self.hidden(keys, image)
        mean, deviation = statistics(image)
        predicted = mean + deviation * self.predict(params, image, hidden, keys)
        return {
            "crop": image,
            "visible": jnp.where(hidden, jnp.nan, image),
            "predicted": jnp.where(hidden, predicted, image),
        }

    @staticmethod
    def transfer(params: PyTree, state: PyTree) -> PyTree:
        """All but the head, which has another number of channels."""
        return {name: part for name, part in params.items() if name != "head"}

    def hidden(self, keys: Key[Array, " b"], image: Volume) -> Bool[Array, "b z y x"]:
        """Where voxels are hidden, for each crop from its own key.

        Blocks of each size lie on a grid of their own, which is shifted at random.
        """
        chance = 1 - (1 - self.ratio) ** (1 / len(self.blocks_zyx))

        def of_crop(key: Key[Array, ""]) -> Bool[Array, "z y x"]:
            found = jnp.zeros(image.shape[1:], bool)
            for size, own in zip(
                self.blocks_zyx, jax.random.split(key, len(self.blocks_zyx)), strict=True
            ):
                chosen, shift = jax.random.split(own)
                grid = [-(-n // s) + 1 for n, s in zip(image.shape[1:], size, strict=True)]
                blocks = jax.random.bernoulli(chosen, chance, grid)
                for axis, s in enumerate(size):
                    blocks = jnp.repeat(blocks, s, axis)  # [grid] -> [grid · size]
                start = jax.random.randint(shift, (3,), 0, jnp.array(size))
                found |= jax.lax.dynamic_slice(blocks, start, image.shape[1:])
            return found

        return jax.vmap(of_crop)(keys)

    def predict(
        self,
        params: PyTree,
        image: Volume,
        hidden: Bool[Array, "b z y x"],
        keys: Key[Array, " b"],
    ) -> Volume:
        """All voxels, in standard deviations of their crop, seen where they are not hidden."""
        filled, deviation = statistics(image)
        if self.fill == "noise":
            noise = jax.vmap(
                lambda key: jax.random.normal(jax.random.fold_in(key, 2), image.shape[1:])
            )(keys)
            filled = filled + deviation * noise
        seen = jnp.where(hidden, filled, image)[..., None]
        return cast(Array, self.model.apply({"params": params}, seen))[..., 0]

    def error(self, params: PyTree, image: Volume, keys: Key[Array, " b"]) -> Float[Array, " b"]:
        """Each crop's mean squared error over its hidden voxels."""
        hidden = self.hidden(keys, image)
        mean, deviation = statistics(image)
        predicted = self.predict(params, image, hidden, keys)
        squared = jnp.square(predicted - (image - mean) / deviation)
        return jnp.where(hidden, squared, 0).sum((1, 2, 3)) / jnp.maximum(hidden.sum((1, 2, 3)), 1)


def statistics(image: Volume) -> tuple[Float[Array, "b 1 1 1"], Float[Array, "b 1 1 1"]]:
    """Mean and standard deviation of each crop; 1e-3 at least, where it has no contrast."""
    axes = (1, 2, 3)
    return image.mean(axes, keepdims=True), image.std(axes, keepdims=True) + 1e-3
