"""Scoring a segmentation: maemem's contingency table against scikit-image, side by side.

    python -m benchmarks.scores

Both score one made-up pair of 250x250x250 label volumes, taking turns: the adapted Rand error and
the variation of information, true background ignored. Prints JSON: seconds (medians), their ratio,
and the largest difference between the two's scores.
"""

from __future__ import annotations

import json
import statistics
import time

import numpy as np
from absl import app, flags
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial import KDTree
from skimage.metrics import adapted_rand_error
from skimage.metrics import variation_of_information as skimage_information

from maemem.segmentation.contingency import contingency
from maemem.segmentation.scores import adapted_rand, variation_of_information

_SIZE = flags.DEFINE_integer("size", 250, "Edge of the volumes, in voxels.")
_BODIES = flags.DEFINE_integer("bodies", 500, "Objects in the truth.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "How often each is timed.")


def main(argv: list[str]) -> None:
    truth, predicted = label_pair(_SIZE.value, _BODIES.value)
    seconds: dict[str, list[float]] = {"maemem": [], "scikit-image": []}
    scores = {}
    for _ in range(_ROUNDS.value):
        for name, score in (("maemem", ours), ("scikit-image", theirs)):
            start = time.perf_counter()
            scores[name] = score(truth, predicted)
            seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    result = {
        "voxels": truth.size,
        "pairs": len(contingency(truth, predicted).voxels),
        "seconds": {name: round(value, 3) for name, value in median.items()},
        "ratio": round(median["scikit-image"] / median["maemem"], 1),
        "difference": float(np.abs(np.subtract(*scores.values())).max()),
        "scores": [round(value, 6) for value in scores["maemem"]],
    }
    print(json.dumps(result, indent=2))


def ours(truth: np.ndarray, predicted: np.ndarray) -> list[float]:
    table = contingency(truth, predicted)
    return [*adapted_rand(table), *variation_of_information(table)]


def theirs(truth: np.ndarray, predicted: np.ndarray) -> list[float]:
    # It ignores true background by default; its precision is our recall (its issue 6485).
    error, recall, precision = adapted_rand_error(truth, predicted)
    split, merge = skimage_information(truth, predicted, ignore_labels=(0,))
    return [error, precision, recall, split, merge]


def label_pair(size: int, bodies: int) -> tuple[np.ndarray, np.ndarray]:
    """Voronoi cells with background between them; and the same cells warped, split and merged.

    int32 and uint64, as truth and waterz's segmentations are.
    """
    rng = np.random.default_rng(0)
    seeds = rng.uniform(0, size, (bodies, 3))
    grid = np.stack(np.meshgrid(*[np.arange(size)] * 3, indexing="ij"), -1).reshape(-1, 3)
    distances, nearest = map(np.asarray, KDTree(seeds).query(grid, k=2, workers=-1))
    labels = nearest[:, 0].reshape(size, size, size) + 1
    truth = labels.astype(np.int32)
    truth[(distances[:, 1] - distances[:, 0] < 1).reshape(truth.shape)] = 0
    noise = rng.normal(size=(3, *truth.shape)).astype(np.float32)
    warp = np.stack([gaussian_filter(channel, 4) for channel in noise])
    where = grid.T.reshape(3, *truth.shape) + 3 * warp / warp.std()
    predicted = map_coordinates(labels, where, order=0, mode="nearest").astype(np.uint64)
    # Every tenth cell is one with the next; every tenth is cut in two.
    predicted[predicted % 10 == 1] += 1
    cut = (predicted % 10 == 5) & (where[0] > seeds[predicted - 1, 0])
    predicted[cut] += np.uint64(bodies)
    return truth, predicted


if __name__ == "__main__":
    app.run(main)
