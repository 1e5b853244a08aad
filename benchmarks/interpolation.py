"""What linear interpolation from the visible patches scores, on the held-out crops of a run.

    python -m benchmarks.interpolation --config=configs/pretrain_fib25.py \\
        --config.data.root=DATA --workdir=runs/fib25

The network must do better than this, or it has learnt nothing about tissue. Every masked voxel is
interpolated linearly between visible voxels (barycentric in the Delaunay tetrahedron around it; the
nearest visible voxel outside of their hull). Three scores, in the units of `eval_masked_mse`:

- as it is: over the mean and contrast of the true patch, so a wrong brightness counts as well;
- centred: less its own mean in each patch, so only structure counts;
- shrunk: centred, and times the one factor that fits these crops best: an upper bound, since the
  factor has seen the answers.
"""

from __future__ import annotations

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from ml_collections import config_flags
from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator
from tqdm import tqdm

from maemem.build import open_mix, reconstruction
from maemem.data.pipeline import fixed_crops
from maemem.models.patches import patchify
from maemem.objectives.reconstruction import take_tokens
from maemem.stages.pretrain import EVAL_SEED
from maemem.training.step import sample_keys

_CONFIG = config_flags.DEFINE_config_file("config", None, "The run's config.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The run's workdir, for its converted volumes.")
_CROPS = flags.DEFINE_integer("crops", 0, "Use the first so many held-out crops; 0: all.")


def main(argv: list[str]) -> None:
    config = _CONFIG.value
    objective = reconstruction(config)
    mix = open_mix(config, "validation", pathlib.Path(_WORKDIR.value or ""))
    count = config.pretrain.eval_crops
    crops = fixed_crops(mix.volumes, mix.weights, config.data.crop_zyx, count, EVAL_SEED)
    image = objective.image(jnp.asarray(crops))
    _, masked = objective.masks(sample_keys(EVAL_SEED, 0, count), image)
    used = slice(0, _CROPS.value or count)
    image, masked = image[used], masked[used]
    _, left, _ = objective.reconstruct(
        objective.init(jax.random.key(0), config.data.crop_zyx),
        jnp.asarray(crops[used]),
        sample_keys(EVAL_SEED, 0, count)[used],
    )
    filled = np.stack([interpolate(np.asarray(crop)) for crop in tqdm(left)])[..., None]
    patch = config.model.patch_zyx
    truth, guess = (
        np.asarray(take_tokens(patchify(x, patch), masked))
        for x in (image, jax.numpy.array(filled))
    )
    mean = truth.mean(-1, keepdims=True)
    contrast = np.sqrt(truth.var(-1, keepdims=True) + 1e-6)
    target = (truth - mean) / contrast
    centred = (guess - guess.mean(-1, keepdims=True)) / contrast
    factor = (centred * target).sum() / np.square(centred).sum()
    scores = {
        "as it is": np.square((guess - mean) / contrast - target).mean(),
        "centred": np.square(centred - target).mean(),
        "shrunk": np.square(factor * centred - target).mean(),
        "factor": factor,
        "crops": len(crops[used]),
    }
    print(json.dumps({name: round(float(value), 4) for name, value in scores.items()}, indent=2))


def interpolate(crop: np.ndarray) -> np.ndarray:
    """Fills the NaNs of a crop `[z y x]` from its other voxels."""
    hidden = np.isnan(crop)
    seen, wanted = np.argwhere(~hidden), np.argwhere(hidden)
    values = LinearNDInterpolator(seen, crop[~hidden])(wanted)
    outside = np.isnan(values)
    values[outside] = NearestNDInterpolator(seen, crop[~hidden])(wanted[outside])
    filled = crop.copy()
    filled[hidden] = values
    return filled


if __name__ == "__main__":
    app.run(main)
