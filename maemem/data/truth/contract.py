"""The contract of truth: what training reads of it crop by crop, and what scores read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import tensorstore as ts

from maemem.data.stores.volumes import Volume
from maemem.geometry import Box, Zyx


class Origin(NamedTuple):
    """Where truth is opened from.

    Attributes:
      path: as the config has it, with the scheme of its kind.
      root: what a relative path starts from.
      image: the whole volume that it belongs to; truth has its shape and its voxel size.
      unlabelled: the id of voxels that nobody labelled; −1: none but negative ids.
      open_volume: opens a whole volume of ids at such a path, binned as the image is.
    """

    path: str
    root: str
    image: Volume
    unlabelled: int
    open_volume: Callable[[str], Volume]


class Truth(Protocol):
    """What is known of a volume, or of a region of one.

    It can be pickled wherever its volume can: processes that score blocks get it so.
    """

    @property
    def fields(self) -> tuple[str, ...]:
        """What `begin` can give, such as `labels`."""
        ...

    @property
    def shape_zyx(self) -> Zyx:
        """Its extent, in voxels."""
        ...

    @classmethod
    def open(cls, origin: Origin) -> Truth:
        """Opens the whole of it.

        Raises:
          ValueError: if it does not fit its image.
          FileNotFoundError: if its path does not exist.
        """
        ...

    def cut(self, region: str) -> Truth:
        """A part of it, as `Volume.cut` has it.

        Raises:
          ValueError: if the region is malformed or leaves the volume.
        """
        ...

    def begin(
        self, box: Box, fields: Sequence[str], batch: ts.Batch
    ) -> Callable[[], dict[str, np.ndarray]]:
        """Begins to read a crop.

        Args:
          box: in voxels of this truth.
          fields: which of its fields to read.
          batch: that reads are submitted with, once it is closed.

        Returns:
          What waits for the fields, to be called after the batch is closed. Arrays `[z y x]` of
          integers follow the image from voxel to nearest voxel when it is augmented, floats are
          interpolated. `labels` are int32: 0 background, −1 unlabelled, instances above, whose ids
          count within the crop. It raises what `Volume.begin` does.
        """
        ...

    def read(self, box: Box) -> np.ndarray:
        """Ids `[z y x]` for scores: integers, the same in every box; −1 where unlabelled.

        Args:
          box: in voxels of this truth.

        Raises:
          ValueError, FileNotFoundError: as `Volume.read`.
        """
        ...
