"""Which fragments touch, how strongly, and which of them are one object: agglomeration.

A graph can be put together from those of blocks: its statistics are whole numbers, so that sums do
not depend on their order, and its edges are sorted. Merging takes place in the whole graph; so the
result does not depend on the blocks.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int64, Integer

# What is known of the affinities across a boundary, as whole numbers that add up. For a mean: how
# many, and their sum, in units of 2**-24, float32's own near 1. Else a histogram.
_UNITS = 1 << 24
_BINS = 256
_QUANTILES = {"median": 50, "quantile85": 85}
SCORES = ("mean", *_QUANTILES)


def statistics_of(score: str) -> str:
    """What is kept of a boundary's affinities for a score: scores may share it."""
    return "sums" if score == "mean" else "histograms"


@dataclasses.dataclass(frozen=True)
class Merging:
    """Which fragments become one object."""

    score: str  # of the affinities across a boundary: one of `SCORES`
    threshold: float  # They do where it is above this.


@dataclasses.dataclass(frozen=True)
class RegionGraph:
    """Pairs of touching fragments, sorted, each once, and the affinities between the two."""

    pairs: Int64[np.ndarray, "edges 2"]  # ids, the lower one first
    statistics: Integer[np.ndarray, "edges numbers"]


def region_graph(
    affinities: Float[np.ndarray, "c z y x"],
    fragments: Integer[np.ndarray, "_z _y _x"],
    score: str,
) -> RegionGraph:
    """The graph of a block's voxels and their predecessors along each axis.

    Args:
      affinities: in [0, 1]; channels 0, 1, 2 are those to the predecessors along z, y and x.
      fragments: ids; longer by one voxel along each axis, at its beginning, where the predecessors
        of the first voxels are. 0 is background, and has no edges.
      score: one of `SCORES`, for which statistics are kept.
    """
    inner = fragments[1:, 1:, 1:]
    pairs, values = [], []
    for axis in range(3):
        before = [slice(1, None)] * 3
        before[axis] = slice(None, -1)
        other = fragments[tuple(before)]
        meet = (inner != other) & (inner > 0) & (other > 0)
        ends = np.stack([inner[meet], other[meet]], 1).astype(np.int64)
        pairs.append(np.sort(ends, axis=1))
        values.append(affinities[axis][meet])
    return _summed(np.concatenate(pairs), _Rows(np.concatenate(values), score))


def joined(
    pairs: Sequence[Int64[np.ndarray, "_edges 2"]],
    statistics: Iterable[Integer[np.ndarray, "_edges numbers"]],
    score: str,
    names: Int64[np.ndarray, " ids"] | None = None,
) -> RegionGraph:
    """The graph of several blocks together; it may give ids new names, and drops what then is one.

    Args:
      pairs: of the graph of each block.
      statistics: of each. They are added up one by one: all of them need not be held at once.
      score: for which they are kept, one of `SCORES`.
      names: the new name of each id; None: they stay.
    """
    if names is not None:
        pairs = [np.sort(names[each], axis=1) for each in pairs]
    apart = [each[:, 0] != each[:, 1] for each in pairs]
    unique, edges = _unique(np.concatenate([p[a] for p, a in zip(pairs, apart, strict=True)]))
    sums = _zeros(len(unique), score)
    parts = np.split(edges, np.cumsum([each.sum() for each in apart])[:-1])
    for rows, kept, part in zip(statistics, apart, parts, strict=True):
        _add_rows(sums, part, rows[kept])
    return RegionGraph(unique, sums)


def _add_rows(sums: np.ndarray, places: np.ndarray, rows: np.ndarray) -> None:
    """Adds each row at its place, of which few come twice: only new names make them equal."""
    while len(places):
        _, first = np.unique(places, return_index=True)
        sums[places[first]] += rows[first]
        places, rows = np.delete(places, first), np.delete(rows, first, axis=0)


def merge(
    graph: RegionGraph, count: int, thresholds: Sequence[float], score: str
) -> Iterator[Int64[np.ndarray, " ids"]]:
    """Merges touching fragments, best score first, until none is above the threshold.

    As waterz does (Funke et al. 2019): after each merge, the scores of the new region's boundaries
    are taken anew, of all of their affinities. Of equal scores, the pair of lower ids comes first.

    Args:
      graph: of fragments 1 to count; its statistics may be added up in place.
      count: of the fragments.
      thresholds: affinities, falling: two regions merge where their score is above it, so the lower
        the threshold, the larger the objects. One pass serves all of them.
      score: of a boundary's affinities: `mean`; or `median` or `quantile85`, to 1/256. These are
        waterz's `HistogramQuantileAffinity` without `InitWithMax`: thresholds that were tuned with
        it do not compare.

    Returns:
      an iterator over one table for each threshold, of the object `[fragment]`, one of its
      fragments; 0 stays 0.
    """
    rows = graph.statistics
    sums = _Means(rows) if score == "mean" else _Quantiles(rows, _QUANTILES[score])
    merging = _Merging(graph, count, sums)
    for threshold in thresholds:
        merging.run(threshold)
        yield merging.objects()


