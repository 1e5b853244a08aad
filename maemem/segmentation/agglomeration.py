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

import cc3d
import numpy as np
import waterz
from jaxtyping import Float, Integer, UInt32, UInt64
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from skimage import segmentation

from maemem.segmentation.checks import check_probabilities
from maemem.segmentation.instances import compact
from maemem.segmentation.region_graph import SCORES, joined, merge, region_graph

_GRAPH_VOXELS = 1 << 18  # Looked at together; what that takes is dropped before the next ones.
_LINKED = 2.0  # Above all affinities.
_NOTHING = -1  # Among bodies: a voxel that is none's and becomes none's.
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
    join over their strongest affinities. It makes fewer fragments, and a gap of some voxels in a
    membrane joins none of them.

    Args:
      affinities: in [0, 1]; the first three channels are used.
      low: steepest: affinities up to `low` join nothing, and a voxel that has no higher one is
        background. distance: so is a voxel whose mean affinity is not above `low`.
      high: steepest: affinities from `high` on join always. distance: a voxel whose mean affinity
        is not above `high` is membrane, and so is one of which any is not above half of it.
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
    """A seeded watershed of the distance to the nearest membrane, inside of bodies alone.

    Floods over membranes would follow distances, whatever the affinities say. So the voxels of
    membranes join over their strongest affinities: bodies, or one another where a process is too
    thin to have an inside.
    """
    bodies = _bodies_alone(affinities, low, high)
    if bodies.min() > 0:  # No membrane.
        return bodies.astype(np.uint64)
    nearest = _nearest(affinities)
    basins = _steepest(_linked(nearest, bodies), low, _LINKED)
    return _with_bodies(nearest, basins, bodies > 0, low)


def _bodies_alone(affinities: np.ndarray, low: float, high: float) -> np.ndarray:
    """Bodies and `_NOTHING`, int32; 0 is membrane."""
    # Of a section alone, nothing is known about neighbours along z.
    known = affinities[1:3] if affinities.shape[1] == 1 else affinities[:3]
    mean = known.mean(axis=0, dtype=np.float32)
    # The mean alone would not show one low affinity beside two high ones, as where bodies touch. An
    # affinity between two voxels inside is a known one of either: so no flood that stays inside
    # crosses a low one, and a membrane may be as thin as the face between two voxels.
    inside = (mean > high) & (known.min(axis=0) > max(low, high / 2))
    if inside.all():  # Nothing to be far from.
        return np.ones(mean.shape, np.int32)
    bodies = _bodies(inside)
    bodies[mean <= low] = _NOTHING
    return bodies


def _bodies(inside: np.ndarray) -> np.ndarray:
    """What is inside, cut up around what is furthest from all that is not: int32, 0 elsewhere."""
    distance = np.asarray(ndimage.distance_transform_edt(inside), np.float32)
    # A ridge's many small maxima become one.
    distance = np.where(inside, ndimage.gaussian_filter(distance, 1.0), 0)
    peaks = inside & (ndimage.maximum_filter(distance, 5) == distance)
    # Filters look across membranes: what is thin has no peak of its own beside what is thick.
    components = cc3d.connected_components(inside, connectivity=6)
    with_peak = np.zeros(int(components.max()) + 1, bool)
    with_peak[components[peaks]] = True
    peaks |= inside & ~with_peak[components]
    seeds = cc3d.connected_components(peaks, connectivity=6)
    return segmentation.watershed(-distance, seeds.astype(np.int32), mask=inside)


def _linked(affinities: np.ndarray, bodies: np.ndarray) -> np.ndarray:
    """Affinities by which each body is one basin: above all others in it, 0 between two of them.

    Those of voxels that are nothing's are 0, too.
    """
    linked = affinities.copy()
    for axis, values in enumerate(linked):
        after = np.moveaxis(values, axis, 0)[1:]
        voxel, other = np.moveaxis(bodies, axis, 0)[1:], np.moveaxis(bodies, axis, 0)[:-1]
        after[(voxel == _NOTHING) | (other == _NOTHING)] = 0
        between = (voxel > 0) & (other > 0)
        after[between] = np.where(voxel == other, np.float32(_LINKED), 0)[between]
    return linked


def _with_bodies(
    affinities: np.ndarray, basins: np.ndarray, body: np.ndarray, low: float
) -> np.ndarray:
    """Joins basins without a body to one that has some, over the strongest affinities first.

    That is the minimum spanning forest of which bodies are the roots (Cousty et al. 2009), but that
    affinities up to `low` join nothing: basins that none lead to a body stay as they are.
    """
    count = int(basins.max(initial=0)) + 1
    has_body = np.zeros(count, bool)
    has_body[basins[body]] = True
    ends, strengths = _strongest_edges(affinities, basins, has_body, low)
    # Node 0, the background, stands for the root of all bodies, whose edges cost least of all.
    rooted = np.flatnonzero(has_body)
    costs = np.concatenate([2 - strengths, np.full(len(rooted), 0.5)])
    ends = np.concatenate([ends, [np.zeros_like(rooted), rooted]], axis=1)
    tree = minimum_spanning_tree(coo_array((costs, tuple(ends)), shape=(count, count))).tocoo()
    _, trees = connected_components(tree, directed=False)
    kept = (tree.row > 0) & (tree.col > 0) & (trees[tree.row] == trees[0])
    u, v = tree.row[kept], tree.col[kept]
    joins = coo_array((np.ones(len(u), bool), (u, v)), shape=(count, count))
    _, labels = connected_components(joins, directed=False)  # Node 0 is alone, and the first.
    return labels.astype(np.uint64)[basins]


def _strongest_edges(
    affinities: np.ndarray, basins: np.ndarray, has_body: np.ndarray, low: float
) -> tuple[np.ndarray, np.ndarray]:
    """Touching basins, not two with a body, `[2 edges]`; and the highest affinity, above `low`."""
    codes, values = [], []
    for axis, along in enumerate(affinities):
        u, v = np.moveaxis(basins, axis, 0)[1:], np.moveaxis(basins, axis, 0)[:-1]
        between = np.moveaxis(along, axis, 0)[1:]
        meet = (u != v) & (u > 0) & (v > 0) & (between > low)
        meet[meet] = ~(has_body[u[meet]] & has_body[v[meet]])
        pair = np.sort([u[meet], v[meet]], axis=0).astype(np.int64)
        codes.append(pair[0] * len(has_body) + pair[1])
        values.append(between[meet])
    strengths = np.concatenate(values)
    order = np.argsort(-strengths, kind="stable")
    code, first = np.unique(np.concatenate(codes)[order], return_index=True)
    return np.stack(np.divmod(code, len(has_body))), strengths[order][first]


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
