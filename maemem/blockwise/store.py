"""Predictions `[c z y x]` and labels `[z y x]` on disk.

Both are OME-Zarr 0.5 images that record their position in the volume they were made from; boxes are
in voxels of that volume.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from maemem.data.stores import damage, ledger, omezarr
from maemem.data.stores.formats import VoxelSize
from maemem.data.stores.volumes import UNFINISHED_SUFFIX, check_voxel_size
from maemem.durable import write_durably
from maemem.geometry import Box

log = logging.getLogger(__name__)

PREDICTION_DTYPES = ("uint8", "float16", "float32")

_MEND = "delete it, and run the stage that writes it again"

# The key of our attributes beside OME's.
_OWN = "maemem"


@dataclasses.dataclass(frozen=True)
class Stored:
    """A prediction or a label volume on disk, ready to be read."""

    path: Path
    store: ts.TensorStore  # [c z y x] or [z y x], its origin at 0
    channels: tuple[str, ...]  # names; empty for labels
    region: Box  # in voxels of the volume that it was made from
    voxel_size_nm: VoxelSize  # z y x
    attributes: dict[str, Any]  # its source and settings

    def read(self, box: Box | None = None) -> np.ndarray:
        """The values in a box, in voxels of the volume; None is all.

        Raises:
          ValueError: if the box leaves the region, or data are damaged or lost.
        """
        wanted = box or self.region
        if min(wanted.shape_zyx) < 1 or not self.region.contains(wanted):
            raise ValueError(
                f"the box [{wanted}] is empty or leaves the region [{self.region}] that is stored; "
                f"choose one inside it, or predict a larger region"
            )
        z, y, x = (-n for n in self.region.start_zyx)
        with damage.naming_file(self.path, _MEND):
            return self.store[(..., *wanted.moved((z, y, x)).slices)].read(order="C").result()

    def read_probabilities(self, box: Box | None = None) -> np.ndarray:
        """The probabilities in a box of a prediction: float32 `[c z y x]`, in [0, 1].

        Raises:
          ValueError: if the box leaves the region.
        """
        values = self.read(box)
        if values.dtype == np.uint8:
            return values * np.float32(1 / 255)
        return values.astype(np.float32)


def open_prediction(path: str | Path) -> Stored:
    """Opens a prediction that `predict.predict_volume` wrote.

    Raises:
      FileNotFoundError: if there is none.
      ValueError: if it is unfinished, or something else.
    """
    stored = _open(local_path(path))
    if not stored.channels:
        raise ValueError(f"{path} holds labels, expected a prediction, which has named channels")
    return stored


def read_prediction(path: str | Path, box: Box | None = None) -> np.ndarray:
    """The probabilities in a box, in voxels of the volume: float32 `[c z y x]`, in [0, 1].

    Raises:
      FileNotFoundError, ValueError: as `open_prediction` and `Stored.read` do.
    """
    return open_prediction(path).read_probabilities(box)


def keep(target: Path, wanted: Mapping[str, Any]) -> None:
    """Keeps a finished prediction that has the wanted attributes.

    Raises:
      FileExistsError: if it has others, naming the differences, or is something else.
    """
    try:
        found = open_prediction(target).attributes
    except (FileNotFoundError, ValueError) as error:
        raise FileExistsError(
            f"{target} exists and is no finished prediction: {error}. Delete it, or choose another "
            f"output"
        ) from None
    if differing := ledger.differences(found, dict(wanted)):
        raise FileExistsError(
            f"{target} holds a prediction made with other settings ({differing}); delete it, or "
            f"choose another output"
        )
    ledger.tidy(target)
    log.info("%s exists, with the same settings; it is kept", target)


def open_labels(path: str | Path) -> Stored:
    """Opens a label volume that `segment.segment_volume` wrote.

    Raises:
      FileNotFoundError: if there is none.
      ValueError: if it is unfinished, or something else.
    """
    stored = _open(local_path(path))
    if stored.channels:
        raise ValueError(f"{path} holds a prediction, expected labels; segment it first")
    return stored


def read_labels(path: str | Path, box: Box | None = None) -> np.ndarray:
    """The labels in a box, in voxels of the volume: uint32 `[z y x]`.

    Raises:
      FileNotFoundError, ValueError: as `open_labels` and `Stored.read` do.
    """
    return open_labels(path).read(box)


def local_path(path: str | Path) -> Path:
    """The full path of a folder.

    Raises:
      ValueError: if it is a URL.
    """
    if "://" in str(path):
        raise ValueError(f"{path} is a URL, expected a local folder: write to one, and copy it")
    return Path(path).expanduser().resolve()


def unfinished(target: Path) -> Path:
    """The folder that a result is written to until it is complete."""
    return target.with_name(target.name + UNFINISHED_SUFFIX)


def publish(
    partial: Path,
    target: Path,
    voxel_size_nm: VoxelSize,
    region: Box,
    attributes: Mapping[str, Any],
    channels: Sequence[str] = (),
) -> None:
    """Completes a partial result with a written array: writes metadata, then renames it."""
    own = {
        "start_zyx": region.start_zyx,
        "channels": channels,
        "attributes": dict(attributes),
    }
    group = omezarr.group_metadata(
        target.stem,
        voxel_size_nm,
        start_zyx=region.start_zyx,
        channels=bool(channels),
        attributes={_OWN: own},
    )
    write_durably(partial / "zarr.json", json.dumps(group, indent=1))
    ledger.publish(partial, target)


def _open(folder: Path) -> Stored:
    metadata = folder / "zarr.json"
    if not metadata.exists():
        if unfinished(folder).exists():
            raise ValueError(f"{folder} is not finished; run the command that began it again")
        raise FileNotFoundError(f"there is no prediction and no label volume at {folder}")
    with damage.naming_file(folder, _MEND):
        attributes = json.loads(metadata.read_bytes()).get("attributes", {})
        if _OWN not in attributes:
            raise ValueError(
                f"{folder} was not written by maemem's prediction or segmentation; open other "
                f"volumes with maemem.data.stores.volumes.open_volume"
            )
        own = attributes[_OWN]
        (image,) = attributes["ome"]["multiscales"]
        scale = image["datasets"][0]["coordinateTransformations"][0]["scale"]
        # Zeros are written too, so missing chunks were lost.
        spec = {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": f"{folder}/0/"},
            "fill_missing_data_reads": False,
        }
        store = ts.open(spec, open=True, read=True).result()
        *_, z, y, x = store.shape
        z0, y0, x0 = own["start_zyx"]
        region = Box((0, 0, 0), (z, y, x)).moved((z0, y0, x0))
        *_, dz, dy, dx = scale
        voxel = check_voxel_size((dz, dy, dx))
        return Stored(folder, store, tuple(own["channels"]), region, voxel, dict(own["attributes"]))
