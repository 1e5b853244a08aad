"""How far objects made in blocks, with the default halo, are from those of the whole at once."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
import tifffile
from scipy import ndimage

from maemem.config import waterz
from maemem.data.sets.synthetic import make_tissue
from maemem.learners.targets.affinity import Affinity, Mutex, Waterz
from maemem.learners.targets.bcd import Bcd, Markers
from maemem.scores.contingency import contingency
from maemem.scores.variation_of_information import VariationOfInformation
from tests.blockwise.segmentations import run
from tests.segmentation.decoding import decode

SHAPE, BLOCK = (40, 128, 128), (20, 64, 64)
WATERZ = {"score": "mean", "low": 0.05, "threshold": 0.5}
NEAREST, LEE = Affinity(), Affinity("lee")
BC = {"seed_binary": 0.8, "seed_contour": 0.5, "mask_binary": 0.5}
BCD = BC | {"seed_distance": 0.3, "mask_distance": 0.0}


@functools.cache
def neurites():
    """Dense tissue of thick sections; membranes are background."""
    return make_tissue(SHAPE, seed=0).neurites.astype(np.int32)


def prediction(target):
    """What a network might say: the targets, blurred and with smooth noise, `[c z y x]`."""
    maps, _ = target.targets({"labels": jnp.asarray(neurites()[None])})
    maps = np.asarray(maps)[0].transpose(3, 0, 1, 2)  # [1 z y x c] -> [c z y x]
    noise = np.random.default_rng(0).normal(size=maps.shape)
    noise = ndimage.gaussian_filter(noise, (0, 0, 2, 2))
    blurred = ndimage.gaussian_filter(maps, (0, 0, 1, 1))
    return np.clip(blurred + 0.1 * noise / noise.std(), 0, 1).astype(np.float32)


def split(decoder, thresholds):
    """How blocks are cut up, and what is merged."""
    cuts, merges = ({n: thresholds[n] for n in each} for each in (decoder.cuts, decoder.merges))
    return functools.partial(decoder.cut, **cuts), decoder.merging(**merges)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("decoder", "thresholds", "bound"),
    [
        (Waterz(target=NEAREST), WATERZ | {"high": 0.98}, 1e-3),
        (Waterz("distance", target=NEAREST), WATERZ | {"high": 0.6}, 1e-3),
        (Waterz(sectionwise=True, target=NEAREST), WATERZ | {"high": 0.98}, 1e-3),
        (Mutex(target=LEE), {"nearest_bias": 0.4, "long_bias": 0.7, "background": 0.2}, 1e-3),
        (Markers(target=Bcd(distance=False)), BC, 1e-3),
        (Markers(target=Bcd()), BCD, 5e-5),
    ],
    ids=["steepest", "distance", "sectionwise", "mutex", "markers", "markers with distance"],
)
def test_blocks_differ_little_from_the_whole(tmp_path, decoder, thresholds, bound):
    """In variation of information; and with a halo of one voxel they differ more."""
    values = prediction(decoder.target)
    whole = decode(decoder, values, thresholds)
    cut, merging = split(decoder, thresholds)
    options = {"block_zyx": BLOCK, "chunk_zyx": BLOCK, "merging": merging}
    score = VariationOfInformation(ignore_background=False)
    voi = [
        score.values(contingency(whole, labels))["voi"]
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
    maps, _ = NEAREST.targets({"labels": jnp.asarray(ids[None])})
    values = np.asarray(maps)[0].transpose(3, 0, 1, 2)  # [1 z y x c] -> [c z y x]
    thresholds = {"score": "mean", "low": 0.05, "high": high, "threshold": 0.3}
    decoder = Waterz(method, target=NEAREST)
    whole = decode(decoder, values, thresholds)
    cut, merging = split(decoder, thresholds)
    options = {"block_zyx": BLOCK, "chunk_zyx": BLOCK, "halo_zyx": (16, 32, 32)}
    blocks = run(values, cut, tmp_path / "a.zarr", merging=merging, **options)
    np.testing.assert_array_equal(blocks, whole)
