"""Crops and their augmentation are those that were recorded: a seed keeps its meaning."""

import hashlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maemem.data.samples.augment import Augmentation
from maemem.data.samples.pipeline import reader
from tests.data.test_pipeline import CROP, LABELS, VOLUMES, WEIGHTS

CHANCES = dict.fromkeys(("warp", "rotation", "brightness", "contrast", "gamma", "noise"), 0.7)
SETTINGS = {
    "serial": Augmentation(
        **CHANCES,
        translation=0.3,
        slip=0.3,
        misalignment_voxels=4,
        missing_section=0.3,
        blurred_section=0.5,
        cut_out=0.7,
    ),
    "isotropic": Augmentation(
        orders_zyx=((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)),
        warp=0.8,
        warp_voxels_zyx=(4.0, 4.0, 4.0),
        warp_spacing_zyx=(24.0, 24.0, 24.0),
        translation=0.0,
        slip=0.0,
        missing_section=0.0,
        blurred_section=0.0,
        by_section=0.0,
    ),
}


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def test_crops_of_images():
    crops = reader(VOLUMES, WEIGHTS, CROP, seed=3)(range(20))
    assert crops.keys() == {"image"}
    assert digest(crops["image"]) == "f7f6702005bdbbae"


@pytest.mark.parametrize(
    ("min_foreground", "image", "labels"),
    [(0.0, "f7f6702005bdbbae", "c399168bd81fa515"), (0.2, "3670593888035e99", "7d74d962e1cb925f")],
)
def test_crops_with_labels(min_foreground, image, labels):
    read = reader(VOLUMES, WEIGHTS, CROP, 3, LABELS, ["labels"], min_foreground)
    crops = read(range(20))
    assert {name: digest(each) for name, each in crops.items()} == {
        "image": image,
        "labels": labels,
    }


@pytest.mark.parametrize("name", SETTINGS)
def test_augmented_crops(name):
    recorded = np.load(pathlib.Path(__file__).with_name("augmented.npz"))
    shape = recorded[f"{name}_image"].shape
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.uniform(-1, 1, shape).astype(np.float32))
    labels = jnp.asarray(rng.integers(-1, 9, shape, np.int32))
    keys = jax.random.split(jax.random.key(7), len(image))
    after = jax.jit(SETTINGS[name].apply)(keys, {"image": image, "labels": labels})
    # Compilers round differently.
    np.testing.assert_allclose(after["image"], recorded[f"{name}_image"], atol=2e-5)
    assert np.mean(np.asarray(after["labels"]) == recorded[f"{name}_labels"]) > 0.999
