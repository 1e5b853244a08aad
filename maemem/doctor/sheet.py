"""The contact sheet: crops as a network gets them, with what it is to predict."""

from __future__ import annotations

import pathlib

import jax
import jax.numpy as jnp

from maemem.doctor.trials import Trial
from maemem.doctor.verdict import Verdict
from maemem.learners.contract import At, drawing
from maemem.pictures import draw_crops, write
from maemem.training.step import batch_key, sample_keys

_CROPS = 6


def contact_sheet(trial: Trial, folder: pathlib.Path) -> Verdict:
    """Draws crops of the first training step: the middle section of each.

    Writes FOLDER/contact_STAGE.png, with the columns that the learner names as its inputs.
    """
    run, learner = trial.ready.run, trial.ready.learner
    count = min(_CROPS, run.batch_size)
    crops = jax.tree.map(lambda rows: rows[:count], trial.batch)
    # A crop's key does not depend on how many there are: these are those of the run.
    first, steps = jnp.zeros((), jnp.int32), jnp.asarray(run.steps, jnp.int32)
    at = At(first, steps, batch_key(run.seed, 0), sample_keys(run.seed, 0, count))
    columns = drawing(learner.inputs)(crops, at)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"contact_{trial.stage}.png"
    write(path, draw_crops(columns, sections=1))
    return Verdict("ok", f"look at {path}: {' | '.join(columns)}")
