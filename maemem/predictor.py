"""A fine-tuned network for use from Python: arrays in, arrays out; see `maemem.load`."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorstore as ts

from maemem.assembly.networks import intensity_range
from maemem.assembly.volumes import INTENSITIES
from maemem.blockwise.store import Stored, open_labels, open_prediction
from maemem.data.stores.damage import read_json
from maemem.data.stores.formats import VoxelSize
from maemem.data.stores.volumes import Volume, check_voxel_size
from maemem.geometry import Box, format_zyx
from maemem.layout import NETWORK
from maemem.stages.predict import (
    Network,
    network_parameters,
    open_network,
    same_voxel_size,
    trained_voxel_size,
    write_prediction,
)
from maemem.stages.segment import write_labels
from maemem.stages.thresholds import thresholds_path
from maemem.training.model_folder import is_model
from maemem.workdir import read_config, read_record


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A fine-tuned network, and thresholds tuned on the validation set.

    It runs the stages predict and segment in a temporary folder, so results equal theirs.

    Attributes:
      folder: a workdir or a model folder.
      channels: names of the predicted channels.
      voxel_size_nm: of the training volumes, before binning, z y x.
      thresholds: for decoding; None if none were tuned.
    """

    folder: pathlib.Path
    channels: tuple[str, ...]
    voxel_size_nm: VoxelSize
    thresholds: dict[str, Any] | None
    _network: Network = dataclasses.field(repr=False)

    def predict(self, volume: np.ndarray, *, voxel_size_nm: VoxelSize | None = None) -> np.ndarray:
        """The probability of each channel in every voxel.

        Args:
          volume: raw intensities `[z y x]`.
          voxel_size_nm: of the volume, z y x; compared with that of training.

        Returns:
          float32 `[c z y x]`, in [0, 1], rounded to the config's `predict.dtype`; of coarser voxels
          where the config bins them (`data.bin_zyx`).

        Raises:
          ValueError: if the volume does not suit the network, or is too large: then use
            `python -m maemem.main`, which works block by block.
        """
        with tempfile.TemporaryDirectory(prefix="maemem-") as scratch:
            return self._predict(volume, voxel_size_nm, pathlib.Path(scratch)).read_probabilities()

    def segment(self, volume: np.ndarray, *, voxel_size_nm: VoxelSize | None = None) -> np.ndarray:
        """The objects in a volume.

        Args:
          volume: as `predict` takes it.
          voxel_size_nm: as in `predict`.

        Returns:
          uint32 `[z y x]`, objects numbered 1 to n, 0 is background.

        Raises:
          ValueError: as `predict`; or if no thresholds were tuned with this network.
        """
        if self.thresholds is None:
            raise ValueError(
                f"{untuned(self.folder)}, or decode what `predict` gives with thresholds of your "
                f"own"
            )
        with tempfile.TemporaryDirectory(prefix="maemem-") as scratch:
            stored = self._predict(volume, voxel_size_nm, pathlib.Path(scratch))
            path, read = pathlib.Path(scratch, "labels.zarr"), stored.read_probabilities
            write_labels(self._network.config, NETWORK, self.thresholds, read, stored, path)
            return open_labels(path).read()

    def _predict(
        self, volume: np.ndarray, voxel_size_nm: VoxelSize | None, scratch: pathlib.Path
    ) -> Stored:
        self._check(volume, voxel_size_nm)
        z, y, x = volume.shape
        size = check_voxel_size(voxel_size_nm or self.voxel_size_nm)
        whole = Volume(ts.array(np.asarray(volume)), size, "array", Box((0, 0, 0), (z, y, x)))
        path, binning = scratch / "prediction.zarr", self._network.config.data.bin_zyx
        write_prediction(self._network, whole.binned(tuple(binning), "mean"), "", path)
        return open_prediction(path)

    def _check(self, volume: np.ndarray, voxel_size_nm: VoxelSize | None) -> None:
        config = self._network.config
        if volume.ndim != 3 or not volume.size:
            raise ValueError(f"the volume has shape {volume.shape}; expected [z y x]")
        expected = INTENSITIES if config.data.intensity_range else ("uint8",)
        if volume.dtype not in expected:
            raise ValueError(
                f"the volume holds {volume.dtype}; expected {' or '.join(expected)}, with "
                f"intensities as in the volumes that the network was trained on"
            )
        low, high = intensity_range(config)
        if volume.max() <= low or volume.min() >= high:
            raise ValueError(
                f"the volume's intensities lie between {volume.min()} and {volume.max()}, and "
                f"the network tells apart those from {low:g} to {high:g}; scale them to that"
            )
        if voxel_size_nm is not None:
            self._check_voxel_size(check_voxel_size(voxel_size_nm))
        held = 4 * len(self.channels) * volume.size / math.prod(config.data.bin_zyx)
        if held > config.predict.memory_bytes:
            raise ValueError(
                f"the volume has {format_zyx(volume.shape)} voxels, and its prediction would take "
                f"{held / 2**30:.1f} GiB of memory; let `python -m maemem.main "
                f"--config=maemem:apply:{self.folder}` segment it block by block, or give a part"
            )

    def _check_voxel_size(self, given: VoxelSize) -> None:
        if not same_voxel_size(given, self.voxel_size_nm):
            raise ValueError(
                f"the volume has voxels of {format_zyx(given)} nm, and the network was trained on "
                f"{format_zyx(self.voxel_size_nm)} nm; resample the volume, or fine-tune on voxels "
                f"like these"
            )


