"""Fine-tunes a segmenter on labelled volumes, from a pre-trained encoder or from scratch.

Writes WORKDIR/finetune: `checkpoints/`, `metrics.jsonl`, `curve.png`, `prediction.png`.
"""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from maemem import pictures
from maemem.assembly.encoders import start_encoder
from maemem.assembly.networks import segmentation
from maemem.assembly.trainings import EVAL_SEED, check_batches, read_batches, training
from maemem.assembly.volumes import Mix, check_sets, open_labelled_mix
from maemem.checks import check_segmentation
from maemem.config import Config
from maemem.data.samples.crops import Crops
from maemem.data.samples.pipeline import Labels, labelled_reader
from maemem.learners.supervised import Segmentation
from maemem.segmentation.decoders import check_grid
from maemem.training.fit import Evaluate, Training, fit
from maemem.training.mesh import local_rows, place, replicated
from maemem.training.metrics import MetricWriter, read_metrics
from maemem.training.step import TrainState

log = logging.getLogger(__name__)


def run(config: Config, workdir: pathlib.Path) -> None:
    """Runs the stage, from its last checkpoint on where there is one.

    A run from scratch and one from a pre-trained encoder see the same crops in the same order,
    augmented alike, and the rest of their networks begins alike.

    Args:
      config: see `maemem.config.segmenting`.
      workdir: where results go.

    Raises:
      ValueError: if the config is inconsistent, a volume cannot serve, or the encoder does not fit.
      FileNotFoundError: if there is no pre-trained encoder where the config says.
      training.loop.NonFiniteLoss: if the loss diverges.
    """
    objective, run, read = prepare(config, workdir)
    validation, held_out = open_labelled_mix(config, "validation", workdir)
    fit(
        objective,
        run,
        read_batches(config, config.finetune, read),
        lambda mesh, writer: _make_evaluate(
            config, objective, validation, held_out, mesh, writer, run.folder
        ),
        lambda params: start_encoder(params, config, config.finetune.encoder, workdir),
    )
    log.info("held-out prediction: %s", run.folder / "prediction.png")


def prepare(
    config: Config, workdir: pathlib.Path
) -> tuple[Segmentation, Training, Callable[[range], Crops]]:
    """Checks and opens all that the stage reads but the encoder: what is learnt, how, from what.

    Raises:
      ValueError: as `run`.
    """
    check_segmentation(config)
    settings, crop = config.finetune, config.data.crop_zyx
    run = training(
        config,
        settings,
        workdir / "finetune",
        layer_decay=settings.layer_decay,
        freeze_encoder=settings.freeze_encoder,
    )
    check_batches("finetune", settings)
    check_sets(config, workdir)
    check_grid(config.segment.method, config.segment.grid.to_dict())
    train, labels = open_labelled_mix(config, "train", workdir)
    objective = segmentation(config, train.volumes[0].voxel_size_nm)
    jax.eval_shape(lambda key: objective.init(key, crop), jax.random.key(0))
    read = labelled_reader(
        train.volumes, labels, train.weights, crop, config.seed, settings.min_foreground
    )
    return objective, run, read


def _make_evaluate(
    config: Config,
    objective: Segmentation,
    mix: Mix,
    labels: list[Labels],
    mesh: Mesh,
    writer: MetricWriter,
    folder: pathlib.Path,
) -> Evaluate:
    """What an evaluation does: scores the held-out crops, and draws some of them."""
    settings, crop = config.finetune, config.data.crop_zyx
    crops = labelled_reader(mix.volumes, labels, mix.weights, crop, EVAL_SEED)(
        range(settings.eval_crops)
    )
    # In parts no larger than those of a training step, which are known to fit in memory.
    size = settings.batch_size // settings.accumulation
    rows = [
        np.arange(first, min(first + size, settings.eval_crops))
        for first in range(0, settings.eval_crops, size)
    ]
    parts = [place(Crops(*(each[local_rows(part)] for each in crops)), mesh) for part in rows]
    pictured = Crops(*(each[:1] for each in crops))
    truth = jax.device_get(jax.jit(objective.target.targets)(pictured.labels)[0])
    score = jax.jit(objective.evaluate, out_shardings=replicated(mesh))
    show = jax.jit(objective.predict, out_shardings=replicated(mesh))

    def evaluate(state: TrainState, step: int) -> dict[str, float]:
        scores = [jax.device_get(score(state.best_params, part)) for part in parts]
        scalars = {
            name: float(np.concatenate([each[name] for each in scores]).mean())
            for name in scores[0]
        }
        predicted = jax.device_get(show(state.best_params, pictured.image))
        if jax.process_index() == 0:
            picture = _draw(pictured.image[0], truth[0], predicted[0], objective.target.channels)
            pictures.write(folder / "prediction.png", picture)
            writer.write_images(step, {"prediction": pictures.pixels(picture)})
            pictures.draw_curves(
                folder / "curve.png",
                [*read_metrics(folder / "metrics.jsonl"), {"step": step, **scalars}],
                names=("loss", "eval_loss", "eval_agreement"),
                title="loss, and balanced accuracy on held-out crops",
            )
        return scalars

    return evaluate


def _draw(
    raw: np.ndarray, truth: np.ndarray, predicted: np.ndarray, channels: Sequence[str]
) -> bytes:
    """Sections of a crop `[z y x]`, and of each channel of `[z y x c]` the truth and what is said.

    Where the truth is not known, it is drawn black.
    """
    pairs = np.stack([truth, predicted], axis=-1).reshape(*raw.shape, -1)
    names = [f"{name}: {which}" for name in channels for which in ("truth", "predicted")]
    depth = len(raw)
    sections = sorted({depth // 6, depth // 2, depth - 1 - depth // 6})
    cuts = {f"z = {z}": np.s_[z, :, :] for z in sections}
    return pictures.draw_prediction(raw, np.moveaxis(pairs, -1, 0), names, cuts)
