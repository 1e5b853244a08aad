"""How far objects made in blocks, with the default halo, are from those of the whole at once."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
import tifffile
from scipy import ndimage

from maemem.config import waterz
from maemem.data.sets.synthetic import make_tissue
from maemem.learners.targets.affinity import LEE, NEAREST, Affinity
from maemem.learners.targets.bcd import Bcd
from maemem.scores.contingency import contingency
from maemem.scores.pairs import variation_of_information
from maemem.segmentation.decoders import cutter, decode
from tests.blockwise.segmentations import run

SHAPE, BLOCK = (40, 128, 128), (20, 64, 64)
WATERZ = {"score": "mean", "low": 0.05, "threshold": 0.5}
BC = {"seed_binary": 0.8, "seed_contour": 0.5, "mask_binary": 0.5}


@functools.cache
def neurites():
    """Dense tissue of thick sections; membranes are background."""
    return make_tissue(SHAPE, seed=0).neurites.astype(np.int32)


def prediction(objective):
    """What a network might say: the targets, blurred and with smooth noise, `[c z y x]`."""
    targets, _ = objective.targets(jnp.asarray(neurites()[None]))
    maps = np.asarray(targets)[0].transpose(3, 0, 1, 2)
    noise = np.random.default_rng(0).normal(size=maps.shape)
    noise = ndimage.gaussian_filter(noise, (0, 0, 2, 2))
    blurred = ndimage.gaussian_filter(maps, (0, 0, 1, 1))
    return np.clip(blurred + 0.1 * noise / noise.std(), 0, 1).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "method", "thresholds", "settings", "bound"),
    [
        (Affinity(NEAREST), "waterz", WATERZ | {"high": 0.98}, {}, 1e-3),
        (Affinity(NEAREST), "waterz", WATERZ | {"high": 0.6}, {"fragments": "distance"}, 1e-3),
        (Affinity(NEAREST), "waterz", WATERZ | {"high": 0.98}, {"sectionwise": True}, 1e-3),
        (
            Affinity(LEE),
            "mutex",
            {"nearest_bias": 0.4, "long_bias": 0.7, "background": 0.2},
            {"offsets_zyx": LEE},
            1e-3,
        ),
        (Bcd(distance=False), "markers", BC, {}, 1e-3),
        (Bcd(), "markers", BC | {"seed_distance": 0.3, "mask_distance": 0.0}, {}, 5e-5),
    ],
    ids=["steepest", "distance", "sectionwise", "mutex", "markers", "markers with distance"],
)
def test_blocks_differ_little_from_the_whole(
    tmp_path, objective, method, thresholds, settings, bound
):
    """In variation of information; and with a halo of one voxel they differ more."""
    values = prediction(objective)
    whole = decode(method, values, thresholds, smallest=0, **settings)
    cut, merging = cutter(method, thresholds, **settings)
    options = {"block_zyx": BLOCK, "chunk_zyx": BLOCK, "merging": merging}
    voi = [
        sum(variation_of_information(contingency(whole, labels), ignore_background=False))
        for labels in (
            run(values, cut, tmp_path / f"{halo}.zarr", halo_zyx=halo, **options)
            for halo in (waterz().halo_zyx, (1, 1, 1))
        )
    ]
    assert voi[0] < bound < voi[1]


@pytest.mark.parametrize(("method", "high"), [("steepest", 0.98), ("distance", 0.8)])
@pytest.mark.parametrize("tissue", ["synthetic", "fib25"])
def test_blocks_of_perfect_affinities_are_those_of_the_whole(
    tmp_path, request, tissue, method, high
):
    """Bodies that touch, without a membrane between them."""
    if tissue == "synthetic":
        ids = neurites()
    else:
        path = request.getfixturevalue("real_data") / "fib25" / "train-labels.tif"
        ids = tifffile.imread(path)[:40, :128, :128].astype(np.int32)
    targets, _ = Affinity(NEAREST).targets(jnp.asarray(ids[None]))
    values = np.asarray(targets)[0].transpose(3, 0, 1, 2)  # [1 z y x c] -> [c z y x]
    thresholds = {"score": "mean", "low": 0.05, "high": high, "threshold": 0.3}
    whole = decode("waterz", values, thresholds, smallest=0, fragments=method)
    cut, merging = cutter("waterz", thresholds, fragments=method)
    options = {"block_zyx": BLOCK, "chunk_zyx": BLOCK, "halo_zyx": (16, 32, 32)}
    blocks = run(values, cut, tmp_path / "a.zarr", merging=merging, **options)
    np.testing.assert_array_equal(blocks, whole)
