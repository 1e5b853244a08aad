"""Masked reconstruction: predict hidden patches from visible ones (He et al. 2021)."""

import dataclasses
from typing import cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree, Shaped

from maemem.models.mae import MaskedAutoencoder
from maemem.models.masking import mask_tokens
from maemem.models.patches import patchify, token_grid, unpatchify

Image = Float[Array, "b z y x 1"]


def normalise_patches(patches: Float[Array, "b n p"]) -> Float[Array, "b n p"]:
    """Each patch less its mean, over its standard deviation, in float32 (He et al. 2021).

    The variance is the unbiased one, as there. A patch without contrast stays near zero: 1e-6 is
    added to the variance.
    """
    patches = patches.astype(jnp.float32)
    mean, deviation = patch_statistics(patches)
    return (patches - mean) / deviation


def patch_statistics(
    patches: Float[Array, "b n p"],
) -> tuple[Float[Array, "b n 1"], Float[Array, "b n 1"]]:
    """The mean of each patch, and the deviation that `normalise_patches` divides by."""
    variance = patches.var(-1, keepdims=True, ddof=min(1, patches.shape[-1] - 1))
    return patches.mean(-1, keepdims=True), jnp.sqrt(variance + 1e-6)


def take_tokens(tokens: Shaped[Array, "b n d"], ids: Int[Array, "b m"]) -> Shaped[Array, "b m d"]:
    """The tokens at the places `ids`."""
    return jnp.take_along_axis(tokens, ids[:, :, None], axis=1)


def scale_intensities(
    crops: Shaped[Array, "*shape"], intensity_range: tuple[float, float]
) -> Float[Array, "*shape"]:
    """Raw intensities of any dtype as a network sees them: float32, the range made [−1, 1].

    What lies outside of the range is clipped to its ends.
    """
    low, high = intensity_range
    return jnp.clip((crops.astype(jnp.float32) - low) * (2 / (high - low)) - 1, -1, 1)


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """What pre-training minimises: the squared error of the masked patches alone.

    Attributes:
      model: the masked autoencoder.
      intensity_range: the raw intensities that become −1 and 1.
      strategy: of masking, see `masking.visible_count`.
      ratio: the share of tokens to mask.
      decoded: how many of a crop's masked tokens a training step decodes, those of units drawn at
        random (see `masking.mask_tokens`); all, if None.
    """

    model: MaskedAutoencoder
    intensity_range: tuple[float, float]
    strategy: str
    ratio: float
    decoded: int | None = None

    def image(self, crops: Shaped[Array, "b z y x"]) -> Image:
        """Raw crops of any dtype as the network sees them: float32, in [−1, 1], one channel."""
        return scale_intensities(crops, self.intensity_range)[..., None]

    def masks(
        self, keys: Key[Array, " b"], image: Image
    ) -> tuple[Int[Array, "b visible"], Int[Array, "b masked"]]:
        """The ids of the visible and of the masked tokens, for each crop from its own key.

        Raises:
          ValueError: as `masking.visible_count`, or if the patches do not tile the crops.
        """
        grid = token_grid(image.shape[1:4], self.model.patch_zyx)
        return jax.vmap(lambda key: mask_tokens(key, grid, self.strategy, self.ratio))(keys)

    def init(self, key: Key[Array, ""], crop_zyx: tuple[int, int, int]) -> PyTree:
        """The network's first parameters, float32.

        Raises:
          ValueError: as `masks`.
        """
        image = jnp.zeros((1, *crop_zyx, 1), jnp.float32)
        return self.model.init(key, image, *self.masks(key[None], image))["params"]

    def predict(
        self, params: PyTree, image: Image, visible: Int[Array, "b v"], masked: Int[Array, "b m"]
    ) -> Float[Array, "b m p"]:
        """The patches `masked`, in units of their normalised targets."""
        return cast(Array, self.model.apply({"params": params}, image, visible, masked))

    def error(
        self, params: PyTree, image: Image, visible: Int[Array, "b v"], masked: Int[Array, "b m"]
    ) -> Float[Array, " b"]:
        """Each crop's mean squared error over the tokens `masked`; 1.0 is what the mean scores."""
        patches = take_tokens(patchify(image, self.model.patch_zyx), masked)
        predicted = self.predict(params, image, visible, masked)
        return jnp.square(predicted - normalise_patches(patches)).mean((1, 2))

    def loss(
        self, params: PyTree, crops: Shaped[Array, "b z y x"], keys: Key[Array, " b"]
    ) -> Float[Array, ""]:
        """What a training step minimises; each crop's mask comes from its own key."""
        image = self.image(crops)
        visible, masked = self.masks(keys, image)
        return self.error(params, image, visible, masked[:, : self.decoded]).mean()

    def evaluate(
        self, params: PyTree, crops: Shaped[Array, "b z y x"], keys: Key[Array, " b"]
    ) -> Float[Array, " b"]:
        """Each crop's mean squared error over all of its masked patches (`eval_masked_mse`)."""
        image = self.image(crops)
        return self.error(params, image, *self.masks(keys, image))

    def reconstruct(
        self, params: PyTree, crops: Shaped[Array, "b z y x"], keys: Key[Array, " b"]
    ) -> tuple[Float[Array, "b z y x"], Float[Array, "b z y x"], Float[Array, "b z y x"]]:
        """The crops, what was left visible (else NaN), and the prediction in the masked patches.

        All are in [−1, 1]. A prediction is in units of its normalised patch, so it is shown with
        the true mean and contrast of that patch.
        """
        image = self.image(crops)
        visible, masked = self.masks(keys, image)
        predicted = self.predict(params, image, visible, masked)
        truth = take_tokens(patchify(image, self.model.patch_zyx), masked)
        mean, std = patch_statistics(truth)
        left = self._filled(image, masked, jnp.nan)
        return image[..., 0], left, self._filled(image, masked, predicted * std + mean)

    def hide(
        self, crops: Shaped[Array, "b z y x"], keys: Key[Array, " b"]
    ) -> tuple[Float[Array, "b z y x"], Float[Array, "b z y x"]]:
        """The crops and what is left visible of them, as `reconstruct` gives them."""
        image = self.image(crops)
        return image[..., 0], self._filled(image, self.masks(keys, image)[1], jnp.nan)

    def _filled(
        self, image: Image, masked: Int[Array, "b m"], values: Float[Array, "b m p"] | float
    ) -> Float[Array, "b z y x"]:
        """Images in whose masked patches other values stand."""
        patch, grid = self.model.patch_zyx, token_grid(image.shape[1:4], self.model.patch_zyx)
        rows = jnp.arange(len(image))[:, None]
        patches = patchify(image, patch).at[rows, masked].set(values)
        return unpatchify(patches, grid, patch)[..., 0]
