"""Made-up labels to measure with, for both sides: numpy and scipy are all that this needs."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial import KDTree


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


def crops_of_cells(count: int, shape_zyx: tuple[int, int, int], thickness: float) -> np.ndarray:
    """Crops `[b z y x]`, int32, of cells with membranes between them.

    Args:
      count: how many.
      shape_zyx: of each.
      thickness: the step from section to section, in voxels of the plane.
    """
    return np.stack([_cells(shape_zyx, thickness, seed) for seed in range(count)])


def fingerprint(values: np.ndarray) -> list[float]:
    """A mean of each channel of `[... c]`, weighted at random; two arrays have it if they agree."""
    values = values.reshape(-1, values.shape[-1])
    weights = np.random.default_rng(0).random(len(values))
    return (weights @ values / weights.sum()).tolist()


def _cells(shape_zyx: tuple[int, int, int], thickness: float, seed: int) -> np.ndarray:
    """Labels `[z y x]` of the regions nearest to random points."""
    extent = np.array(shape_zyx) * (thickness, 1, 1)
    random = np.random.default_rng(seed)
    count = int((extent + 20).prod() / 15**3)
    points = random.uniform(-10, extent + 10, (count, 3))
    voxels = np.indices(shape_zyx).reshape(3, -1).T * (thickness, 1, 1)
    distances, nearest = map(np.asarray, KDTree(points).query(voxels, 2))
    labels = np.where(distances[:, 1] - distances[:, 0] < 2, 0, nearest[:, 0] + 1)
    return labels.reshape(shape_zyx).astype(np.int32)
