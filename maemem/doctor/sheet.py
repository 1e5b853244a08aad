"""The contact sheet: crops as a network gets them, with what it is to predict."""

from __future__ import annotations

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from maemem.data.samples.crops import Crops
from maemem.doctor.trials import Trial
from maemem.doctor.verdict import Verdict
from maemem.learners.mae import Reconstruction, scale_intensities
from maemem.learners.supervised import Segmentation
from maemem.pictures import draw_tiles, id_colours, write
from maemem.training.step import sample_keys

_CROPS = 6
_HIDDEN, _UNKNOWN = (59, 110, 165), (90, 40, 40)  # As in reconstruction.png; reddish.


def contact_sheet(trial: Trial, folder: pathlib.Path) -> Verdict:
    """Draws crops of the first training step: the middle section of each.

    Writes FOLDER/contact_STAGE.png: for pre-training crops and what is left visible of them; for
    fine-tuning crops, the same augmented with its labels, and each channel of the target.
    """
    count = min(_CROPS, trial.settings.batch_size)
    crops = jax.tree.map(lambda rows: rows[:count], trial.batch)
    # A crop's key does not depend on how many there are: these are those of the run.
    keys = sample_keys(trial.config.seed, 0, count)
    if isinstance(trial.objective, Reconstruction):
        columns = _masked(trial.objective, crops, keys)
    else:
        columns = _labelled(trial.objective, crops, keys)
    lines = {
        f"crop {row}": {name: images[row] for name, images in columns.items()}
        for row in range(count)
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"contact_{trial.stage}.png"
    write(path, draw_tiles(lines))
    return Verdict("ok", f"look at {path}: {' | '.join(columns)}")


def _masked(objective: Reconstruction, crops: np.ndarray, keys: jax.Array) -> dict[str, np.ndarray]:
    image, left = map(_middle, jax.device_get(jax.jit(objective.hide)(crops, keys)))
    return {"crop": _grey(image), "visible": _tinted(_grey(left), np.isnan(left), _HIDDEN)}


def _labelled(objective: Segmentation, crops: Crops, keys: jax.Array) -> dict[str, np.ndarray]:
    @jax.jit
    def see(crops: Crops, keys: jax.Array):
        image, labels = objective.augment(crops, keys)
        return image, labels, *objective.target.targets(labels)

    image, labels, targets, known = map(_middle, jax.device_get(see(crops, keys)))
    raw = np.asarray(scale_intensities(jnp.asarray(crops.image), objective.intensity_range))
    columns = {
        "crop, its labels": _over(_grey(_middle(raw)), _middle(crops.labels)),
        "augmented": _grey(image),
        "augmented, labels": _over(_grey(image), labels),
    }
    for channel, name in enumerate(objective.target.channels):
        grey = _grey(2 * targets[..., channel] - 1)
        columns[name] = _tinted(grey, ~known[..., channel], _UNKNOWN)
    return columns


def _middle(crops: np.ndarray) -> np.ndarray:
    """The middle section of each crop `[b z y x ...]`."""
    return np.asarray(crops[:, crops.shape[1] // 2])


def _grey(values: np.ndarray) -> np.ndarray:
    """Values in [−1, 1] `[... y x]` as uint8 `[... y x rgb]`."""
    level = np.nan_to_num(np.clip((values + 1) / 2, 0, 1))
    return np.repeat((255 * level).astype(np.uint8)[..., None], 3, -1)


def _over(grey: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Grey values under the colours of ids; what nobody labelled is tinted."""
    strength = 0.45 * (ids > 0)[..., None]
    mixed = (grey * (1 - strength) + id_colours(ids) * strength).astype(np.uint8)
    return _tinted(mixed, ids < 0, _UNKNOWN)


def _tinted(image: np.ndarray, where: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return np.where(where[..., None], np.array(colour, np.uint8), image)
