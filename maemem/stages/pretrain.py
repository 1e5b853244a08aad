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
from maemem.build import Mix, open_mix, optimizer_settings, reconstruction
from maemem.config import Config, check_config
from maemem.data.crops import check_disjoint
from maemem.data.pipeline import batches, fixed_crops
from maemem.objectives.reconstruction import Reconstruction
from maemem.training.checkpoint import Checkpoints
from maemem.training.loop import Schedule, train
from maemem.training.mesh import check_divisible, make_mesh, place, replicated
from maemem.training.metrics import MetricWriter, read_metrics
from maemem.training.step import TrainState, make_train_step, sample_keys, state_maker

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
    check_config(config)
    settings, folder = config.pretrain, workdir / "pretrain"
    objective = reconstruction(config)
    optimizer = optimizer_settings(settings.optimizer, settings.steps)
    schedule = Schedule(
        settings.steps, settings.log_every, settings.eval_every, settings.checkpoint_every
    )
    check_divisible("pretrain.batch_size", settings.batch_size, settings.accumulation)
    check_divisible("pretrain.eval_crops", settings.eval_crops, 1)
    jax.eval_shape(lambda key: objective.init(key, config.data.crop_zyx), jax.random.key(0))
    training = open_mix(config, "train", workdir)
    validation = open_mix(config, "validation", workdir)
    check_disjoint({"train": training.volumes, "validation": validation.volumes})

    mesh = make_mesh()
    like, make_state = state_maker(
        lambda key: objective.init(key, config.data.crop_zyx),
        optimizer.transformation(),
        seed=config.seed,
        ema=settings.ema_decay > 0,
        mesh=mesh,
        fsdp=config.runtime.fsdp,
    )
    folder.mkdir(parents=True, exist_ok=True)
    with Checkpoints(folder / "checkpoints", settings.keep_checkpoints) as checkpoints:
        state = checkpoints.restore(like) or make_state()
        first = int(state.step)
        log.info("parameters:\n%s", parameter_overview.get_parameter_overview(state.params))
        log.info("training from step %d to %d on %s", first, settings.steps, jax.devices())
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
        with MetricWriter(folder, first) as writer:
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
    keys = sample_keys(EVAL_SEED, 0, count)
    # In parts no larger than those of a training step, which are known to fit in memory.
    size = config.pretrain.batch_size // config.pretrain.accumulation
    rows = [np.arange(first, min(first + size, count)) for first in range(0, count, size)]
    parts = [(place(held_out[_of_this_process(part)], mesh), keys[part]) for part in rows]
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


def _of_this_process(rows: np.ndarray) -> np.ndarray:
    """This process's share of the rows of a global batch."""
    return np.split(rows, jax.process_count())[jax.process_index()]
