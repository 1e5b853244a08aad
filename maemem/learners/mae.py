"""Masked reconstruction: predict hidden patches from visible ones (He et al. 2021)."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree, Shaped

from maemem.learners.contract import At, Aux, Batch, Learner, Like
from maemem.models.encoders.vit import check_size
from maemem.models.mae_decoder import Decoder, MaskedAutoencoder
from maemem.models.masking import mask_tokens
from maemem.models.patches import patchify, take_tokens, token_grid, unpatchify

Volume = Float[Array, "b z y x"]
Visible, Masked = Int[Array, "b v"], Int[Array, "b m"]


@dataclasses.dataclass(frozen=True)
class DecoderSize:
    """The size of the light decoder.

    Attributes:
      width: of its tokens.
      depth: how many blocks.
      heads: attention heads of a block.
    """

    width: int = 512
    depth: int = 4
    heads: int = 16

    def __post_init__(self):
        check_size(self.width, self.depth, self.heads)


@dataclasses.dataclass(frozen=True)
class MaskedReconstruction(Learner):
    """The squared error of the masked patches alone, each normalised by its own statistics.

    The mask of a crop comes from the crop's key.

    Attributes:
      strategy: what is masked as one: `random` tokens; `space`, columns of tokens through all
        sections; or whole sections, `section` (Cheng et al. 2023).
      ratio: the share of tokens to mask.
      decoded: how many of a crop's masked tokens a training step decodes, those of units drawn at
        random (see `masking.mask_tokens`); 0: all.
      decoder: its size.
    """

    strategy: Literal["random", "space", "section"] = "random"
    ratio: float = 0.9
    decoded: int = 0
    decoder: DecoderSize = dataclasses.field(default_factory=DecoderSize)

    @property
    def model(self) -> MaskedAutoencoder:
        """Encoder and decoder."""
        encoder, size = self.given.encoder, self.decoder
        decoder = Decoder(
            math.prod(encoder.patch_zyx),
            *(size.width, size.depth, size.heads),
            rotary=getattr(encoder, "rotary", False),
            compute=self.given.compute,
        )
        return MaskedAutoencoder(encoder, decoder)

    def init(self, key: Key[Array, ""], like: Like) -> PyTree:
        """See `contract.Learner.init`.

        Raises:
          ValueError: as `masking.visible_count`, or if the patches do not tile the crops.
        """
        image = jnp.zeros((1, *like["image"].shape[1:]), jnp.float32)
        masks = self.masks(key[None], image)
        return self.model.init(key, image[..., None], *masks)["params"]

    def loss(
        self, params: PyTree, state: PyTree, batch: Batch, at: At
    ) -> tuple[Float[Array, ""], Aux]:
        """The mean over crops and over the tokens that are decoded."""
        image = self.augmented_image(batch, at.keys)
        visible, masked = self.masks(at.keys, image)
        decoded = masked[:, : self.decoded or None]
        return self.error(params, image, visible, decoded).mean(), Aux({})

    def evaluate(
        self, params: PyTree, state: PyTree, batch: Batch, keys: Key[Array, " b"]
    ) -> dict[str, Float[Array, " b"]]:
        """`masked_mse`: over all masked patches; 1.0 is what each patch's mean scores."""
        image = self.image(batch)
        return {"masked_mse": self.error(params, image, *self.masks(keys, image))}

    def inputs(self, batch: Batch, at: At) -> dict[str, Shaped[Array, "b z y x"]]:
        """The crops, and what the encoder sees of them."""
        image = self.augmented_image(batch, at.keys)
        masked = self.masks(at.keys, image)[1]
        return {"crop": image, "visible": self._filled(image, masked, jnp.nan)}

    def pictures(
        self, params: PyTree, state: PyTree, batch: Batch, keys: Key[Array, " b"]
    ) -> dict[str, Shaped[Array, "b z y x"]]:
        """The crops, what the encoder sees, and the prediction in the masked patches.

        A prediction is in units of its normalised patch, so it is shown with the true mean and
        contrast of that patch.
        """
        image = self.image(batch)
        visible, masked = self.masks(keys, image)
        predicted = self.predict(params, image, visible, masked)
        mean, std = patch_statistics(take_tokens(self._patches(image), masked))
        return {
            "crop": image,
            "visible": self._filled(image, masked, jnp.nan),
            "predicted": self._filled(image, masked, predicted * std + mean),
        }

    @staticmethod
    def transfer(params: PyTree, state: PyTree) -> PyTree:
        """The encoder alone."""
        return {"encoder": params["encoder"]}

    def masks(self, keys: Key[Array, " b"], image: Volume) -> tuple[Visible, Masked]:
        """The ids of the visible and of the masked tokens, for each crop from its own key.

        Raises:
          ValueError: as `masking.visible_count`, or if the patches do not tile the crops.
        """
        grid = token_grid(image.shape[1:], self.given.encoder.patch_zyx)
        return jax.vmap(lambda key: mask_tokens(key, grid, self.strategy, self.ratio))(keys)

    def predict(
        self, params: PyTree, image: Volume, visible: Visible, masked: Masked
    ) -> Float[Array, "b m p"]:
        """The patches `masked`, in units of their normalised targets."""
        applied = self.model.apply({"params": params}, image[..., None], visible, masked)
        return cast(Array, applied)

    def error(
        self, params: PyTree, image: Volume, visible: Visible, masked: Masked
    ) -> Float[Array, " b"]:
        """Each crop's mean squared error over the tokens `masked`."""
        wanted = normalise_patches(take_tokens(self._patches(image), masked))
        predicted = self.predict(params, image, visible, masked)
        return jnp.square(predicted - wanted).mean((1, 2))

    def _patches(self, image: Volume) -> Float[Array, "b n p"]:
        return patchify(image[..., None], self.given.encoder.patch_zyx)

    def _filled(
        self, image: Volume, masked: Masked, values: Float[Array, "b m p"] | float
    ) -> Volume:
        """Images in whose masked patches other values stand."""
        patch = self.given.encoder.patch_zyx
        rows = jnp.arange(len(image))[:, None]
        patches = self._patches(image).at[rows, masked].set(values)
        return unpatchify(patches, token_grid(image.shape[1:], patch), patch)[..., 0]


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
