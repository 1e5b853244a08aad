"""What networks are to each other: encoders give levels, segmenters take any encoder."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from flax import struct
from jaxtyping import Array, Float, Int, PyTree

from maemem.geometry import Zyx


class Level(struct.PyTreeNode):
    """Features at one resolution.

    Attributes:
      features: `[b z y x d]`; or, of an encoder that was told which tokens are visible, those
        tokens alone, `[b v d]`.
      stride_zyx: how many voxels lie between two of them along each axis.
    """

    features: Float[Array, "b z y x d"] | Float[Array, "b v d"]
    stride_zyx: Zyx = struct.field(pytree_node=False)


class FlaxModule(Protocol):
    """What is used of `flax.linen.Module`."""

    def init(self, key: Any, /, *inputs: Any) -> Any:
        """First variables."""
        ...

    def apply(self, variables: Any, /, *inputs: Any) -> Any:
        """The module's outputs."""
        ...

    def clone(self, **changes: Any) -> Any:
        """The same module with other fields."""
        ...


@runtime_checkable
class Encoder(FlaxModule, Protocol):
    """An image to levels of features.

    A Flax module; its fields are its config section, but for `compute` (see `models.compute`).

    Attributes:
      patch_zyx: the stride of its coarsest level, in voxels; it takes crops that are multiples.
    """

    patch_zyx: Zyx

    def __call__(
        self, image: Float[Array, "b z y x c"], visible: Int[Array, "b v"] | None = None
    ) -> list[Level]:
        """Levels from the finest to the coarsest; several may have the same stride.

        Args:
          image: intensities in [−1, 1], with any number of channels.
          visible: the tokens to encode, as places in token order; None: all. The last level then
            has those tokens alone.

        Raises:
          ValueError: if the patches do not tile the image, or the encoder has no tokens to hide.
        """
        ...

    def below(self, params: PyTree) -> PyTree:
        """How many layers lie between each parameter and the encoder's output: 0 for the last."""
        ...


@runtime_checkable
class Segmenter(FlaxModule, Protocol):
    """An encoder and a decoder to logits of every voxel.

    A Flax module; its fields are its config section, but for `encoder`, `outputs` and `compute`.
    The parameters of its encoder are those of `encoder`, under that name.
    """

    encoder: Any
    outputs: int

    def __call__(self, image: Float[Array, "b z y x c"]) -> Float[Array, "b z y x outputs"]:
        """Float32 logits of crops that the encoder's patches tile.

        Raises:
          ValueError: if they do not, or the encoder's levels do not fit.
        """
        ...
