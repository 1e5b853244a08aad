import numpy as np
import pytest
import tifffile

from maemem.scores.contingency import contingency
from maemem.scores.variation_of_information import VariationOfInformation
from maemem.segmentation.agglomeration import agglomerate, fragments
from maemem.segmentation.intensity import intensity_affinities


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_darker_voxel_decides(axis):
    image = np.full((5, 5, 5), 200, np.uint8)
    np.moveaxis(image, axis, 0)[2] = 50
    affinities = intensity_affinities(image, (0.0, 0.0, 0.0))
    along = np.moveaxis(affinities[axis], axis, 0)
    assert [float(x.mean()) for x in along] == [0, 1, 0, 0, 1]
    assert affinities.dtype == np.float32
    other = (axis + 1) % 3
    inner = np.moveaxis(np.moveaxis(affinities[other], other, 0)[1:], 0, other)
    assert [float(x.mean()) for x in np.moveaxis(inner, axis, 0)] == [1, 1, 0, 1, 1]


def test_brightness_and_contrast_do_not_matter():
    image = np.random.default_rng(0).random((6, 8, 8), np.float32)
    affinities = intensity_affinities(image)
    np.testing.assert_allclose(intensity_affinities(image * 3 - 7), affinities, atol=1e-5)
    assert affinities.min() == 0
    assert affinities.max() == 1


def test_a_blank_image_has_affinities():
    assert np.isfinite(intensity_affinities(np.full((3, 4, 5), 7, np.uint8))).all()


def test_finds_something_in_real_tissue(real_data):
    box = (slice(None), slice(0, 80), slice(0, 80))
    image, truth = (
        tifffile.imread(real_data / "fib25" / f"train-{kind}.tif", key=range(20))[box]
        for kind in ("input", "labels")
    )
    affinities = intensity_affinities(image)
    pieces = fragments(affinities, 0.0, 0.99)
    (labels,) = agglomerate(affinities, pieces, [0.4], "quantile85")
    # It fits the tissue better than its own mirror images do, which are as coarse.
    flips = [labels, labels[:, ::-1], labels[:, :, ::-1], labels[:, ::-1, ::-1]]
    score = VariationOfInformation()
    scores = [score.values(contingency(truth, flipped))["voi"] for flipped in flips]
    assert scores[0] < 0.8 * min(scores[1:])
