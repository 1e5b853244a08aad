"""Binary mask, contour and distance: BCD (Lin et al. 2021), and BC without distance (Wei 2020)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32, Integer, Shaped

from maemem.geometry import View, Zyx
from maemem.learners.targets.contract import Decoder
from maemem.learners.targets.labels import (
    UNLABELLED,
    distance_to_other,
    neighbour,
    remove_borders,
    window,
)
from maemem.learners.targets.losses import balanced_bce, soft_dice, squared_error
from maemem.segmentation.markers import MarkerThresholds, marker_watershed

# Voxels over which the distance saturates, inside and outside of instances.
FOREGROUND_SCALE, BACKGROUND_SCALE = 8.0, 50.0


@dataclasses.dataclass(frozen=True)
class Markers(Decoder):
    """A watershed from markers: seeds well inside of objects (Wei et al. 2020).

    For its thresholds see `markers.MarkerThresholds`; those of distance are left out where none is
    predicted.

    Attributes:
      smallest_seed: seeds of fewer voxels are dropped, as PyTorch Connectomics does.
    """

    smallest_seed: int = 32

    def grid(self) -> dict[str, tuple[Any, ...]]:
        """See `contract.Decoder.grid`."""
        found: dict[str, tuple[Any, ...]] = {
            "seed_binary": (0.7, 0.8, 0.9),
            "seed_contour": (0.5, 0.8),
            "mask_binary": (0.5, 0.7, 0.85),
        }
        if self.target.distance:
            found |= {"seed_distance": (0.3, 0.5), "mask_distance": (0.0,)}
        return found

    def cut(
        self, prediction: Float[np.ndarray, "c z y x"], **thresholds: Any
    ) -> Integer[np.ndarray, "z y x"]:
        """Objects, by all thresholds."""
        chosen = MarkerThresholds(**thresholds, smallest=0, smallest_seed=self.smallest_seed)
        return marker_watershed(prediction, chosen)


@dataclasses.dataclass(frozen=True)
class Bcd:
    """Predicts three maps, from which a marker watershed makes instances.

    - binary: 1 in instances, touching ones alike.
    - contour: 1 around edges between different labels, background among them, in plane.
    - distance: tanh(d / 8) inside of instances, d voxels from the nearest background voxel in
      plane, and −tanh(d / 50) outside, d voxels from the nearest instance. Without any in its
      section d is infinite, so the distance is 1 or −1.

    The sides of a crop are neither edge nor background.

    Attributes:
      distance: whether the third is predicted, or binary and contour alone.
      contour_width: voxels by which the voxels on both sides of an edge are dilated, in plane.
      remove_borders: whether touching instances are parted first, see `labels.remove_borders`;
        dense tissue without it has no background for a distance.
      bce: weight of the class-balanced cross-entropy, of binary and contour.
      dice: weight of their soft Dice loss.
      mse: weight of the squared error of the distance.
    """

    distance: bool = True
    contour_width: int = 1
    remove_borders: bool = False
    bce: float = 1.0
    dice: float = 0.5
    mse: float = 5.0

    decoders: ClassVar = {"markers": Markers}

    def __post_init__(self) -> None:
        if self.contour_width < 0:
            raise ValueError(f"contour_width {self.contour_width} must be 0 voxels or more")

    @property
    def channels(self) -> tuple[str, ...]:
        """Each channel's name."""
        return ("binary", "contour", "distance")[: 3 if self.distance else 2]

    @property
    def reads(self) -> tuple[str, ...]:
        """Instances."""
        return ("labels",)

    def targets(
        self, truth: Mapping[str, Shaped[Array, "b z y x"]]
    ) -> tuple[Float32[Array, "b z y x c"], Float32[Array, "b z y x c"]]:
        """The true maps, in [0, 1] as `activate` has them, with weight 1 where known, else 0.

        All are known in labelled voxels only, and two of them only where no label that is missing
        could change them: a contour where a certain edge is within reach or no unlabelled voxel is,
        a distance where no unlabelled voxel is nearer than what it measures to.
        """
        labels = truth["labels"]
        if self.remove_borders:
            labels = remove_borders(labels)
        labelled = labels != UNLABELLED
        maps = [(labels > 0, labelled), contour(labels, self.contour_width)]
        if self.distance:
            distance, certain = signed_distance(labels)
            maps.append(((distance + 1) / 2, certain))
        targets, known = (
            jnp.stack([each.astype(jnp.float32) for each in pair], axis=-1)
            for pair in zip(*maps, strict=True)
        )
        return targets, known

    def loss(
        self,
        logits: Float[Array, "b z y x c"],
        maps: Float32[Array, "b z y x c"],
        weight: Float32[Array, "b z y x c"],
    ) -> Float32[Array, " b"]:
        """Each crop's loss, the sum of its channels': cross-entropy and Dice, or squared error.

        The distance is predicted as tanh(logit).
        """
        masks = logits[..., :2], maps[..., :2], weight[..., :2]
        losses = self.bce * balanced_bce(*masks) + self.dice * soft_dice(*masks)
        distance = jnp.tanh(logits[..., 2:].astype(jnp.float32))
        # Without a distance these have no channel, and their sum is 0.
        errors = squared_error(distance, 2 * maps[..., 2:] - 1, weight[..., 2:])
        return losses.sum(-1) + self.mse * errors.sum(-1)

    def activate(self, logits: Float[Array, "b z y x c"]) -> Float32[Array, "b z y x c"]:
        """All channels in [0, 1]: the distance as (tanh + 1) / 2, so 0.5 is an instance's edge."""
        # (tanh(a) + 1) / 2 = sigmoid(2a)
        factors = jnp.array([1.0, 1.0, 2.0][: len(self.channels)])
        return jax.nn.sigmoid(logits.astype(jnp.float32) * factors)

    def check_crop(self, name: str, shape_zyx: Zyx) -> None:
        """Crops of any size will do: no channel looks beyond a voxel's own."""

    def admits(self, view: View) -> bool:
        """Whether `undo` can turn back what was predicted in this view: sections are still such."""
        return view.axes_zyx[0] == 0

    def undo(
        self, prediction: Float[Array, "b vz vy vx c"], view: View
    ) -> tuple[Float[Array, "b z y x c"], Bool[Array, "z y x c"]]:
        """Turns back what was predicted on crops in a view.

        Args:
          prediction: logits or maps of the view.
          view: how the crops were turned; static under jit.

        Returns:
          The same of the crops as they were, and which voxels are known: all.

        Raises:
          ValueError: if the view moves the z axis, since contour and distance are in plane.
        """
        if not self.admits(view):
            raise ValueError(
                f"{view} moves the z axis, but {', '.join(self.channels)} are defined in sections; "
                "use views whose axes_zyx are (0, 1, 2) or (0, 2, 1)"
            )
        back = view.invert(prediction, trailing=1)
        return back, jnp.ones(back.shape[1:], bool)


