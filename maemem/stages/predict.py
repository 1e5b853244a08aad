"""Predicts the validation and the test volumes with a fine-tuned segmenter.

Writes WORKDIR/predict/SET/NAME.zarr: OME-Zarr `[c z y x]`, values in [0, 1].
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
import math
import pathlib
import threading
from collections.abc import Sequence

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import PyTree

from maemem import layout
from maemem.assembly.checks import check_config
from maemem.assembly.learners import make_segmenter
from maemem.assembly.networks import (
    intensity_range,
    tta_views,
)
from maemem.assembly.volumes import check_sets, open_raw
from maemem.blockwise.engine import Map
from maemem.blockwise.predict import Predict, predict_volume
from maemem.blockwise.store import open_prediction
from maemem.blockwise.tta import average_over_views, share_known
from maemem.blockwise.workers import open_workers
from maemem.config import Config
from maemem.data.stores.formats import VoxelSize
from maemem.data.stores.volumes import Volume, check_voxel_size
from maemem.geometry import Box, View, format_zyx
from maemem.layout import WORKDIR
from maemem.learners.supervised import Supervised
from maemem.training.checkpoint import read_parameters
from maemem.training.mesh import batch_sharding, check_divisible, make_mesh, replicated
from maemem.training.model_folder import is_model
from maemem.workdir import cache_compilations, check_network, read_config, read_record

log = logging.getLogger(__name__)

SETS = ("validation", "test")

# What the parameters of a segmenter mean, beyond their names and shapes.
SEGMENTER_FIELDS = ("target", "model.encoder", "model.segmenter")

# In voxels: of crops that occupy all cores of a processor.
_LARGE_CROP = 80**3
_BUILDING = threading.Lock()  # Of several threads one builds the network, and the others wait.

# Voxels that differ by less are taken as those of training.
_SAME_VOXEL_SIZE = 1.1


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
    check_config(config)
    check_divisible("predict.batch_size", config.predict.batch_size, 1)
    check_sets(config, workdir)
    workdir = workdir.absolute()  # Workers may start elsewhere.
    path, checkpoint = checked_network(config, workdir)
    check_voxel_sizes(config, workdir, path)
    with open_workers(config.runtime.workers) as workers:
        for name, volume, entry in ((s, *item) for s in SETS for item in config.data[s].items()):
            raw = open_raw(config, entry, workdir)
            network = open_network(config, workdir, path, raw.voxel_size_nm)
            output = layout.prediction_path(workdir, name, volume)
            log.info("predicting %s [%s] with %s", raw.source, entry.region, checkpoint)
            write_prediction(network, raw, entry.region, output, workers)
    network_parameters.cache_clear()


def network_path(config: Config, workdir: pathlib.Path) -> pathlib.Path:
    """Where the config says that the network is, in full."""
    path = config.predict.network.replace(WORKDIR, str(workdir.absolute()))
    return pathlib.Path(path).expanduser().absolute()


def network_is_made(config: Config) -> bool:
    """Whether the run itself fine-tunes the network that it predicts with."""
    return "finetune" in config.stages and WORKDIR in config.predict.network


def network_digest(path: pathlib.Path) -> str:
    """What tells the network at a path, in full, from others; predictions carry it.

    Raises:
      ValueError: if it cannot be read.
      FileNotFoundError: if there is none.
    """
    return _digest(network_parameters(path)[0])


def checked_network(config: Config, workdir: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """The path of the network that predicts, in full, and its checkpoint.

    Raises:
      ValueError: if it cannot be read, or was fine-tuned with other settings.
      FileNotFoundError: if there is none.
    """
    path = network_path(config, workdir)
    network_parameters.cache_clear()  # Fine-tuning may have gone on since.
    _, checkpoint = network_parameters(path)
    check_network(config, checkpoint, SEGMENTER_FIELDS)
    return path, checkpoint


def trained_voxel_size(config: Config, folder: pathlib.Path) -> VoxelSize:
    """The size of the voxels that a network was trained on, after binning: z y x, in nm.

    Raises:
      FileNotFoundError: if nothing tells: neither a record nor a prediction nor the data.
    """
    if is_model(folder):
        return check_voxel_size(tuple(read_record(folder)["voxel_size_nm"]))
    for name in SETS:
        for prediction in layout.predictions(folder, name):
            return open_prediction(prediction).voxel_size_nm
    for entry in config.data.train.values():
        return open_raw(config, entry, folder).voxel_size_nm
    raise FileNotFoundError(f"{folder} has no predictions, and its config no volumes in data.train")


def same_voxel_size(given: Sequence[float], known: Sequence[float]) -> bool:
    """Whether a network that knows voxels of one size may judge those of another."""
    ratios = [max(a / b, b / a) for a, b in zip(given, known, strict=True)]
    return max(ratios) <= _SAME_VOXEL_SIZE


def check_voxel_sizes(config: Config, workdir: pathlib.Path, network: pathlib.Path) -> None:
    """Checks that the voxels of all volumes are as large as those that a network knows.

    Raises:
      ValueError: if those of one are not, or it cannot be opened.
    """
    try:
        known = trained_voxel_size(read_config(network), network)
    except FileNotFoundError:
        log.warning("nothing tells how large the voxels are that %s was trained on", network)
        return
    for name, volume, entry in ((s, *item) for s in SETS for item in config.data[s].items()):
        given = open_raw(config, entry, workdir).voxel_size_nm
        if not same_voxel_size(given, known):
            raise ValueError(
                f"{name} volume {volume} has voxels of {format_zyx(given)} nm, and the network "
                f"{network} was trained on {format_zyx(known)} nm; resample the volume, or "
                f"fine-tune on voxels like these; or correct the size that it was given"
            )


def open_network(
    config: Config, cache: pathlib.Path | None, path: pathlib.Path, voxel_size_nm: VoxelSize
) -> Network:
    """The fine-tuned network at a path, as `read_parameters` takes it.

    Args:
      config: of the network.
      cache: the workdir that keeps what is compiled; None: as JAX is set up.
      path: in full.
      voxel_size_nm: of the volumes to predict, z y x.

    Raises:
      ValueError: if it cannot be read, or is not what the config describes.
      FileNotFoundError: if there is none.
    """
    params, checkpoint = network_parameters(path)
    network = Network(config, cache, path, _digest(params), voxel_size_nm)
    window = jax.ShapeDtypeStruct((1, *config.predict.window_zyx), np.float32)
    init = functools.partial(network.learner.init, like={"image": window})
    wanted = jax.eval_shape(init, jax.random.key(0))
    if jax.tree.map(np.shape, params) != jax.tree.map(np.shape, wanted):
        raise ValueError(
            f"the network {checkpoint} is another one than the config describes, which is a "
            f"fine-tuned one; give model and target as it was fine-tuned with"
        )
    return network


def predictor(learner: Supervised, views: Sequence[View], params: PyTree) -> Predict:
    """Raw crops to probabilities, the mean over views, on all devices."""
    apply = jitted(learner)
    return average_over_views(lambda crops: apply(params, crops), learner.target.undo, views)


def jitted(learner: Supervised) -> jax.stages.Wrapped:
    """Parameters and raw crops to probabilities, on all devices.

    A processor takes large crops one after the other: together they take as many times the memory,
    and are no faster.
    """
    mesh = make_mesh()
    alone = mesh.size == 1 and mesh.devices.flat[0].platform == "cpu"

    def predict(params: PyTree, crops: jax.Array) -> jax.Array:
        if alone and math.prod(crops.shape[1:]) > _LARGE_CROP:
            return jax.lax.map(lambda crop: learner.predict(params, crop[None])[0], crops)
        return learner.predict(params, crops)

    return jax.jit(
        predict,
        in_shardings=(replicated(mesh), batch_sharding(mesh)),
        out_shardings=batch_sharding(mesh),
    )


@dataclasses.dataclass(frozen=True)
class Network:
    """A fine-tuned segmenter, raw crops to probabilities; a worker is sent what it is made from.

    Each process reads the checkpoint, and builds the network, when it first needs it.
    """

    config: Config
    cache: pathlib.Path | None  # the workdir that keeps what is compiled
    path: pathlib.Path  # as `read_parameters` takes it
    digest: str  # of the parameters that are expected there
    voxel_size_nm: VoxelSize

    def __call__(self, crops: np.ndarray) -> ArrayLike:
        with _BUILDING:
            apply = self._apply
        return apply(crops)

    @functools.cached_property
    def learner(self) -> Supervised:
        """The network without its parameters."""
        return make_segmenter(self.config)

    @functools.cached_property
    def views(self) -> list[View]:
        """What a prediction is the mean of."""
        return tta_views(self.config, self.voxel_size_nm)

    @functools.cached_property
    def _apply(self) -> Predict:
        if self.cache is not None:
            cache_compilations(self.cache)
        params, checkpoint = network_parameters(self.path)
        if _digest(params) != self.digest:
            raise ValueError(
                f"the network {checkpoint} is another one than when the prediction began; let "
                f"fine-tuning finish first"
            )
        return predictor(self.learner, self.views, params)

    def __reduce__(self):
        # Not what is built, which belongs to this process.
        config = self.config.copy_and_resolve_references()
        return Network, (config, self.cache, self.path, self.digest, self.voxel_size_nm)


def write_prediction(
    network: Network, volume: Volume, region: str, output: pathlib.Path, workers: Map = map
) -> None:
    """Writes what a network says of a region of a volume, unless that is done.

    Raises:
      ValueError, FileExistsError: as `predict_volume`.
    """
    settings, target = network.config.predict, network.learner.target
    identity = {
        "network": network.digest,
        "target": network.config.target.to_dict(),
        "intensity_range": intensity_range(network.config),
        "views": settings.views,
    }
    predict_volume(
        network,
        volume,
        output,
        region=Box.parse(region, volume.shape_zyx),
        window_zyx=settings.window_zyx,
        stride_zyx=settings.stride_zyx,
        batch_size=settings.batch_size,
        channels=target.channels,
        identity=identity,
        dtype=settings.dtype,
        known=share_known(target.undo, network.views, settings.window_zyx, len(target.channels)),
        memory_bytes=settings.memory_bytes,
        workers=workers,
    )


@functools.lru_cache(maxsize=1)
def network_parameters(path: pathlib.Path) -> tuple[PyTree, pathlib.Path]:
    """The parameters of a network, on all devices of this process, and their checkpoint."""
    params, checkpoint = read_parameters(path, "finetune")
    return jax.device_put(params, replicated(make_mesh())), checkpoint


def _digest(params: PyTree) -> str:
    """What tells one network's parameters from another's."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]
