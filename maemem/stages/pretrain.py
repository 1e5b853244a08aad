"""Pre-trains a masked autoencoder on raw volumes.

Writes WORKDIR/pretrain: `checkpoints/`, `metrics.jsonl`, `reconstruction.png`, `curve.png`.
"""

from __future__ import annotations

import logging
import pathlib

import jax
import numpy as np
from clu import parameter_overview
from jax.sharding import Mesh

from maemem import pictures
from maemem.config import Config
from maemem.data.crops import check_disjoint
from maemem.data.pipeline import batches, fixed_crops
from maemem.objectives.reconstruction import Reconstruction
from maemem.stages.build import Mix, open_mix, optimizer_settings, reconstruction
from maemem.training.checkpoint import Checkpoints
from maemem.training.loop import Schedule, train
from maemem.training.mesh import batch_sharding, check_batch_size, make_mesh, place, replicated
from maemem.training.metrics import MetricWriter, read_metrics
from maemem.training.step import TrainState, init_state, make_train_step, sample_keys

log = logging.getLogger(__name__)

# Held-out crops and masks are the same whatever the run's seed, so that runs compare.
EVAL_SEED = 0
_PICTURED_CROPS = 3


def run(config: Config, workdir: pathlib.Path) -> None:
    """Runs the stage, from its last checkpoint on where there is one.

    Args:
      config: see `maemem.config.pretraining`.
      workdir: where results go.

    Raises:
      ValueError: if the config is inconsistent or a volume cannot serve, before any training.
      training.loop.NonFiniteLoss: if the loss diverges.
    """
    settings, folder = config.pretrain, workdir / "pretrain"
    objective = reconstruction(config)
    optimizer = optimizer_settings(settings.optimizer, settings.steps)
    schedule = Schedule(
        settings.steps, settings.log_every, settings.eval_every, settings.checkpoint_every
    )
    check_batch_size(settings.batch_size, settings.accumulation)
    check_batch_size(settings.eval_crops, 1)
    jax.eval_shape(lambda key: objective.init(key, config.data.crop_zyx), jax.random.key(0))
    training = open_mix(config, config.data.train, workdir)
    validation = open_mix(config, config.data.validation, workdir)
    check_disjoint({"train": training.volumes, "validation": validation.volumes})

    mesh = make_mesh()
    state = init_state(
        lambda key: objective.init(key, config.data.crop_zyx),
        optimizer.transformation(),
        seed=config.seed,
        ema=settings.ema_decay > 0,
        mesh=mesh,
        fsdp=config.runtime.fsdp,
    )
    log.info("parameters:\n%s", parameter_overview.get_parameter_overview(state.params))
    folder.mkdir(parents=True, exist_ok=True)
    with Checkpoints(folder / "checkpoints", settings.keep_checkpoints) as checkpoints:
        state = checkpoints.restore(state) or state
        first = int(state.step)
        log.info("training from step %d to %d on %s", first, settings.steps, jax.devices())
        writer = MetricWriter(folder, first)
        train_step = make_train_step(
            objective.loss,
            optimizer.transformation(),
            optimizer.schedule(),
            state,
            seed=config.seed,
            ema_decay=settings.ema_decay,
            accumulation=settings.accumulation,
            mesh=mesh,
            fsdp=config.runtime.fsdp,
        )
        train(
            state,
            train_step,
            _train_batches(config, training, first),
            _make_evaluate(config, objective, validation, mesh, writer, folder),
            schedule=schedule,
            mesh=mesh,
            checkpoints=checkpoints,
            writer=writer,
        )
        writer.close()
    log.info("reconstruction: %s", folder / "reconstruction.png")


def _train_batches(config: Config, mix: Mix, first_step: int):
    return batches(
        mix.volumes,
        mix.weights,
        crop_zyx=config.data.crop_zyx,
        batch_size=config.pretrain.batch_size,
        seed=config.seed,
        first_step=first_step,
        last_step=config.pretrain.steps,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        read_threads=config.runtime.read_threads,
        prefetch=config.runtime.prefetch,
    )


def _make_evaluate(
    config: Config,
    objective: Reconstruction,
    mix: Mix,
    mesh: Mesh,
    writer: MetricWriter,
    folder: pathlib.Path,
):
    """What an evaluation does: scores the held-out crops, and draws some of them."""
    count = config.pretrain.eval_crops
    held_out = fixed_crops(mix.volumes, mix.weights, config.data.crop_zyx, count, EVAL_SEED)
    rows = np.array_split(np.arange(count), jax.process_count())[jax.process_index()]
    crops = place(held_out[rows], mesh)
    pictured = held_out[:_PICTURED_CROPS]

    def score(params, crops):
        return objective.evaluate(params, crops, sample_keys(EVAL_SEED, 0, len(crops))).mean()

    def show(params, crops):
        return objective.reconstruct(params, crops, sample_keys(EVAL_SEED, 0, len(crops)))

    score = jax.jit(
        score, in_shardings=(None, batch_sharding(mesh)), out_shardings=replicated(mesh)
    )
    show = jax.jit(show, out_shardings=replicated(mesh))

    def evaluate(state: TrainState, step: int) -> dict[str, float]:
        error = float(score(state.best_params, crops))
        images = jax.device_get(show(state.best_params, pictured))
        if jax.process_index() == 0:
            picture = pictures.draw_reconstruction(
                folder / "reconstruction.png",
                dict(zip(("raw", "visible", "predicted"), images, strict=True)),
                title=f"held-out crops at step {step}: masked MSE {error:.3f}",
            )
            writer.write_images(step, {"reconstruction": picture})
            if (folder / "metrics.jsonl").stat().st_size:
                pictures.draw_curves(
                    folder / "curve.png",
                    read_metrics(folder / "metrics.jsonl"),
                    names=("loss", "eval_masked_mse"),
                    title="masked mean squared error",
                )
        return {"eval_masked_mse": error}

    return evaluate
