"""What a learner is: all that training, stages and the check-up know of a method.

A method is one file beside this one: a frozen dataclass whose fields are its config section, and
one line in `LEARNERS`. What most methods do alike is done here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree, Shaped

from maemem.data.samples.augment import Augmentation
from maemem.fields import given
from maemem.learners.targets.contract import Target
from maemem.models.compute import Compute
from maemem.models.contract import Encoder, Segmenter

# By field: `image` `[b z y x]` in the dtype of its volume, and the fields of truth that are read,
# such as `labels` `[b z y x]`.
Batch = dict[str, Any]


# Shapes and dtypes of a global batch.
Like = dict[str, jax.ShapeDtypeStruct]


class At(NamedTuple):
    """The place of a training step in its run; all of it is traced.

    Attributes:
      step: how many steps are done.
      steps: the length of the run.
      key: of the batch, the same in all parts of an accumulated step.
      keys: one a crop.
    """

    step: Int[Array, ""]
    steps: Int[Array, ""]
    key: Key[Array, ""]
    keys: Key[Array, " b"]


class Aux(NamedTuple):
    """What a loss gives beside its value; both are averaged over the parts of a step.

    Attributes:
      metrics: scalars, for the log.
      means: what `advance` needs, such as the mean of a teacher's outputs.
    """

    metrics: dict[str, Float[Array, ""]]
    means: PyTree = ()


@dataclasses.dataclass(frozen=True)
class Group:
    """How the optimizer treats a parameter.

    Attributes:
      part: of the network, such as `encoder`: what a config freezes.
      below: how many layers lie between it and the output of its part, for the layer-wise decay of
        the learning rate.
      decays: whether weight decay pulls it towards 0.
      rate: a factor of the learning rate.
    """

    part: str
    below: int = 0
    decays: bool = False
    rate: float = 1.0


@dataclasses.dataclass(frozen=True)
class Given:
    """What the rest of a config gives to a learner.

    Attributes:
      intensity_range: the raw intensities that become −1 and 1.
      compute: how networks are computed here.
      encoder: of `model.encoder`, or a learner's own part of a larger network.
      segmenter: makes the network of `model.segmenter`, which has the encoder in it, for so many
        logits a voxel.
      augmentation: of training crops; of none, if None.
      target: what a voxel is asked; None where the config has none.
    """

    intensity_range: tuple[float, float]
    compute: Compute
    encoder: Encoder
    segmenter: Callable[[int], Segmenter]
    augmentation: Augmentation | None = None
    target: Target | None = None


@dataclasses.dataclass(frozen=True)
class Learner:
    """What training minimises, and what is to be known of it.

    Pure: all that changes in a run is in parameters and state. A method overrides what it does
    otherwise.

    Attributes:
      given: what the rest of the config gives.
    """

    given: Given = given()

    # The fields of truth that it needs; none for learning without labels.
    reads = ()
    # Why a batch cannot be computed in parts without another meaning (contrast); "": it can.
    whole_batch = ""

    def init(self, key: Key[Array, ""], like: Like) -> PyTree:
        """First parameters, float32.

        Args:
          key: of the seed.
          like: shapes and dtypes of a global batch.

        Raises:
          ValueError: if the networks do not fit the crops.
        """
        raise NotImplementedError

    def begin(self, params: PyTree, like: Like) -> PyTree:
        """The learner's own state, such as a teacher, made once the first parameters are loaded."""
        del params, like
        return ()

    def loss(
        self, params: PyTree, state: PyTree, batch: Batch, at: At
    ) -> tuple[Float[Array, ""], Aux]:
        """What a training step minimises: a mean over the crops."""
        raise NotImplementedError

    def advance(self, state: PyTree, params: PyTree, aux: Aux, at: At) -> PyTree:
        """The state after a step, from the parameters that the optimizer made."""
        del params, aux, at
        return state

    def groups(self, params: PyTree) -> PyTree:
        """A `Group` for each parameter: its part is the first word of its path; kernels decay."""
        return group_by_path(params, self.given.encoder)

    def evaluate(
        self, params: PyTree, state: PyTree, batch: Batch, keys: Key[Array, " b"]
    ) -> dict[str, Float[Array, " b"]]:
        """Measures of held-out crops, one value a crop; the log has them as `eval_NAME`."""
        raise NotImplementedError

    def inputs(self, batch: Batch, at: At) -> dict[str, Shaped[Array, "b z y x"]]:
        """What a training step shows and asks, without a network: the contact sheet's columns.

        Volumes of floats are grey values from −1 to 1, NaN where nothing is shown. Volumes of whole
        numbers are ids, −1 where unlabelled, drawn over the volume before them.
        """
        raise NotImplementedError

    def pictures(
        self, params: PyTree, state: PyTree, batch: Batch, keys: Key[Array, " b"]
    ) -> dict[str, Shaped[Array, "b z y x"]]:
        """What the network makes of held-out crops, in columns as `inputs` has them."""
        raise NotImplementedError

    @staticmethod
    def transfer(params: PyTree, state: PyTree) -> PyTree:
        """What the next training starts from: parameters that its network has by the same names.

        Args:
          params: of a checkpoint; the average where the run kept one.
          state: the learner's own.
        """
        del state
        return params

    def image(self, batch: Batch) -> Float[Array, "b z y x"]:
        """The crops of a batch in [−1, 1]."""
        return scale_intensities(jnp.asarray(batch["image"]), self.given.intensity_range)

    def augmented_image(self, batch: Batch, keys: Key[Array, " b"]) -> Float[Array, "b z y x"]:
        """The crops in [−1, 1] as a training step without labels sees them.

        What augments a crop does not come from its key itself, which is left for masks.
        """
        image = self.image(batch)
        if self.given.augmentation is None:
            return image
        keys = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
        return self.given.augmentation.apply(keys, {"image": image})["image"]


def scale_intensities(
    crops: Shaped[Array, "*shape"], intensity_range: tuple[float, float]
) -> Float[Array, "*shape"]:
    """Raw intensities of any dtype as a network sees them: float32, the range made [−1, 1].

    What lies outside of the range is clipped to its ends.
    """
    low, high = intensity_range
    return jnp.clip((crops.astype(jnp.float32) - low) * (2 / (high - low)) - 1, -1, 1)


def drawing(
    show: Callable[..., dict[str, Any]], **options: Any
) -> Callable[..., dict[str, np.ndarray]]:
    """A learner's `inputs` or `pictures`, jitted; jit by itself would sort the columns by name.

    Args:
      show: the method.
      **options: of `jax.jit`.
    """
    names: list[str] = []

    def values(*arguments: Any) -> tuple[Any, ...]:
        columns = show(*arguments)
        names[:] = columns
        return tuple(columns.values())

    jitted = jax.jit(values, **options)

    def draw(*arguments: Any) -> dict[str, np.ndarray]:
        drawn = jax.device_get(jitted(*arguments))
        return dict(zip(names, drawn, strict=True))

    return draw


def group_by_path(params: PyTree, encoder: Encoder) -> PyTree:
    """Groups of a network whose part `encoder` is this one; all else is `below` 0."""
    below = jax.tree.map(lambda _: 0, params)
    if "encoder" in params:
        below = {**below, "encoder": encoder.below(params["encoder"])}

    def group(path: tuple[Any, ...], _, below: int) -> Group:
        names = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        return Group(names[0], below, decays=names[-1] == "kernel")

    return jax.tree_util.tree_map_with_path(group, params, below)
