"""Objects from nearest affinities: watershed into fragments, then agglomeration.

Channel k of the affinities at voxel v is the affinity between v and its predecessor along z, y or x
(k = 0, 1, 2); further channels are not looked at. Everything is given in affinities: high means one
object.
"""

import contextlib
import io
import itertools
import os
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import waterz
from jaxtyping import Bool, Float, Integer, UInt32, UInt64
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage import measure, segmentation

from maemem.segmentation.checks import check_probabilities
from maemem.segmentation.instances import compact
from maemem.segmentation.region_graph import SCORES, joined, merge, region_graph

_GRAPH_VOXELS = 1 << 18  # Looked at together; what that takes is dropped before the next ones.
_one_at_a_time = threading.Lock()


def fragments(
    affinities: Float[np.ndarray, "c z y x"],
    low: float,
    high: float,
    sectionwise: bool = False,
    method: str = "steepest",
) -> UInt64[np.ndarray, "z y x"]:
    """Cuts the volume into small pieces, by a watershed.

    `steepest` climbs the affinities (Zlateski & Seung 2015). `distance` floods each inside from the
    voxels that are furthest from any membrane, in voxels (as Funke et al. 2019); then membranes
    join over their strongest edges. It makes fewer fragments, and a gap of some voxels in a
    membrane joins none of them.

    Args:
      affinities: in [0, 1]; the first three channels are used.
      low: steepest: affinities up to `low` join nothing, and a voxel that has no higher one is
        background. distance: so is a voxel whose mean affinity is not above `low`.
      high: steepest: affinities from `high` on join always. distance: a voxel whose mean affinity
        is not above `high` is membrane.
      sectionwise: whether each section is cut on its own, for sections so thick or so badly aligned
        that affinities along z mislead. `agglomerate` can join their fragments.
      method: one of `FRAGMENTS`.

    Returns:
      ids 1, 2, ..., n, unique across sections; 0 is background.

    Raises:
      ValueError: if the affinities are not in [0, 1], not 0 <= low < high, or the method is
        unknown.
    """
    check_probabilities(affinities, channels=3)
    if not 0 <= low < high:
        raise ValueError(
            f"the watershed's low cut-off is {low} and the high one {high}; "
            f"give 0 <= low < high, such as 0.1 and 0.99"
        )
    if method not in FRAGMENTS:
        raise ValueError(f"fragments {method!r} are unknown; choose one of {list(FRAGMENTS)}")
    watershed = FRAGMENTS[method]
    if not sectionwise:
        return watershed(affinities, low, high)
    labels = np.empty(affinities.shape[1:], np.uint64)
    count = np.uint64(0)
    for z, section in enumerate(labels):
        section[:] = watershed(affinities[:, z : z + 1], low, high)[0]
        section[section > 0] += count
        count = max(count, section.max())
    return labels


