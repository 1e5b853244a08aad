"""Blockwise predictions of a network that is a function, and what they must be."""

import itertools

import numpy as np

from maemem.blockwise.predict import predict_volume
from maemem.blockwise.store import read_prediction
from maemem.geometry import Box

WINDOW, STRIDE = (4, 12, 10), (2, 8, 5)
SHAPE = (7, 40, 33)
REGION = Box((1, 3, 0), (7, 37, 30))


def look_around(crops: np.ndarray) -> np.ndarray:
    """Two channels that depend on where a voxel lies in its window, and on all of the window."""
    mean = crops.sum((1, 2, 3), dtype=np.int64)[:, None, None, None] / crops[0].size
    return np.stack([(crops + mean) / 510, crops[:, ::-1, :, ::-1] / 255], -1).astype(np.float32)


def run(volume, output, predict=look_around, **options) -> np.ndarray:
    given = {
        "region": REGION,
        "window_zyx": WINDOW,
        "stride_zyx": STRIDE,
        "batch_size": 3,
        "channels": ("near", "far"),
        "identity": {"checkpoint": "a"},
        "dtype": "float32",
        "chunk_zyx": (2, 8, 8),
        "block_zyx": (4, 16, 16),
        **options,
    }
    predict_volume(predict, volume, output, **given)
    return read_prediction(output)


def expected(array, region, window, stride, known) -> np.ndarray:
    """The same in one go, from what the text books say: numerators over denominators."""
    far = [(64, 64)] * 3
    padded = np.pad(array, far, mode="reflect")
    sums, weights = np.zeros((*padded.shape, 2)), np.zeros((*padded.shape, 2))
    gaussian = np.ones(())
    for size in window:
        profile = np.exp(-((np.arange(size) - (size - 1) / 2) ** 2) / (2 * (size / 8) ** 2))
        gaussian = gaussian[..., None] * profile
    ranges = [
        range(a - w + s, b, s)
        for a, b, w, s in zip(region.start_zyx, region.stop_zyx, window, stride, strict=True)
    ]
    for start in itertools.product(*ranges):
        where = Box((64, 64, 64), tuple(64 + w for w in window)).moved(start).slices
        weight = gaussian[..., None] * known
        sums[where] += look_around(padded[where][None])[0] * weight
        weights[where] += weight
    inside = region.moved((64, 64, 64)).slices
    return (sums[inside] / weights[inside]).transpose(3, 0, 1, 2)
