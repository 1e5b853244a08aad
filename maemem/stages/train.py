"""Trains a network with a learner: the stages pretrain and finetune.

Writes WORKDIR/STAGE: `checkpoints/`, `metrics.jsonl`, `curve.png`, `held_out.png`.
"""

from __future__ import annotations

import dataclasses
import logging
import pathlib
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from maemem import layout, pictures
from maemem.assembly.checks import check_config
from maemem.assembly.learners import make_learner
from maemem.assembly.lineage import check_unseen
from maemem.assembly.starts import start_from
from maemem.assembly.trainings import EVAL_SEED, make_training, read_batches
from maemem.assembly.volumes import Mix, check_sets, open_mix
from maemem.config import Config
from maemem.data.samples.pipeline import reader
from maemem.learners.contract import Batch, Learner, Like, drawing
from maemem.training.fit import Evaluate, Training, fit
from maemem.training.mesh import local_rows, place, replicated
from maemem.training.metrics import MetricWriter, read_metrics
from maemem.training.step import TrainState, sample_keys

log = logging.getLogger(__name__)

STAGES = ("pretrain", "finetune")

_PICTURED_CROPS = 2


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A training, checked and opened.

    Attributes:
      learner: what is minimised.
      run: how.
      like: shapes and dtypes of a global batch.
      read: reads samples of the train set, by their indices.
      read_held_out: reads samples of the validation set.
    """

    learner: Learner
    run: Training
    like: Like
    read: Callable[[range], Batch]
    read_held_out: Callable[[range], Batch]


def run(config: Config, workdir: pathlib.Path, stage: str) -> None:
    """Runs the stage, from its last checkpoint on where there is one.

    A run from scratch and one from a pre-trained network see the same crops in the same order,
    augmented alike, and what is new of their networks begins alike.

    Args:
      config: see `maemem.config`.
      workdir: where results go.
      stage: `pretrain` or `finetune`, the section of the config.

    Raises:
      ValueError: if the config is inconsistent, a volume cannot serve, or what the network starts
        from does not fit, before any training.
      FileNotFoundError: if there is nothing where the config says that the network starts from.
      training.loop.NonFiniteLoss: if the loss diverges.
    """
    ready = prepare(config, workdir, stage)
    fit(
        ready.learner,
        ready.run,
        ready.like,
        read_batches(config, ready.run, ready.read),
        lambda mesh, writer: _make_evaluate(ready, stage, mesh, writer),
        lambda params: start_from(params, config, ready.run, workdir),
    )
    log.info("held-out crops: %s", ready.run.folder / layout.HELD_OUT)


def prepare(config: Config, workdir: pathlib.Path, stage: str) -> Prepared:
    """Checks and opens all that the stage reads but what its network starts from.

    Raises:
      ValueError: as `run`.
    """
    check_config(config)
    training = make_training(config, stage, workdir)
    training.check_devices(stage)
    check_sets(config, workdir)
    check_unseen(config, training.encoder, workdir)
    reads = make_learner(config, stage).reads
    train = open_mix(config, "train", workdir, reads)
    held_out = open_mix(config, "validation", workdir, reads)
    learner = make_learner(config, stage, train.volumes[0].voxel_size_nm)
    crop = config.data.crop_zyx

    def reads_of(mix: Mix, seed: int, least: float = 0.0) -> Callable[[range], Batch]:
        return reader(mix.volumes, mix.weights, crop, seed, mix.truths, reads, least)

    read = reads_of(train, config.seed, training.min_foreground)
    like = {
        name: jax.ShapeDtypeStruct((training.batch_size, *rows.shape[1:]), rows.dtype)
        for name, rows in read(range(1)).items()
    }
    jax.eval_shape(lambda key: learner.init(key, like), jax.random.key(0))
    return Prepared(learner, training, like, read, reads_of(held_out, EVAL_SEED))


def _make_evaluate(ready: Prepared, stage: str, mesh: Mesh, writer: MetricWriter) -> Evaluate:
    """What an evaluation does: measures the held-out crops, and draws some of them."""
    learner, run, folder = ready.learner, ready.run, ready.run.folder
    crops = ready.read_held_out(range(run.eval_crops))
    keys = sample_keys(EVAL_SEED, 0, run.eval_crops)
    # In parts no larger than those of a training step, which are known to fit in memory.
    size = run.batch_size // run.accumulation
    firsts = range(0, run.eval_crops, size)
    rows = [np.arange(first, min(first + size, run.eval_crops)) for first in firsts]

    def part(rows: np.ndarray) -> Batch:
        return place({name: values[local_rows(rows)] for name, values in crops.items()}, mesh)

    parts = [(part(each), keys[each]) for each in rows]
    pictured = {name: values[:_PICTURED_CROPS] for name, values in crops.items()}
    measure = jax.jit(learner.evaluate, out_shardings=replicated(mesh))
    show = drawing(learner.pictures, out_shardings=replicated(mesh))

    def evaluate(state: TrainState, step: int) -> dict[str, float]:
        network = state.best_params, state.learner
        measured = [jax.device_get(measure(*network, *each)) for each in parts]
        scalars = {
            f"eval_{name}": float(np.concatenate([each[name] for each in measured]).mean())
            for name in measured[0]
        }
        columns = show(*network, pictured, keys[:_PICTURED_CROPS])
        if jax.process_index() == 0:
            picture = pictures.draw_crops(columns)
            pictures.write(folder / layout.HELD_OUT, picture)
            writer.write_images(step, {"held_out": pictures.pixels(picture)})
            pictures.draw_curves(
                folder / layout.CURVE,
                [*read_metrics(folder / layout.METRICS), {"step": step, **scalars}],
                names=("loss", *scalars),
                title=f"{stage}: loss of training crops, and measures of held-out crops",
            )
        return scalars

    return evaluate
