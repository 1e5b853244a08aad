"""Made-up predictions that are segmented block by block."""

import functools

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from maemem.blockwise.segment import segment_volume
from maemem.blockwise.store import read_labels
from maemem.geometry import Box

SIZE = (30.0, 6.0, 5.0)
START = (2, 0, 5)


def read_box(values, box):
    """A prediction `[c z y x]` that begins at START."""
    z, y, x = (-n for n in START)
    return values[(slice(None), *box.moved((z, y, x)).slices)]


def write(values, cut, output, **options) -> int:
    """Segments a prediction `[c z y x]` that begins at START; returns the number of objects."""
    region = Box((0, 0, 0), values.shape[1:]).moved(START)
    given = {
        "region": region,
        "voxel_size_nm": SIZE,
        "halo_zyx": (1, 1, 1),
        "smallest": 0,
        "identity": {"prediction": "a"},
        "chunk_zyx": (1, 1, 1),
        "progress": False,
        **options,
    }
    return segment_volume(functools.partial(read_box, values), cut, output, **given)


def run(values, cut, output, **options) -> np.ndarray:
    """The same, and the objects."""
    count = write(values, cut, output, **options)
    labels = read_labels(output)
    assert count == labels.max()
    return labels


def linked(affinities, threshold=0.7):
    """Components of voxels that are linked by high affinities; some are background.

    Whether two neighbours are linked is seen in the two alone, so blocks cut as the whole does.
    """
    inside = affinities.mean(0) >= 0.2
    places, pairs = np.arange(inside.size).reshape(inside.shape), []
    for axis in range(3):
        high, body, place = (np.moveaxis(a, axis, 0) for a in (affinities[axis], inside, places))
        links = (high[1:] > threshold) & body[1:] & body[:-1]
        pairs.append([place[1:][links], place[:-1][links]])
    ends = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(ends.shape[1], bool), tuple(ends)), shape=(inside.size,) * 2)
    _, components = connected_components(graph, directed=False)
    return np.where(inside, components.reshape(inside.shape) + 1, 0)


def smooth_affinities(seed, shape):
    """Affinities of Voronoi cells, noisy."""
    rng = np.random.default_rng(seed)
    seeds = rng.uniform(0, shape, (int(np.prod(shape)) // 600 + 2, 3))
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    distance = np.linalg.norm(grid[..., None, :] - seeds, axis=-1)
    first, second = np.sort(distance, -1)[..., :2].transpose(3, 0, 1, 2)
    inside = np.clip((second - first) / 3, 0, 1)
    noise = rng.normal(0, 0.08, (3, *shape))
    return np.clip(inside + noise, 0, 1).astype(np.float32)


def balls(seed, shape, count, radius):
    """Binary, contour and distance of balls that touch in pairs, pairs far from each other."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    centres = rng.uniform(0, shape, (count, 3))
    far = np.stack([np.linalg.norm(grid - c[:, None, None, None], axis=0) for c in centres])
    first = far.min(0)
    second = np.sort(far, 0)[1] if count > 1 else first + 99
    binary = np.clip((radius - first) / 2 + 0.5, 0, 1)
    contour = ((second - first) < 2) & (first < radius + 1)
    return np.stack([binary, contour, (np.tanh((radius - first) / 3) + 1) / 2]).astype(np.float32)
