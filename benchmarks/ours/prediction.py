"""A volume predicted through overlapping windows, from zarr to zarr."""

from __future__ import annotations

import itertools
import math
import pathlib
from typing import cast

import jax
import jax.numpy as jnp

from benchmarks.ours.training import LIBRARIES, device
from benchmarks.ours.unetr import network
from benchmarks.pipeline import made_tissue, open_bare, write_volume
from maemem.blockwise.predict import predict_volume
from maemem.blockwise.windows import Windows
from maemem.objectives.reconstruction import scale_intensities

__all__ = ["LIBRARIES", "prepare"]


def prepare(folder, size, window, stride, patch, encoder, channels, outputs, batch):
    model = network(patch, encoder, channels, outputs)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, *window, 1)))["params"]
    source = pathlib.Path(folder) / "volume.zarr"
    write_volume(source, (size,) * 3, (32, 32, 32), (128, 128, 128), "raw", made_tissue())
    volume = open_bare(source, cache_mb=256)

    @jax.jit
    def predict(crops):
        logits = model.apply({"params": params}, scale_intensities(crops, (0, 255))[..., None])
        return jax.nn.sigmoid(cast(jax.Array, logits))

    numbers = itertools.count()

    def step():
        predict_volume(
            predict,
            volume,
            pathlib.Path(folder) / f"ours{next(numbers)}.zarr",
            region=volume.region,
            window_zyx=tuple(window),
            stride_zyx=tuple(stride),
            batch_size=batch,
            channels=[str(i) for i in range(outputs)],
            identity={},
            progress=False,
        )

    def facts():
        windows = Windows(volume.region, tuple(window), tuple(stride)).touching(volume.region)
        parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
        said = {"amount": math.prod(volume.shape_zyx), "windows": len(windows)}
        return {**said, "parameters": parameters, **device()}

    return step, facts
