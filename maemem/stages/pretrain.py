"""Pre-trains a masked autoencoder on raw volumes.

Writes WORKDIR/pretrain: `checkpoints/`, `metrics.jsonl`, `reconstruction.png`, `curve.png`.
"""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from maemem import pictures
from maemem.assembly.encoders import start_encoder
from maemem.assembly.networks import reconstruction
from maemem.assembly.trainings import EVAL_SEED, check_batches, read_batches, training
from maemem.assembly.volumes import Mix, check_sets, open_mix
from maemem.checks import check_pretraining
from maemem.config import Config
from maemem.data.samples.pipeline import crop_reader
from maemem.learners.mae import Reconstruction
from maemem.training.fit import Evaluate, Training, fit
from maemem.training.mesh import local_rows, place, replicated
from maemem.training.metrics import MetricWriter, read_metrics
from maemem.training.step import TrainState, sample_keys

log = logging.getLogger(__name__)

_PICTURED_CROPS = 3


def run(config: Config, workdir: pathlib.Path) -> None:
    """Runs the stage, from its last checkpoint on where there is one.

    Args:
      config: see `maemem.config.pretraining`.
      workdir: where results go.

    Raises:
      ValueError: if the config is inconsistent, a volume cannot serve, or the encoder to start
        from does not fit, before any training.
      FileNotFoundError: if there is no encoder where the config says.
      training.loop.NonFiniteLoss: if the loss diverges.
    """
    objective, run, read = prepare(config, workdir)
    validation = open_mix(config, "validation", workdir)
    fit(
        objective,
        run,
        read_batches(config, config.pretrain, read),
        lambda mesh, writer: _make_evaluate(
            config, objective, validation, mesh, writer, run.folder
        ),
        lambda params: start_encoder(params, config, config.pretrain.encoder, workdir),
    )
    log.info("reconstruction: %s", run.folder / "reconstruction.png")


def prepare(
    config: Config, workdir: pathlib.Path
) -> tuple[Reconstruction, Training, Callable[[range], np.ndarray]]:
    """Checks all that the stage reads, and opens it: what is learnt, how, and from which crops.

    Raises:
      ValueError: as `run`.
    """
    check_pretraining(config)
    crop = config.data.crop_zyx
    run = training(config, config.pretrain, workdir / "pretrain")
    check_batches("pretrain", config.pretrain)
    objective = reconstruction(config)
    jax.eval_shape(lambda key: objective.init(key, crop), jax.random.key(0))
    check_sets(config, workdir)
    train = open_mix(config, "train", workdir)
    return objective, run, crop_reader(*train, crop, config.seed)


def _make_evaluate(
    config: Config,
    objective: Reconstruction,
    mix: Mix,
    mesh: Mesh,
    writer: MetricWriter,
    folder: pathlib.Path,
) -> Evaluate:
    """What an evaluation does: scores the held-out crops, and draws some of them."""
    count = config.pretrain.eval_crops
    held_out = crop_reader(*mix, config.data.crop_zyx, EVAL_SEED)(range(count))
    keys = sample_keys(EVAL_SEED, 0, count)
    # In parts no larger than those of a training step, which are known to fit in memory.
    size = config.pretrain.batch_size // config.pretrain.accumulation
    rows = [np.arange(first, min(first + size, count)) for first in range(0, count, size)]
    parts = [(place(held_out[local_rows(part)], mesh), keys[part]) for part in rows]
    pictured = held_out[:_PICTURED_CROPS], keys[:_PICTURED_CROPS]
    score = jax.jit(objective.evaluate, out_shardings=replicated(mesh))
    show = jax.jit(objective.reconstruct, out_shardings=replicated(mesh))

    def evaluate(state: TrainState, step: int) -> dict[str, float]:
        errors = [score(state.best_params, crops, keys) for crops, keys in parts]
        scalars = {"eval_masked_mse": float(np.concatenate(errors).mean())}
        images = jax.device_get(show(state.best_params, *pictured))
        if jax.process_index() == 0:
            picture = pictures.draw_reconstruction(
                folder / "reconstruction.png",
                dict(zip(("raw", "visible", "predicted"), images, strict=True)),
                title=f"held-out crops at step {step}: masked MSE {scalars['eval_masked_mse']:.3f}",
            )
            writer.write_images(step, {"reconstruction": picture})
            pictures.draw_curves(
                folder / "curve.png",
                [*read_metrics(folder / "metrics.jsonl"), {"step": step, **scalars}],
                names=("loss", "eval_masked_mse"),
                title="masked mean squared error",
            )
        return scalars

    return evaluate
