"""What linear interpolation from the visible patches scores, on the held-out crops of a run.

    python -m benchmarks.interpolation --config=configs/pretrain_fib25.py \\
        --config.data.root=DATA --workdir=runs/fib25

The network must do better than this, or it has learnt nothing about tissue. Each visible patch
gives the means of its octants; between their centres every masked voxel is interpolated linearly
(barycentric in the Delaunay tetrahedron around it; the nearest one outside of their hull). Three
scores, in the units of `eval_masked_mse`:

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
from skimage.measure import block_reduce
from tqdm import tqdm

from maemem.assembly.learners import make_learner
from maemem.assembly.trainings import EVAL_SEED
from maemem.assembly.volumes import open_mix
from maemem.data.samples.pipeline import reader
from maemem.geometry import Zyx
from maemem.learners.contract import At
from maemem.learners.mae import MaskedReconstruction
from maemem.models.patches import patchify, take_tokens
from maemem.training.step import sample_keys

_CONFIG = config_flags.DEFINE_config_file("config", None, "The run's config.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The run's workdir, for its converted volumes.")
_CROPS = flags.DEFINE_integer("crops", 0, "Use the first so many held-out crops; 0: all.")


def main(argv: list[str]) -> None:
    config = _CONFIG.value
    learner = make_learner(config, "pretrain")
    assert isinstance(learner, MaskedReconstruction)
    mix = open_mix(config, "validation", pathlib.Path(_WORKDIR.value or ""))
    count = config.pretrain.eval_crops
    read = reader(mix.volumes, mix.weights, config.data.crop_zyx, EVAL_SEED)
    keys = sample_keys(EVAL_SEED, 0, count)[: _CROPS.value or count]
    crops = read(range(len(keys)))
    image, at = learner.image(crops), At(jnp.zeros(()), jnp.ones(()), keys[0], keys)
    _, masked = learner.masks(keys, image)
    left = learner.inputs(crops, at)["visible"]
    image, patch = image[..., None], config.model.encoder.patch_zyx
    filled = np.stack([interpolate(np.asarray(crop), patch) for crop in tqdm(left)])[..., None]
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
        "crops": len(keys),
    }
    print(json.dumps({name: round(float(value), 4) for name, value in scores.items()}, indent=2))


def interpolate(crop: np.ndarray, patch_zyx: Zyx) -> np.ndarray:
    """Fills the NaNs of a crop `[z y x]` from its other voxels."""
    block = tuple(max(1, n // 2) for n in patch_zyx)
    means = block_reduce(crop, block, np.mean)  # pyright: ignore[reportArgumentType]
    known = ~np.isnan(means)
    centres = (np.argwhere(known) + 0.5) * block - 0.5
    wanted = np.argwhere(np.isnan(crop))
    # A little jitter: points on a lattice are the worst case of a Delaunay tetrahedralisation.
    centres += np.random.default_rng(0).uniform(-1e-3, 1e-3, centres.shape)
    values = LinearNDInterpolator(centres, means[known])(wanted)
    outside = np.isnan(values)
    values[outside] = NearestNDInterpolator(centres, means[known])(wanted[outside])
    filled = crop.copy()
    filled[np.isnan(crop)] = values
    return filled


if __name__ == "__main__":
    app.run(main)
