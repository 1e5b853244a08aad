"""Supervised learning: predict a target of segmentation from labelled crops."""

from __future__ import annotations

import dataclasses
from typing import cast

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree, Shaped

from maemem.learners.contract import At, Aux, Batch, Learner, Like, scale_intensities
from maemem.learners.targets.contract import Target
from maemem.models.contract import Segmenter

Prediction = Float[Array, "b z y x c"]


@dataclasses.dataclass(frozen=True)
class Supervised(Learner):
    """The loss of the config's target, over the crops of a batch, each augmented by its own key."""

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        """What the target needs."""
        return self.target.reads

    @property
    def target(self) -> Target:
        """What a voxel is asked."""
        if self.given.target is None:
            raise ValueError("learner.kind is supervised; expected: a config that has a target")
        return self.given.target

    @property
    def model(self) -> Segmenter:
        """The network, with a logit for each channel of the target."""
        return self.given.segmenter(len(self.target.channels))

    def init(self, key: Key[Array, ""], like: Like) -> PyTree:
        """See `contract.Learner.init`.

        Each part of the network has a key of its own, so that what one part is does not depend on
        the others.
        """
        crop_zyx = like["image"].shape[1:]
        self.target.check_crop("data.crop_zyx", crop_zyx)
        return self.model.init(key, jnp.zeros((1, *crop_zyx, 1), jnp.float32))["params"]

    def loss(
        self, params: PyTree, state: PyTree, batch: Batch, at: At
    ) -> tuple[Float[Array, ""], Aux]:
        """The mean over crops."""
        seen = self.augmented(batch, at.keys)
        maps, weight = self.target.targets(seen)
        logits = self.logits(params, seen["image"])
        return self.target.loss(logits, maps, weight).mean(), Aux({})

    def evaluate(
        self, params: PyTree, state: PyTree, batch: Batch, keys: Key[Array, " b"]
    ) -> dict[str, Float[Array, " b"]]:
        """Of each crop as it is: its loss, and how well each channel tells its two classes apart.

        `agreement` is the mean over channels of (sensitivity + specificity) / 2 at a probability of
        one half, so 0.5 is chance, whatever the classes' shares.
        """
        seen = self.plain(batch)
        logits = self.logits(params, seen["image"])
        maps, weight = self.target.targets(seen)
        known, said, true = weight > 0, self.target.activate(logits) > 0.5, maps > 0.5

        def share(of: Bool[Array, "b z y x c"], among: Bool[Array, "b z y x c"]):
            counted = (among & known).sum((1, 2, 3))
            return jnp.where(counted > 0, (of & among & known).sum((1, 2, 3)) / counted, 0.5)

        agreement = (share(said, true) + share(~said, ~true)) / 2
        return {
            "loss": self.target.loss(logits, maps, weight),
            "agreement": agreement.mean(-1),
        }

    def inputs(self, batch: Batch, at: At) -> dict[str, Shaped[Array, "b z y x"]]:
        """Crops with their truth, the same augmented, and each channel of the target."""
        plain, seen = self.plain(batch), self.augmented(batch, at.keys)
        augmented = {f"augmented {name}": values for name, values in seen.items()}
        return plain | augmented | self._maps(seen, "")

    def pictures(
        self, params: PyTree, state: PyTree, batch: Batch, keys: Key[Array, " b"]
    ) -> dict[str, Shaped[Array, "b z y x"]]:
        """The crops, and of each channel the truth and what is predicted."""
        seen = self.plain(batch)
        predicted = 2 * self.target.activate(self.logits(params, seen["image"])) - 1
        columns = {"crop": seen["image"]}
        for i, (name, truth) in enumerate(self._maps(seen, ": truth").items()):
            said = f"{self.target.channels[i]}: predicted"
            columns |= {name: truth, said: predicted[..., i]}
        return columns

    def logits(self, params: PyTree, image: Float[Array, "b z y x"]) -> Prediction:
        """What the network says, before activation."""
        return cast(Array, self.model.apply({"params": params}, image[..., None]))

    def predict(self, params: PyTree, crops: Shaped[Array, "b z y x"]) -> Prediction:
        """Probabilities of raw crops of any dtype, in [0, 1]."""
        image = scale_intensities(crops, self.given.intensity_range)
        return self.target.activate(self.logits(params, image))

    def plain(self, batch: Batch) -> Batch:
        """A batch with its image in [−1, 1]."""
        return {name: jnp.asarray(rows) for name, rows in batch.items()} | {
            "image": self.image(batch)
        }

    def augmented(self, batch: Batch, keys: Key[Array, " b"]) -> Batch:
        """A batch as a training step sees it."""
        plain = self.plain(batch)
        return plain if (change := self.given.augmentation) is None else change.apply(keys, plain)

    def _maps(self, seen: Batch, suffix: str) -> dict[str, Float[Array, "b z y x"]]:
        """The target's channels as grey values, NaN where unknown."""
        maps, weight = self.target.targets(seen)
        grey = jnp.where(weight > 0, 2 * maps - 1, jnp.nan)
        return {f"{name}{suffix}": grey[..., i] for i, name in enumerate(self.target.channels)}
