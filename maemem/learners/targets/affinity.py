"""Affinities: do a voxel and its neighbour belong to the same instance (Turaga et al. 2010)?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Integer, Shaped

from maemem.geometry import View, Zyx
from maemem.learners.targets.contract import Decoder, Grid
from maemem.learners.targets.labels import UNLABELLED, erode, neighbour, remove_borders
from maemem.learners.targets.losses import balanced_bce, soft_dice
from maemem.segmentation.agglomeration import fragments
from maemem.segmentation.mutex import mutex_watershed
from maemem.segmentation.region_graph import SCORES, Merging

NEAREST: tuple[Zyx, ...] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
# The nearest three, and long-range ones that help to learn them (Lee et al. 2017).
LEE: tuple[Zyx, ...] = (
    *NEAREST,
    *((-step, 0, 0) for step in (2, 3, 4)),
    *((0, -step, 0) for step in (3, 9, 27)),
    *((0, 0, -step) for step in (3, 9, 27)),
)
OFFSETS = {"nearest": NEAREST, "lee": LEE}


@dataclasses.dataclass(frozen=True)
class Waterz(Decoder):
    """Watershed fragments of the nearest affinities, agglomerated as waterz does.

    Thresholds: affinities up to `low` join nothing, those from `high` on always join; fragments of
    `distance` mean otherwise, see `agglomeration.fragments`. Fragments merge where the `score` of
    the affinities between them is above `threshold`.

    Attributes:
      fragments: `steepest`, or `distance`: around what is far from membranes.
      sectionwise: fragments do not cross sections.
    """

    fragments: Literal["steepest", "distance"] = "steepest"
    sectionwise: bool = False

    merges: ClassVar[tuple[str, ...]] = ("score", "threshold")

    def grid(self) -> dict[str, tuple[Any, ...]]:
        """See `contract.Decoder.grid`."""
        return {
            "score": ("mean", "median", "quantile85"),
            "low": (0.05, 0.2, 0.4),
            "high": (0.98,),
            "threshold": (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        }

    def cut(
        self, prediction: Float[np.ndarray, "c z y x"], **thresholds: Any
    ) -> Integer[np.ndarray, "z y x"]:
        """Fragments, by `low` and `high`."""
        how = {"sectionwise": self.sectionwise, "method": self.fragments}
        return fragments(prediction, **thresholds, **how)

    def merging(self, **thresholds: Any) -> Merging:
        """Agglomeration, by `score` and `threshold`."""
        return Merging(**thresholds)

    def check(self, grid: Grid) -> None:
        """See `contract.Decoder.check`."""
        super().check(grid)
        if not set(grid["score"]) <= set(SCORES):
            raise ValueError(
                f"grid.score is {tuple(grid['score'])}; expected: some of {', '.join(SCORES)}"
            )
        if not max(grid["low"]) < min(grid["high"]):
            raise ValueError(
                f"grid.low is {tuple(grid['low'])} and grid.high {tuple(grid['high'])}; expected: "
                f"0 <= low < high of every pair"
            )


@dataclasses.dataclass(frozen=True)
class Mutex(Decoder):
    """The mutex watershed (Wolf et al. 2018), for long-range affinities.

    Thresholds: nearest voxels attract above `nearest_bias` and repel below, voxels further apart
    above and below `long_bias`; voxels whose nearest affinities have a mean below `background` are
    background.
    """

    def __post_init__(self) -> None:
        if len(self.target.offsets_zyx) < 4:
            raise ValueError(
                "mutex needs long-range affinities besides the nearest three; set "
                "--config.target.offsets=lee"
            )

    def grid(self) -> dict[str, tuple[Any, ...]]:
        """See `contract.Decoder.grid`."""
        return {
            "nearest_bias": (0.2, 0.4, 0.6),
            "long_bias": (0.5, 0.7, 0.9),
            "background": (0.0, 0.2),
        }

    def cut(
        self, prediction: Float[np.ndarray, "c z y x"], **thresholds: Any
    ) -> Integer[np.ndarray, "z y x"]:
        """Objects, by all thresholds."""
        return mutex_watershed(prediction, self.target.offsets_zyx, **thresholds)


@dataclasses.dataclass(frozen=True)
class Affinity:
    """Predicts, for each offset, whether both ends of an edge lie in one instance.

    Channel k at voxel v is the edge between v and v + offset k, as waterz and mwatershed have it.

    Attributes:
      offsets: one offset zyx a channel, in voxels; or `nearest`, or `lee`: nine long-range ones
        beside these (Lee et al. 2017). An edge is the same from both of its ends, so no two may be
        equal or opposite.
      bce: weight of the class-balanced cross-entropy.
      dice: weight of the soft Dice loss.
      long_range_weight: weight of a channel other than the six nearest neighbours', which have 1.
      erosion: voxels to take off each instance, see `labels.erode`.
      remove_borders: whether touching instances are parted first, see `labels.remove_borders`.
      in_plane: whether these two look at a section alone, or, of isotropic voxels, all around.
    """

    offsets: Literal["nearest", "lee"] | tuple[Zyx, ...] = "nearest"
    bce: float = 1.0
    dice: float = 0.5
    long_range_weight: float = 1.0
    erosion: int = 0
    remove_borders: bool = False
    in_plane: bool = True

    decoders: ClassVar = {"waterz": Waterz, "mutex": Mutex}

    def __post_init__(self) -> None:
        if isinstance(self.offsets, str) and self.offsets not in OFFSETS:
            raise ValueError(
                f"offsets is {self.offsets!r}; expected: {' or '.join(OFFSETS)}, or offsets zyx"
            )
        edges = [frozenset({offset, _opposite(offset)}) for offset in self.offsets_zyx]
        if not edges or frozenset({(0, 0, 0)}) in edges or len(set(edges)) < len(edges):
            raise ValueError(
                f"offsets {self.offsets_zyx} must be one or more, none of them (0, 0, 0), and "
                "no two equal or opposite; name each edge once, as NEAREST does"
            )
        if self.long_range_weight <= 0 or self.erosion < 0:
            raise ValueError(
                f"long_range_weight {self.long_range_weight} must be above 0 (drop the offsets to "
                f"do without them), and erosion {self.erosion} not below 0"
            )

    @property
    def reads(self) -> tuple[str, ...]:
        """Instances."""
        return ("labels",)

    @property
    def offsets_zyx(self) -> tuple[Zyx, ...]:
        """One offset a channel, in voxels."""
        return OFFSETS[self.offsets] if isinstance(self.offsets, str) else self.offsets

    @property
    def channels(self) -> tuple[str, ...]:
        """Each channel's name, such as `z-1`."""
        return tuple(
            "".join(f"{axis}{step:+d}" for axis, step in zip("zyx", offset, strict=True) if step)
            for offset in self.offsets_zyx
        )

    def targets(
        self, truth: Mapping[str, Shaped[Array, "b z y x"]]
    ) -> tuple[Float32[Array, "b z y x c"], Float32[Array, "b z y x c"]]:
        """The true affinities, and their weights: 1 where they are known, else 0.

        1 where both ends have the same id, 0 where they have two or one is background. Unknown
        where an end is unlabelled or outside of the crop; the affinity is 0 there.
        """
        labels = truth["labels"]
        if self.remove_borders:
            labels = remove_borders(labels, self.in_plane)
        if self.erosion:
            labels = erode(labels, self.erosion, self.in_plane)
        inside, labelled = labels > 0, labels != UNLABELLED
        ends = [neighbour(labels, offset, UNLABELLED) for offset in self.offsets_zyx]
        same = jnp.stack([inside & (labels == end) for end in ends], axis=-1)
        known = jnp.stack([labelled & (end != UNLABELLED) for end in ends], axis=-1)
        return same.astype(jnp.float32), known.astype(jnp.float32)

    def loss(
        self,
        logits: Float[Array, "b z y x c"],
        maps: Float32[Array, "b z y x c"],
        weight: Float32[Array, "b z y x c"],
    ) -> Float32[Array, " b"]:
        """Each crop's loss: the weighted mean over channels of cross-entropy and Dice.

        Both look at known edges only, and a channel without any counts as 0.
        """
        losses = self.bce * balanced_bce(logits, maps, weight)
        losses += self.dice * soft_dice(logits, maps, weight)
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