def agglomerate(
    affinities: Float[np.ndarray, "c z y x"],
    fragments: Integer[np.ndarray, "_z _y _x"],
    thresholds: Sequence[float],
    score: str = "mean",
) -> Iterator[UInt32[np.ndarray, "z y x"]]:
    """Merges touching fragments, best score first, until none is above the threshold.

    After each merge, the scores of the new region's boundaries are taken anew.

    Args:
      affinities: in [0, 1]; the first three channels are used.
      fragments: ids of the same voxels; 0 is background, which merges with nothing and stays 0.
      thresholds: affinities, falling: two regions merge where their score is above it, so the lower
        the threshold, the larger the objects. One pass serves all of them.
      score: of a boundary's affinities, `mean`, or `median` or `quantile85` to 1/256.

    Returns:
      an iterator over one segmentation for each threshold, in their order, with ids 1 to n in order
      of first appearance.

    Raises:
      ValueError: for an unknown score, rising thresholds, or arrays that do not fit.
    """
    check_probabilities(affinities, channels=3)
    if score not in SCORES:
        raise ValueError(f"score {score!r} is unknown; choose one of {list(SCORES)}")
    if fragments.shape != affinities.shape[1:]:
        raise ValueError(
            f"fragments have shape {fragments.shape} and affinities {affinities.shape}; "
            f"give both of the same volume"
        )
    if any(a < b for a, b in itertools.pairwise(thresholds)):
        raise ValueError(f"thresholds {list(thresholds)} rise; sort them from high to low")
    pieces = compact(fragments)
    longer = np.pad(pieces, [(1, 0)] * 3)
    sections = max(1, _GRAPH_VOXELS // pieces[0].size)
    graphs = [
        region_graph(affinities[:, z : z + sections], longer[z : z + sections + 1], score)
        for z in range(0, len(pieces), sections)
    ]
    graph = joined([g.pairs for g in graphs], (g.statistics for g in graphs), score)
    tables = merge(graph, int(pieces.max()), thresholds, score)
    return (compact(table.astype(np.uint32)[pieces]) for table in tables)


def _steepest(affinities: np.ndarray, low: float, high: float) -> np.ndarray:
    """An agglomeration that stops before its first merge."""
    with _silence():
        # Rounding can bring the mean of ones above one, hence a score below zero.
        labels = next(waterz.agglomerate(_nearest(affinities), [-1.0], None, None, low, high))
    return np.asarray(labels)


def _around_maxima(affinities: np.ndarray, low: float, high: float) -> np.ndarray:
    """A seeded watershed of the distance to the nearest membrane, then membranes by their edges."""
    # Of a section alone, nothing is known about neighbours along z.
    known = affinities[1:3] if affinities.shape[1] == 1 else affinities[:3]
    mean = known.mean(axis=0, dtype=np.float32)
    inside = mean > high
    if inside.all():  # Nothing to be far from.
        return np.ones(mean.shape, np.uint64)
    distance = np.asarray(ndimage.distance_transform_edt(inside), np.float32)
    # A ridge's many small maxima become one.
    distance = np.where(inside, ndimage.gaussian_filter(distance, 1.0), 0)
    peaks = inside & (ndimage.maximum_filter(distance, 5) == distance)
    seeds = measure.label(peaks)
    # Floods stay inside: over membranes they would follow distances, whatever the affinities say.
    flooded = segmentation.watershed(-distance, seeds, mask=inside)
    return _join_strongest(affinities, flooded, (mean > low) & (flooded == 0))


def _join_strongest(
    affinities: Float[np.ndarray, "c z y x"],
    labels: Integer[np.ndarray, "z y x"],
    rest: Bool[np.ndarray, "z y x"],
) -> UInt64[np.ndarray, "z y x"]:
    """Joins the voxels of `rest` to labels, strongest edge first; two labels are never joined.

    In rounds (Borůvka 1926), each part without a label joins where its strongest edge leads. Voxels
    that no edge connects to a label are background.
    """
    count = int(labels.max(initial=0))
    # The nodes of a graph: 0 for neither, the labels, then the voxels of `rest`.
    nodes = np.where(rest, count + np.cumsum(rest).reshape(rest.shape), labels)
    edges, weights = [], []
    for axis in range(3):
        along = np.moveaxis(nodes, axis, 0)  # [z y x] -> [axis ...]
        here, before = along[1:], along[:-1]
        meet = (here > 0) & (before > 0) & (np.maximum(here, before) > count) & (here != before)
        edges.append(np.stack([here[meet], before[meet]], axis=1))
        weights.append(np.moveaxis(affinities[axis], axis, 0)[1:][meet])
    order = np.argsort(-np.concatenate(weights), kind="stable")
    ends = np.concatenate(edges)[order]  # [edges 2], the strongest first
    part = np.arange(count + int(rest.sum()) + 1)  # each named by its lowest node
    while True:
        ends = part[ends]
        ends = ends[(ends[:, 0] != ends[:, 1]) & (ends.max(axis=1) > count)]
        if not len(ends):
            break
        names, first = np.unique(ends.ravel(), return_index=True)  # [edges 2] -> [edges * 2]
        u, v = ends[first[names > count] // 2].T
        graph = coo_array((np.ones(len(u), bool), (u, v)), shape=(len(part),) * 2)
        _, joined_part = connected_components(graph, directed=False)
        _, lowest = np.unique(joined_part, return_index=True)
        part = lowest[joined_part][part]
    found = part[nodes]
    return np.where(found > count, 0, found).astype(np.uint64)


def _nearest(affinities: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(affinities[:3], np.float32)


FRAGMENTS = {"steepest": _steepest, "distance": _around_maxima}


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Drops what waterz prints, a dozen lines a call, partly from C++ to file descriptor 1.

    waterz keeps the interpreter's lock while it works, so nothing is lost by one at a time.
    """
    with _one_at_a_time, contextlib.redirect_stdout(io.StringIO()), open(os.devnull, "w") as sink:
        stdout = os.dup(1)
        os.dup2(sink.fileno(), 1)
        try:
            yield
        finally:
            os.dup2(stdout, 1)
            os.close(stdout)
