"""Truth as a volume of instance ids, one a voxel."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import fastremap
import numpy as np
import tensorstore as ts

from maemem.data.stores.volumes import Volume
from maemem.data.truth.contract import Origin
from maemem.geometry import Box, Zyx, format_zyx


@dataclasses.dataclass(frozen=True)
class LabelVolume:
    """Instance ids of the shape of their image; 0 is background, negative ids are unlabelled.

    Attributes:
      volume: of ids.
      unlabelled: another id that marks what nobody labelled; −1: none.
    """

    volume: Volume
    unlabelled: int = -1

    fields = ("labels",)

    @property
    def shape_zyx(self) -> Zyx:
        """Its extent, in voxels."""
        return self.volume.shape_zyx

    @classmethod
    def open(cls, origin: Origin) -> LabelVolume:
        """Opens the labels of a whole volume.

        Raises:
          ValueError: if they are of another shape than the image, or no ids.
          FileNotFoundError: if their path does not exist.
        """
        labels, image = origin.open_volume(origin.path), origin.image
        if labels.shape_zyx != image.shape_zyx:
            raise ValueError(
                f"the labels {labels.source} have shape zyx {format_zyx(labels.shape_zyx)}, and "
                f"their volume {image.source} has {format_zyx(image.shape_zyx)}; expected the same"
            )
        if not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"the labels {labels.source} hold {labels.dtype}; expected whole ids")
        return cls(labels, origin.unlabelled)

    def cut(self, region: str) -> LabelVolume:
        """The labels of a part; raises what `Volume.cut` does."""
        return dataclasses.replace(self, volume=self.volume.cut(region))

    def begin(
        self, box: Box, fields: Sequence[str], batch: ts.Batch
    ) -> Callable[[], dict[str, np.ndarray]]:
        """Begins to read the labels of a crop; see `Truth.begin`."""
        del fields  # There is only one.
        finish = self.volume.begin(box, batch)
        return lambda: {"labels": renumber(finish(), self.unlabelled)}

    def read(self, box: Box) -> np.ndarray:
        """Ids as they are stored, −1 where unlabelled; int64 where `unlabelled` names an id."""
        ids = self.volume.read(box)
        if np.issubdtype(ids.dtype, np.signedinteger):
            ids = np.maximum(ids, -1)
        if self.unlabelled < 0:
            return ids
        return np.where(ids == self.unlabelled, -1, ids.astype(np.int64))


def renumber(labels: np.ndarray, unlabelled: int) -> np.ndarray:
    """Ids of any dtype as int32.

    0 stays 0, the id `unlabelled` and all negative ids become −1, others become numbers from 1 on.
    """
    renumbered, _ = fastremap.renumber(labels, preserve_zero=True, in_place=False)
    renumbered = renumbered.astype(np.int32)
    if unlabelled >= 0:
        renumbered[labels == unlabelled] = -1
    if np.issubdtype(labels.dtype, np.signedinteger):
        renumbered[labels < 0] = -1
    return renumbered
