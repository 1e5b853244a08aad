"""A volume predicted through overlapping windows, from zarr to zarr."""

from __future__ import annotations

import functools
import itertools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.ours.training import LIBRARIES, device
from benchmarks.ours.unetr import given
from benchmarks.pipeline import made_tissue, open_bare, write_volume
from maemem.blockwise.predict import predict_volume
from maemem.blockwise.windows import Windows
from maemem.blockwise.workers import open_workers
from maemem.learners.supervised import Supervised
from maemem.learners.targets.affinity import Affinity
from maemem.stages.predict import jitted

__all__ = ["LIBRARIES", "prepare"]


def prepare(
    folder,
    size,
    window,
    stride,
    patch,
    encoder,
    channels,
    outputs,
    batch,
    workers="",
    memory_bytes=1 << 30,
):
    learner = Supervised(given=given(patch, encoder, channels, target=Affinity()))
    crops = {"image": jax.ShapeDtypeStruct((1, *window), np.uint8)}
    shapes = jax.eval_shape(lambda key: learner.init(key, crops), jax.random.key(0))
    # To compile what makes the first parameters takes memory that a prediction does not.
    random = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(0.02 * random.standard_normal(leaf.shape, np.float32)), shapes
    )
    source = pathlib.Path(folder) / "volume.zarr"
    write_volume(source, (size,) * 3, (32, 32, 32), (128, 128, 128), "raw", made_tissue())
    volume = open_bare(source, cache_mb=256)
    predict = functools.partial(jitted(learner), params)

    numbers = itertools.count()

    def step():
        with open_workers(workers) as several:
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
                memory_bytes=memory_bytes,
                workers=several,
                progress=False,
            )

    def facts():
        windows = Windows(volume.region, tuple(window), tuple(stride)).touching(volume.region)
        parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
        said = {"amount": math.prod(volume.shape_zyx), "windows": len(windows)}
        return {**said, "parameters": parameters, **device()}

    return step, facts
