"""PyTorch's DataLoader over crops that zarr-python reads."""

from __future__ import annotations

import pathlib

import numpy as np
import torch
import zarr
from torch.utils.data import DataLoader, Dataset

LIBRARIES = ("torch", "zarr")


class Crops(Dataset):
    """So many random crops; the array is opened where they are read."""

    def __init__(self, path: pathlib.Path, crop, count: int):
        self.path, self.crop, self.count, self.array = path, crop, count, None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> torch.Tensor:
        if self.array is None:
            self.array = zarr.open_array(self.path, mode="r")
            self.random = np.random.default_rng(torch.initial_seed())
        starts = self.random.integers(np.subtract(self.array.shape, self.crop) + 1)
        place = tuple(slice(s, s + n) for s, n in zip(starts.tolist(), self.crop, strict=True))
        return torch.from_numpy(self.array[place])


def prepare(folder, volume, crop, batch, count, workers):
    del volume  # Our side has written it.
    crops = Crops(pathlib.Path(folder) / "volume.zarr", crop, count)
    # A step ends when all crops are there, so that none are read ahead in the other side's turn.
    loader = DataLoader(crops, batch, num_workers=workers, persistent_workers=True)

    def step() -> None:
        for batch_of_crops in loader:
            assert batch_of_crops.shape == (batch, *crop)

    return step, lambda: {"amount": count}