class _Merging:
    """A graph whose regions are merged.

    Of two edges that become one, the better is kept, and scored anew only when its turn comes: the
    score of both together is never above that of the better one.
    """

    def __init__(self, graph: RegionGraph, count: int, sums: _Means | _Quantiles):
        self._sums = sums
        self._ends = graph.pairs.T.tolist()
        self._parents = list(range(count + 1))
        self._edges: list[dict[int, int]] = [{} for _ in range(count + 1)]  # by neighbour
        for edge, (u, v) in enumerate(zip(*self._ends, strict=True)):
            self._edges[u][v] = self._edges[v][u] = edge
        costs = -sums.scores()
        self._costs = costs.tolist()
        # Edges in the order of their first costs; those that were scored anew are few.
        order = np.argsort(costs, kind="stable")
        edges = zip(costs[order].tolist(), order.tolist(), strict=True)
        self._sorted = itertools.chain(edges, [(math.inf, -1)])
        self._first = next(self._sorted)
        self._again: list[tuple[float, int]] = []
        self._stale = bytearray(len(costs))
        self._gone = bytearray(len(costs))

    def run(self, threshold: float) -> None:
        """Merges what scores above a threshold."""
        while (edge := self._pop(-threshold)) is not None:
            if self._gone[edge]:
                continue
            if self._stale[edge]:
                self._stale[edge] = 0
                cost = self._costs[edge] = -self._sums.score(edge)
                heapq.heappush(self._again, (cost, edge))
                continue
            self._merge(*(self._root(ends[edge]) for ends in self._ends))

    def _pop(self, limit: float) -> int | None:
        """The edge that costs least, if that is below the limit; of equal ones the first."""
        first, again = self._first, self._again
        if again and again[0] < first:
            return heapq.heappop(again)[1] if again[0][0] < limit else None
        if first[0] < limit:
            self._first = next(self._sorted)
            return first[1]
        return None

    def objects(self) -> np.ndarray:
        """The region of each fragment."""
        table = np.array(self._parents)
        while not np.array_equal(further := table[table], table):
            table = further
        return table

    def _root(self, region: int) -> int:
        parents = self._parents
        while parents[region] != region:
            parents[region] = region = parents[parents[region]]
        return region

    def _merge(self, u: int, v: int) -> None:
        """Hands the edges of the region that has fewer to the other."""
        if len(self._edges[u]) < len(self._edges[v]):
            u, v = v, u
        self._parents[v] = u
        mine, theirs = self._edges[u], self._edges[v]
        self._gone[mine.pop(v)] = 1
        del theirs[u]
        for neighbour, edge in theirs.items():
            back = self._edges[neighbour]
            del back[v]
            other = mine.get(neighbour)
            if other is not None:
                edge = self._unite(edge, other)
            mine[neighbour] = back[u] = edge
        theirs.clear()

    def _unite(self, a: int, b: int) -> int:
        costs = self._costs
        if costs[b] < costs[a] or (costs[a] == costs[b] and b < a):
            a, b = b, a
        self._sums.add(a, b)
        self._stale[a] = self._gone[b] = 1
        return a


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Affinities, and what is kept of them."""

    values: np.ndarray
    score: str

    def sums(self, edges: np.ndarray, count: int) -> np.ndarray:
        """What is kept of those of each edge, whole numbers `[count numbers]`."""
        sums = _zeros(count, self.score)
        if self.score == "mean":
            units = np.rint(self.values.astype(np.float64) * _UNITS).astype(np.int64)
            np.add.at(sums[:, 1], edges, units)
            sums[:, 0] = np.bincount(edges, minlength=count)
        else:
            bins = np.minimum((self.values * _BINS).astype(np.int64), _BINS - 1)
            np.add.at(sums, (edges, bins), 1)
        return sums


def _zeros(count: int, score: str) -> np.ndarray:
    """What is kept of so many edges that have no affinities yet."""
    return np.zeros((count, 2), np.int64) if score == "mean" else np.zeros((count, _BINS), np.int32)


def _summed(pairs: np.ndarray, rows: _Rows) -> RegionGraph:
    unique, edges = _unique(pairs)
    return RegionGraph(unique, rows.sums(edges, len(unique)))


def _unique(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs `[n 2]`, sorted, each once, and the place of each pair among them."""
    order = np.lexsort(pairs.T[::-1])
    sorted_ = pairs[order]
    new = np.ones(len(pairs), bool)
    new[1:] = (sorted_[1:] != sorted_[:-1]).any(1)
    places = np.empty(len(pairs), np.int64)
    places[order] = np.cumsum(new) - 1
    return sorted_[new], places


class _Means:
    """The affinities of edges, which are scored by their mean."""

    def __init__(self, statistics: np.ndarray):
        self._statistics = statistics
        # One edge after the other, Python's numbers take less time than those of an array.
        self._counts, self._totals = statistics.T.tolist()

    def scores(self) -> np.ndarray:
        """Of all edges, before any are added."""
        return self._statistics[:, 1] / (self._statistics[:, 0] * _UNITS)

    def score(self, edge: int) -> float:
        return self._totals[edge] / (self._counts[edge] * _UNITS)

    def add(self, edge: int, other: int) -> None:
        """Gives an edge the affinities of another one, too."""
        self._counts[edge] += self._counts[other]
        self._totals[edge] += self._totals[other]


class _Quantiles:
    """The affinities of edges, which are scored by a quantile."""

    def __init__(self, statistics: np.ndarray, percent: int):
        self._statistics, self._percent = statistics, percent

    def scores(self) -> np.ndarray:
        """Of all edges; what all of them at once would take is several times the statistics."""
        starts = range(0, len(self._statistics), 4096)
        parts = [self._scores(self._statistics[i : i + 4096]) for i in starts]
        return np.concatenate([np.zeros(0), *parts])

    def score(self, edge: int) -> float:
        return float(self._scores(self._statistics[edge]))

    def add(self, edge: int, other: int) -> None:
        """Gives an edge the affinities of another one, too."""
        self._statistics[edge] += self._statistics[other]

    def _scores(self, histograms: np.ndarray) -> np.ndarray | np.floating:
        counts = np.cumsum(histograms, axis=-1)
        places = self._percent * counts[..., -1:] // 100 + 1
        return ((counts < places).sum(-1) + 0.5) / _BINS
