"""What a target is: what a network predicts of every voxel, and how that is undone and decoded."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, Integer, Shaped

from maemem.fields import given
from maemem.geometry import View, Zyx
from maemem.segmentation.region_graph import Merging

Prediction = Float[Array, "b z y x c"]
Thresholds = dict[str, Any]
Grid = Mapping[str, Sequence[Any]]


@runtime_checkable
class Target(Protocol):
    """What a voxel is asked; a frozen dataclass whose fields are its config section.

    Attributes:
      decoders: what can make objects of its predictions, by name.
    """

    decoders: ClassVar[Mapping[str, type[Decoder]]]

    @property
    def channels(self) -> tuple[str, ...]:
        """The names of what is predicted."""
        ...

    @property
    def reads(self) -> tuple[str, ...]:
        """The fields of truth that it needs."""
        ...

    def targets(
        self, truth: Mapping[str, Shaped[Array, "b z y x"]]
    ) -> tuple[Prediction, Float[Array, "b z y x c"]]:
        """What should be predicted, and its weight in the loss.

        Args:
          truth: a batch that has the fields it reads.

        Returns:
          Float32 maps and weights: 0 where the truth is unknown, 1 where it is known, between where
          it is unsure.
        """
        ...

    def loss(
        self, logits: Prediction, maps: Prediction, weight: Float[Array, "b z y x c"]
    ) -> Float[Array, " b"]:
        """Of each crop."""
        ...

    def activate(self, logits: Prediction) -> Prediction:
        """Logits as probabilities, in [0, 1]."""
        ...

    def check_crop(self, name: str, shape_zyx: Zyx) -> None:
        """Raises ValueError if crops of this shape, a field called `name`, are too small."""
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
class Decoder:
    """What makes objects of a prediction: cuts it into pieces, and says which of these are one.

    A volume is cut block by block, and once for all ways to merge its pieces. Attributes of a kind
    are its config section.

    Attributes:
      target: what the prediction is of.
      merges: the names of the thresholds that decide which pieces are one object.
    """

    target: Any = given()
    merges: ClassVar[tuple[str, ...]] = ()

    @property
    def cuts(self) -> tuple[str, ...]:
        """The names of the thresholds that decide the pieces."""
        return tuple(name for name in self.grid() if name not in self.merges)

    def grid(self) -> dict[str, tuple[Any, ...]]:
        """The values to try of each threshold, unless a config says others."""
        raise NotImplementedError

    def cut(
        self, prediction: Float[np.ndarray, "c z y x"], **thresholds: Any
    ) -> Integer[np.ndarray, "z y x"]:
        """The pieces of a prediction in [0, 1] by `cuts`: ids, 0 for background."""
        raise NotImplementedError

    def merging(self, **thresholds: Any) -> Merging | None:
        """Which pieces are one object by `merges`; None: each is one."""
        del thresholds

    def check(self, grid: Grid) -> None:
        """Checks that a grid names all thresholds, and possible values of each.

        Raises:
          ValueError: if it does not; it begins with the name of what is wrong.
        """
        expected = self.grid()
        listed = all(isinstance(values, tuple | list) and values for values in grid.values())
        if set(grid) != set(expected) or not listed:
            raise ValueError(
                f"grid is {dict(grid)}; expected: one or more values of each of "
                f"{', '.join(expected)}"
            )
        for name, values in grid.items():
            if isinstance(expected[name][0], str):
                continue
            if not all(isinstance(value, int | float) and 0 <= value < 2**32 for value in values):
                raise ValueError(f"grid.{name} is {tuple(values)}; expected: numbers from 0 on")


def combinations(grid: Grid, names: Sequence[str]) -> Iterator[Thresholds]:
    """All combinations of the values of these thresholds."""
    for values in itertools.product(*(grid[name] for name in names)):
        yield dict(zip(names, values, strict=True))