def contour(
    labels: Int32[Array, "b z y x"], width: int
) -> tuple[Bool[Array, "b z y x"], Bool[Array, "b z y x"]]:
    """Where labels change in plane, and where that is known (see `Bcd.targets`).

    A voxel is on an edge if one of its four neighbours in plane has another label; edges are then
    dilated by a square of 2 width + 1 voxels.
    """
    outside = UNLABELLED - 1
    edge = jnp.zeros(labels.shape, bool)
    unsure = labels == UNLABELLED
    for offset in ((0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1)):
        other = neighbour(labels, offset, outside)
        edge |= (labels != other) & (labels >= 0) & (other >= 0)
        unsure |= other == UNLABELLED
    # As two bits, both are dilated in one go.
    marks = window(edge.astype(jnp.uint8) | unsure.astype(jnp.uint8) << 1, width, jnp.bitwise_or, 0)
    edge, unsure = marks & 1 > 0, marks & 2 > 0
    return edge, (labels != UNLABELLED) & (edge | ~unsure)


def signed_distance(
    labels: Int32[Array, "b z y x"],
) -> tuple[Float32[Array, "b z y x"], Bool[Array, "b z y x"]]:
    """The distance of `Bcd`, in [−1, 1], and where it is known.

    Where it is not, it is that to an unlabelled voxel; 0 in these.
    """
    distance, known = distance_to_other(labels)
    signed = jnp.where(labels > 0, distance / FOREGROUND_SCALE, -distance / BACKGROUND_SCALE)
    return jnp.tanh(signed), known
