"""Predicts the validation and the test volumes with a fine-tuned segmenter.

Writes WORKDIR/predict/SET/NAME.zarr: OME-Zarr `[c z y x]`, values in [0, 1].
"""

from __future__ import annotations

import hashlib
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from maemem.blockwise.predict import predict_volume
from maemem.blockwise.tta import average_over_views, share_known
from maemem.build.networks import segmentation, segmenter_fields, test_time_views
from maemem.build.volumes import check_sets, open_raw
from maemem.checks import check_segmentation
from maemem.config import WORKDIR, Config
from maemem.data.volumes import Volume
from maemem.geometry import Box
from maemem.training.checkpoint import read_parameters
from maemem.training.mesh import batch_sharding, check_divisible, make_mesh, replicated
from maemem.workdir import check_network

log = logging.getLogger(__name__)

SETS = ("validation", "test")


def run(config: Config, workdir: pathlib.Path) -> None:
    """Runs the stage; a volume that is predicted already is kept, one that was begun goes on.

    Args:
      config: see `maemem.config.segmenting`.
      workdir: where results go.

    Raises:
      ValueError: if the config is inconsistent, a volume cannot serve, or the network does not fit.
      FileNotFoundError: if there is no fine-tuned network.
      FileExistsError: if a prediction is there that was made otherwise.
    """
    check_segmentation(config)
    check_divisible("predict.batch_size", config.predict.batch_size, 1)
    check_sets(config, workdir)
    network = pathlib.Path(config.predict.network.replace(WORKDIR, str(workdir))).expanduser()
    params, checkpoint = read_parameters(network, "finetune")
    check_network(config, checkpoint, segmenter_fields(config))
    identity = {"network": _digest(params), "objective": config.objective.to_dict()}
    mesh = make_mesh()
    params = jax.device_put(params, replicated(mesh))
    for name, entry in ((s, n) for s in SETS for n in config.data[s].items()):
        volume = open_raw(config, entry[1], workdir)
        output = workdir / "predict" / name / f"{entry[0]}.zarr"
        log.info("predicting %s [%s] with %s", volume.source, entry[1].region, checkpoint)
        _predict(config, params, volume, entry[1].region, output, mesh, identity)


def _predict(
    config: Config,
    params: PyTree,
    volume: Volume,
    region: str,
    output: pathlib.Path,
    mesh: jax.sharding.Mesh,
    identity: Mapping[str, Any],
) -> None:
    settings = config.predict
    objective = segmentation(config, volume.voxel_size_nm)
    wanted = jax.eval_shape(lambda key: objective.init(key, settings.window_zyx), jax.random.key(0))
    if jax.tree.map(np.shape, params) != jax.tree.map(np.shape, wanted):
        raise ValueError(
            "the fine-tuned network is another one than the config describes; give model and "
            "objective as it was fine-tuned with"
        )
    target, views = objective.target, test_time_views(config, volume.voxel_size_nm)
    apply = jax.jit(
        objective.predict,
        in_shardings=(replicated(mesh), batch_sharding(mesh)),
        out_shardings=batch_sharding(mesh),
    )
    predict_volume(
        average_over_views(lambda crops: apply(params, crops), target.undo, views),
        volume,
        output,
        region=Box.parse(region, volume.shape_zyx),
        window_zyx=settings.window_zyx,
        stride_zyx=settings.stride_zyx,
        batch_size=settings.batch_size,
        channels=target.channels,
        identity={**identity, "views": settings.views},
        dtype=settings.dtype,
        known=share_known(target.undo, views, settings.window_zyx, len(target.channels)),
        memory_bytes=settings.memory_bytes,
    )


def _digest(params: PyTree) -> str:
    """What tells one network's parameters from another's."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]
