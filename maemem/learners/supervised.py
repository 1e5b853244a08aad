"""Learns a target of segmentation from labelled crops."""

import dataclasses
from typing import Protocol, cast, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, Shaped

from maemem.data.samples.augment import Augmentation, augment_batch
from maemem.data.samples.crops import Crops
from maemem.geometry import View, Zyx
from maemem.learners.mae import scale_intensities
from maemem.models.segmenters.unet import ResidualUnet
from maemem.models.segmenters.unetr import Unetr

Image = Float[Array, "b z y x 1"]
Prediction = Float[Array, "b z y x c"]


@runtime_checkable
class Target(Protocol):
    """What a network predicts of every voxel: `affinity.Affinity` or `bcd.Bcd`."""

    @property
    def channels(self) -> tuple[str, ...]:
        """The names of what it predicts."""
        ...

    def targets(
        self, labels: Int[Array, "b z y x"]
    ) -> tuple[Float[Array, "b z y x c"], Bool[Array, "b z y x c"]]:
        """What it should predict, and where that is known."""
        ...

    def loss(self, logits: Prediction, labels: Int[Array, "b z y x"]) -> Float[Array, " b"]:
        """Of each crop."""
        ...

    def activate(self, logits: Prediction) -> Prediction:
        """Logits as probabilities, in [0, 1]."""
        ...

    def admits(self, view: View) -> bool:
        """Whether `undo` can turn back what was predicted in this view."""
        ...

    def undo(
        self, prediction: Prediction, view: View
    ) -> tuple[Prediction, Shaped[Array, "z y x c"]]:
        """What was predicted of a turned crop, turned back; and where it is known."""
        ...


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """What fine-tuning minimises.

    Attributes:
      model: a network that makes logits `[b z y x c]` of images `[b z y x 1]`.
      target: what its channels are.
      intensity_range: the raw intensities that become −1 and 1.
      augmentation: of training crops; of none, if None.
    """

    model: Unetr | ResidualUnet
    target: Target
    intensity_range: tuple[float, float]
    augmentation: Augmentation | None = None

    def init(self, key: Key[Array, ""], crop_zyx: Zyx) -> PyTree:
        """The network's first parameters, float32.

        Each part of the network has a key of its own, so that what one part is does not depend on
        the others.
        """
        return self.model.init(key, jnp.zeros((1, *crop_zyx, 1), jnp.float32))["params"]

    def logits(self, params: PyTree, image: Image) -> Prediction:
        """What the network says, before activation."""
        return cast(Array, self.model.apply({"params": params}, image))

    def predict(self, params: PyTree, crops: Shaped[Array, "b z y x"]) -> Prediction:
        """Probabilities of raw crops of any dtype, in [0, 1]."""
        image = scale_intensities(crops, self.intensity_range)[..., None]
        return self.target.activate(self.logits(params, image))

    def loss(self, params: PyTree, batch: Crops, keys: Key[Array, " b"]) -> Float[Array, ""]:
        """What a training step minimises; each crop is augmented by its own key."""
        image, labels = self.augment(batch, keys)
        return self.target.loss(self.logits(params, image[..., None]), labels).mean()

    def augment(
        self, batch: Crops, keys: Key[Array, " b"]
    ) -> tuple[Float[Array, "b z y x"], Int[Array, "b z y x"]]:
        """What a training step sees of a batch: images in [−1, 1], and their labels."""
        image, labels = self._arrays(batch)
        if self.augmentation is not None:
            image, labels = augment_batch(self.augmentation, keys, image, labels)
        return image, labels

    def evaluate(self, params: PyTree, batch: Crops) -> dict[str, Float[Array, " b"]]:
        """Of each crop as it is: its loss, and how well each channel tells its two classes apart.

        `eval_agreement` is the mean over channels of (sensitivity + specificity) / 2 at a
        probability of one half, so 0.5 is chance, whatever the classes' shares.
        """
        image, labels = self._arrays(batch)
        logits = self.logits(params, image[..., None])
        targets, known = self.target.targets(labels)
        said, true = self.target.activate(logits) > 0.5, targets > 0.5

        def share(of: Bool[Array, "b z y x c"], among: Bool[Array, "b z y x c"]):
            counted = (among & known).sum((1, 2, 3))
            return jnp.where(counted > 0, (of & among & known).sum((1, 2, 3)) / counted, 0.5)

        agreement = (share(said, true) + share(~said, ~true)) / 2
        return {
            "eval_loss": self.target.loss(logits, labels),
            "eval_agreement": agreement.mean(-1),
        }

    def _arrays(self, batch: Crops) -> tuple[Float[Array, "b z y x"], Int[Array, "b z y x"]]:
        """What a batch shows, scaled, and its labels."""
        image = scale_intensities(jnp.asarray(batch.image), self.intensity_range)
        return image, jnp.asarray(batch.labels)
