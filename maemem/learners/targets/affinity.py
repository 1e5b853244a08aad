"""Affinities: do a voxel and its neighbour belong to the same instance (Turaga et al. 2010)?"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int32

from maemem.geometry import View, Zyx
from maemem.learners.targets.labels import UNLABELLED, erode, neighbour, remove_borders
from maemem.learners.targets.losses import balanced_bce, soft_dice

NEAREST: tuple[Zyx, ...] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
# The nearest three, and long-range ones that help to learn them (Lee et al. 2017).
LEE: tuple[Zyx, ...] = (
    *NEAREST,
    *((-step, 0, 0) for step in (2, 3, 4)),
    *((0, -step, 0) for step in (3, 9, 27)),
    *((0, 0, -step) for step in (3, 9, 27)),
)


@dataclasses.dataclass(frozen=True)
class Affinity:
    """Predicts, for each offset, whether both ends of an edge lie in one instance.

    Channel k at voxel v is the edge between v and v + offset k, as waterz and mwatershed have it.

    Attributes:
      offsets_zyx: one offset a channel, in voxels. An edge is the same from both of its ends, so no
        two may be equal or opposite.
      bce: weight of the class-balanced cross-entropy.
      dice: weight of the soft Dice loss.
      long_range_weight: weight of a channel other than the six nearest neighbours', which have 1.
      erosion: voxels to take off each instance, see `labels.erode`.
      remove_borders: whether touching instances are parted first, see `labels.remove_borders`.
      in_plane: whether these two look at a section alone, or, of isotropic voxels, all around.
    """

    offsets_zyx: tuple[Zyx, ...] = NEAREST
    bce: float = 1.0
    dice: float = 0.5
    long_range_weight: float = 1.0
    erosion: int = 0
    remove_borders: bool = False
    in_plane: bool = True

    def __post_init__(self) -> None:
        edges = [frozenset({offset, _opposite(offset)}) for offset in self.offsets_zyx]
        if not edges or frozenset({(0, 0, 0)}) in edges or len(set(edges)) < len(edges):
            raise ValueError(
                f"offsets_zyx {self.offsets_zyx} must be one or more, none of them (0, 0, 0), and "
                "no two equal or opposite; name each edge once, as NEAREST does"
            )
        if self.long_range_weight <= 0 or self.erosion < 0:
            raise ValueError(
                f"long_range_weight {self.long_range_weight} must be above 0 (drop the offsets to "
                f"do without them), and erosion {self.erosion} not below 0"
            )

    @property
    def channels(self) -> tuple[str, ...]:
        """Each channel's name, such as `z-1`."""
        return tuple(
            "".join(f"{axis}{step:+d}" for axis, step in zip("zyx", offset, strict=True) if step)
            for offset in self.offsets_zyx
        )

    def targets(
        self, labels: Int32[Array, "b z y x"]
    ) -> tuple[Float32[Array, "b z y x c"], Bool[Array, "b z y x c"]]:
        """The true affinities, and which of them are known.

        1 where both ends have the same id, 0 where they have two or one is background. Unknown
        where an end is unlabelled or outside of the crop; the affinity is 0 there.
        """
        if self.remove_borders:
            labels = remove_borders(labels, self.in_plane)
        if self.erosion:
            labels = erode(labels, self.erosion, self.in_plane)
        inside, labelled = labels > 0, labels != UNLABELLED
        ends = [neighbour(labels, offset, UNLABELLED) for offset in self.offsets_zyx]
        same = jnp.stack([inside & (labels == end) for end in ends], axis=-1)
        known = jnp.stack([labelled & (end != UNLABELLED) for end in ends], axis=-1)
        return same.astype(jnp.float32), known

    def loss(
        self, logits: Float[Array, "b z y x c"], labels: Int32[Array, "b z y x"]
    ) -> Float32[Array, " b"]:
        """Each crop's loss: the weighted mean over channels of cross-entropy and Dice.

        Both look at known edges only, and a channel without any counts as 0.
        """
        targets, known = self.targets(labels)
        losses = self.bce * balanced_bce(logits, targets, known)
        losses += self.dice * soft_dice(logits, targets, known)
        near = [sum(map(abs, offset)) == 1 for offset in self.offsets_zyx]
        weights = jnp.where(jnp.array(near), 1.0, self.long_range_weight)
        return (losses * weights).sum(-1) / weights.sum()

    def activate(self, logits: Float[Array, "b z y x c"]) -> Float32[Array, "b z y x c"]:
        """Affinities in [0, 1]."""
        return jax.nn.sigmoid(logits.astype(jnp.float32))

    def check_crop(self, name: str, shape_zyx: Zyx) -> None:
        """Checks that crops are large enough for each channel to have an edge inside of them.

        Raises:
          ValueError: if one has none: it would never be learnt, nor its prediction mean anything.
        """
        for channel, offset in zip(self.channels, self.offsets_zyx, strict=True):
            if any(abs(step) >= size for step, size in zip(offset, shape_zyx, strict=True)):
                raise ValueError(
                    f"{name} {tuple(shape_zyx)} is too small for the offset {channel}: no edge as "
                    f"long lies inside of it; choose a larger one, or the offsets nearest"
                )

    def admits(self, view: View) -> bool:
        """Whether `undo` can turn back what was predicted in this view."""
        # What is done to labels in plane is done to other voxels where other planes are sections.
        flat = self.in_plane and (self.remove_borders or self.erosion > 0)
        turns = view.axes_zyx[0] == 0 or not flat
        return turns and all(
            {turned, _opposite(turned)} & set(self.offsets_zyx)
            for turned in map(view.offset, self.offsets_zyx)
        )

    def undo(
        self, prediction: Float[Array, "b vz vy vx c"], view: View
    ) -> tuple[Float[Array, "b z y x c"], Bool[Array, "z y x c"]]:
        """Turns back what was predicted on crops in a view: voxels, and channels with them.

        Where a flip makes an edge's other end its first, its affinity moves to that end's voxel.

        Args:
          prediction: affinities or logits of the view.
          view: how the crops were turned; static under jit.

        Returns:
          The same of the crops as they were, and which are known: those whose edge stays inside.

        Raises:
          ValueError: if the view turns an offset into one that no channel has, or it moves the z
            axis while `erosion` or `remove_borders` treat sections alone.
        """
        if not self.admits(view):
            raise ValueError(
                f"{view} turns the edges {self.channels} into others, or the planes in which "
                "labels were eroded or parted; use views that keep the z axis, and offsets alike "
                "along the axes that views exchange"
            )
        back = view.invert(prediction, trailing=1)
        inside = jnp.ones((1, *back.shape[1:4]), bool)
        values, known = [], []
        for offset in self.offsets_zyx:
            turned = view.offset(offset)
            if turned in self.offsets_zyx:
                values.append(back[..., self.offsets_zyx.index(turned)])
            else:
                opposite = back[..., self.offsets_zyx.index(_opposite(turned))]
                values.append(neighbour(opposite, offset, 0))
            known.append(neighbour(inside, offset, False)[0])
        return jnp.stack(values, axis=-1), jnp.stack(known, axis=-1)


def _opposite(offset_zyx: Zyx) -> Zyx:
    """The same edge, seen from its other end."""
    z, y, x = offset_zyx
    return -z, -y, -x