def load(path: str | pathlib.Path) -> Predictor:
    """Opens a fine-tuned network for use on arrays.

    Args:
      path: a workdir in which fine-tuning has run, or a model folder of `maemem.export_model`.

    Returns:
      A predictor, which compiles on first use.

    Raises:
      FileNotFoundError: if there is no fine-tuned network.
      ValueError: if it cannot be read, or a file of a model folder was changed.
    """
    folder = pathlib.Path(path).expanduser().absolute()
    config = read_config(folder)
    if is_model(folder) and read_record(folder).get("stage") == "pretrain":
        raise ValueError(
            f"the model {folder} is pre-trained only, and segments nothing; fine-tuning starts "
            f"from it with --config.finetune.encoder={folder}"
        )
    size = trained_voxel_size(config, folder)
    network_parameters.cache_clear()  # Fine-tuning may have gone on since.
    network = open_network(config, None, folder, size)
    tuned = read_tuned(folder, network.digest)
    thresholds = tuned["thresholds"].get(NETWORK) if tuned else None
    channels = network.learner.target.channels
    given = unbinned(size, config.data.bin_zyx)
    return Predictor(folder, tuple(channels), given, thresholds, network)


def unbinned(size: VoxelSize, bin_zyx: Sequence[int]) -> VoxelSize:
    """The voxel size before binning, z y x."""
    z, y, x = (nm / n for nm, n in zip(size, bin_zyx, strict=True))
    return z, y, x


def read_tuned(folder: pathlib.Path, network: str) -> dict[str, Any] | None:
    """Thresholds tuned on predictions of the network in a folder, with their record; or None.

    Args:
      folder: a workdir or a model folder.
      network: the digest of its parameters.

    Raises:
      ValueError: if it cannot be read.
    """
    path = thresholds_path(folder)
    if not path.exists():
        return None
    tuned = read_json(path)
    # A workdir's thresholds may belong to an earlier checkpoint, or to another network.
    networks = {made_of.get("network") for made_of in tuned.get("predictions", {}).values()}
    return tuned if networks == {network} else None


def untuned(folder: pathlib.Path) -> str:
    """Why the network in a folder has no thresholds, and how to tune them."""
    path = thresholds_path(folder)
    if not path.exists():
        return (
            f"{folder} has no tuned thresholds; run the stage segment there, with labels of a "
            f"validation volume"
        )
    mend = (
        "export it anew from the workdir that it was trained in"
        if is_model(folder)
        else "delete the folders predict, segment and evaluate there, and run these stages again"
    )
    return (
        f"{path} was not tuned on predictions of the network that {folder} holds now, as where "
        f"fine-tuning has gone on since; {mend}"
    )
