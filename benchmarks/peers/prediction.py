"""MONAI's sliding windows over a volume, from zarr to zarr.

The volume is mirrored at its sides by what a window reaches beyond its stride, so that the windows
are as many as ours, and voxels at a side are seen as often as those in the middle.
"""

from __future__ import annotations

import itertools
import math
import pathlib

import torch
import zarr
from monai.inferers.utils import sliding_window_inference
from torch.nn import functional

from benchmarks.peers.training import DEVICE, device, mixed, scale
from benchmarks.peers.unetr_monai import network

LIBRARIES = ("monai", "torch", "zarr")


def prepare(folder, size, window, stride, patch, encoder, channels, outputs, batch, workers=""):
    del workers  # Ours only: this has the volume as a whole.
    torch.manual_seed(0)
    model = network(window, patch, encoder, channels, outputs).eval().to(DEVICE)
    source = zarr.open_array(pathlib.Path(folder) / "volume.zarr", mode="r")
    numbers = itertools.count()
    windows = 0

    def predict(crops: torch.Tensor) -> torch.Tensor:
        nonlocal windows
        windows += len(crops)
        with mixed():
            return model(crops).sigmoid().float()

    @torch.inference_mode()
    def step() -> None:
        nonlocal windows
        windows = 0
        volume = scale(torch.from_numpy(source[:]).to(DEVICE))[None, None]
        beyond = [w - s for w, s in zip(window, stride, strict=True)]
        sides = [n for n in reversed(beyond) for _ in range(2)]
        mirrored = functional.pad(volume, sides, mode="reflect")
        overlap = 1 - stride[0] / window[0]
        found = sliding_window_inference(mirrored, window, batch, predict, overlap, "gaussian")
        inside = (slice(n, n + size) for n in beyond)
        values = (found[0][:, *inside] * 255).round().byte().cpu().numpy()
        target = pathlib.Path(folder) / f"peer{next(numbers)}.zarr"
        chunks = (1, *(min(64, size) for _ in range(3)))
        zarr.create_array(target, data=values, chunks=chunks)

    def facts():
        parameters = sum(p.numel() for p in model.parameters())
        said = {"amount": math.prod([size] * 3), "windows": windows}
        return {**said, "parameters": parameters, **device()}

    return step, facts
