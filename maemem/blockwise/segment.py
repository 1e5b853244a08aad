"""Segments a volume of any size, block by block, into objects that do not depend on the blocks.

Three steps over all blocks:

1. Cut: each block, with its halo, is cut into pieces.
2. Connect: pieces that both blocks at a face see as one fragment are joined (`joins_across`), and
   the region graph of the block's pieces is computed from affinities.
3. Label: fragments are numbered and merged in the graph of the whole volume, which alone has to fit
   the memory; small objects are removed; pieces get the ids of their objects.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from maemem.blockwise import pieces, store
from maemem.blockwise.engine import Map, Work, do_blocks
from maemem.data.stores import damage, ledger, omezarr
from maemem.data.stores.formats import VoxelSize
from maemem.durable import write_durably
from maemem.geometry import Box, Zyx, blocks
from maemem.segmentation.region_graph import (
    SCORES,
    Merging,
    RegionGraph,
    joined,
    merge,
    region_graph,
    statistics_of,
)

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class _Job:
    """What all blocks of a region share."""

    read: Callable[[Box], np.ndarray]
    cut: pieces.Cut
    scores: Sequence[str]  # of boundaries, for which statistics are kept
    region: Box
    block_zyx: Zyx
    halo_zyx: Zyx
    ids: ts.TensorStore  # [z y x], pieces, numbered 1 to n in each block
    folder: Path  # of intermediate files

    @property
    def blocks(self) -> list[Box]:
        """All of them, in voxels of the region."""
        return list(blocks(self.region.shape_zyx, self.block_zyx))


@dataclasses.dataclass(frozen=True)
class CutRegion:
    """A region cut into pieces, and all that decides which of them are one object.

    Attributes:
      job: what its blocks share.
      sizes: of each piece, in voxels, int64 `[pieces]`.
      firsts: flat index in the region of the first voxel of each, int64 `[pieces]`.
      offsets: `[block_z block_y block_x]`; a piece's number is that in its block and its block's.
    """

    job: _Job
    sizes: np.ndarray
    firsts: np.ndarray
    offsets: np.ndarray

    @property
    def blocks(self) -> list[Box]:
        """In voxels of the region."""
        return self.job.blocks

    def read(self, block: Box) -> np.ndarray:
        """The pieces of a block, int64 `[z y x]`, in numbers of the region; 0 is none."""
        return _read_pieces(self.job, self.offsets, block)[1:, 1:, 1:]

    def objects(
        self, mergings: Sequence[Merging | None], smallest: int
    ) -> Iterator[tuple[Merging | None, np.ndarray]]:
        """Which object each piece belongs to.

        Args:
          mergings: how fragments merge, by the nearest three affinities; None: not at all. Those of
            one score take one pass.
          smallest: objects of fewer voxels are removed.

        Returns:
          an iterator over them, with a table `[pieces + 1]` for each, int64: objects 1 to n in
          order of first appearance, 0 for removed ones and for no piece.
        """
        fragments = _fragments(self)
        if None in mergings:
            yield None, self._numbered(fragments, smallest)
        for score in SCORES:
            chosen = [merging for merging in mergings if merging and merging.score == score]
            falling = sorted(chosen, key=lambda merging: -merging.threshold)
            if not falling:
                continue
            graph, count = _graph(self, fragments, score), int(fragments.max(initial=0))
            log.info("%d fragments, of which %d pairs touch", count, len(graph.pairs))
            tables = merge(graph, count, [merging.threshold for merging in falling], score)
            for merging, table in zip(falling, tables, strict=True):
                yield merging, self._numbered(table[fragments], smallest)

    def _numbered(self, objects: np.ndarray, smallest: int) -> np.ndarray:
        voxels = np.bincount(objects, self.sizes, minlength=1)
        kept = voxels[objects] >= smallest
        numbered = np.zeros(len(objects) + 1, np.int64)
        numbered[1:][kept] = _numbered(objects[kept], self.firsts[kept])
        return numbered


def segment_volume(
    read: Callable[[Box], np.ndarray],
    cut: pieces.Cut,
    output: str | Path,
    *,
    region: Box,
    voxel_size_nm: VoxelSize,
    block_zyx: Zyx,
    halo_zyx: Zyx,
    smallest: int,
    identity: Mapping[str, Any],
    merging: Merging | None = None,
    chunk_zyx: Zyx | None = None,
    workers: Map = map,
    progress: bool = True,
) -> int:
    """Writes the objects of a region, numbered 1 to n in order of first appearance; 0 is none.

    They equal those of the region cut as a whole, if the halo decides the fragment of each voxel.
    After a kill, the same call goes on from its record.

    Args:
      read: the prediction in a box of the volume, float32 `[c z y x]`.
      cut: a prediction to fragments, ids `[z y x]`, 0 for background.
      output: a local folder that does not exist.
      region: what to segment, in voxels of the predicted volume.
      voxel_size_nm: z y x.
      block_zyx: the shape of a block, rounded up to whole chunks.
      halo_zyx: the margin around a block, at least 1 along each axis.
      smallest: objects of fewer voxels are removed.
      identity: everything else that decides the objects, such as the settings of `read` and `cut`;
        values as in JSON. Stored with the objects; an unfinished output goes on only with the same.
      merging: how fragments merge, by the nearest three affinities; None: not at all.
      chunk_zyx: the unit of reading, in voxels; None: see `omezarr.chunk_shape`.
      workers: see `workers.open_workers`; for other processes, `read` and `cut` must be picklable.
      progress: whether to show it.

    Returns:
      The number of objects.

    Raises:
      FileExistsError: if the output exists.
      ValueError: if the halo is too small, or an unfinished output has other settings.
    """
    if min(halo_zyx) < 1:
        raise ValueError(
            f"the halo is {halo_zyx}; expected at least 1 along each axis, or blocks would not see "
            f"what goes on beyond their faces"
        )
    target = store.local_path(output)
    shape = region.shape_zyx
    chunk = chunk_zyx or omezarr.chunk_shape(shape, voxel_size_nm)
    z, y, x = _whole_chunks(block_zyx, shape, chunk)
    grid = {"region": str(region), "block_zyx": [z, y, x], "halo_zyx": list(halo_zyx)}
    attributes = json.loads(json.dumps({**identity, **grid, "smallest": smallest}))
    ledger.refuse_existing(target)
    partial = store.unfinished(target)
    with ledger.held(partial, target, wait=False):
        finished = ledger.claim(partial, attributes)
        scratch = ledger.scratch(partial, "pieces")
        array = functools.partial(
            omezarr.open_array,
            shape_zyx=shape,
            dtype="uint32",
            chunk_zyx=chunk,
            shard_zyx=(z, y, x),
            with_zeros=True,
        )
        scores = (merging.score,) if merging else ()
        ids = array(scratch)
        job = _Job(read, cut, scores, region, (z, y, x), halo_zyx, ids, scratch)
        found = _run(job, array(partial), merging, smallest, finished, workers, progress)
        store.publish(partial, target, voxel_size_nm, region, attributes)
    return found


def cut_region(
    read: Callable[[Box], np.ndarray],
    cut: pieces.Cut,
    folder: Path,
    *,
    region: Box,
    voxel_size_nm: VoxelSize,
    block_zyx: Zyx,
    halo_zyx: Zyx,
    scores: Sequence[str],
    identity: Mapping[str, Any],
    workers: Map = map,
    progress: bool = True,
) -> CutRegion:
    """Steps 1 and 2 alone, for several ways to merge.

    After a kill, the same call goes on from its record.

    Args:
      read: the prediction in a box of the volume, float32 `[c z y x]`.
      cut: a prediction to fragments, ids `[z y x]`, 0 for background.
      folder: for intermediate files, which the caller deletes.
      region: what to cut, in voxels of the predicted volume.
      voxel_size_nm: z y x.
      block_zyx: the shape of a block, rounded up to whole chunks.
      halo_zyx: the margin around a block, at least 1 along each axis.
      scores: of boundaries, for which the region graph is kept; none: there is no graph.
      identity: everything else that decides the pieces; values as in JSON.
      workers: see `workers.open_workers`.
      progress: whether to show it.

    Raises:
      ValueError: if the folder was begun with other settings.
    """
    shape = region.shape_zyx
    chunk = omezarr.chunk_shape(shape, voxel_size_nm)
    z, y, x = _whole_chunks(block_zyx, shape, chunk)
    grid = {"region": str(region), "block_zyx": [z, y, x], "halo_zyx": list(halo_zyx)}
    folder = store.local_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    own = {"scores": list(scores), **grid}
    finished = ledger.claim(folder, json.loads(json.dumps({**identity, **own})))
    ids = omezarr.open_array(
        folder,
        shape_zyx=shape,
        dtype="uint32",
        chunk_zyx=chunk,
        shard_zyx=(z, y, x),
        with_zeros=True,
    )
    job = _Job(read, cut, scores, region, (z, y, x), halo_zyx, ids, folder)
    return _cut_region(job, finished, workers, progress)


def _whole_chunks(block_zyx: Zyx, shape_zyx: Zyx, chunk_zyx: Zyx) -> Zyx:
    """The shape of a block, rounded up to whole chunks."""
    sizes = zip(block_zyx, shape_zyx, chunk_zyx, strict=True)
    z, y, x = (-(-min(block, size) // c) * c for block, size, c in sizes)
    return z, y, x


def _run(
    job: _Job,
    labels: ts.TensorStore,
    merging: Merging | None,
    smallest: int,
    finished: ledger.Finished,
    workers: Map,
    progress: bool,
) -> int:
    region = _cut_region(job, finished, workers, progress)
    ((_, objects),) = region.objects([merging], smallest)
    table = job.folder / "objects.npy"
    content = io.BytesIO()
    np.save(content, objects.astype(np.uint32))
    # Atomic, since workers that outlive their run may still read the table.
    write_durably(table, content.getvalue())
    relabel = functools.partial(_relabel, region, labels, table)
    _step("labelled", relabel, job, finished, workers, progress)
    return int(objects.max())


def _step(
    verb: str, work: Work, job: _Job, finished: ledger.Finished, workers: Map, progress: bool
) -> None:
    """Does the blocks that are missing of a step."""
    here = finished.step(verb)
    do_blocks(work, job.blocks, here, verb=verb, log=log, workers=workers, progress=progress)


def _cut_region(job: _Job, finished: ledger.Finished, workers: Map, progress: bool) -> CutRegion:
    _step("cut", functools.partial(_cut, job), job, finished, workers, progress)
    sizes, firsts = zip(
        *(pieces.load(job.folder / "cut", block, "sizes", "firsts") for block in job.blocks),
        strict=True,
    )
    stops = np.cumsum([len(each) for each in sizes])
    axes = zip(job.region.shape_zyx, job.block_zyx, strict=True)
    # [block] -> [block_z block_y block_x]
    offsets = np.append(0, stops[:-1]).reshape([-(-size // block) for size, block in axes])
    connect = functools.partial(_connect, job, offsets)
    _step("connected", connect, job, finished, workers, progress)
    return CutRegion(job, np.concatenate(sizes), np.concatenate(firsts), offsets)


def _cut(job: _Job, block: Box) -> None:
    """Step 1: cuts a block into pieces."""
    shape = job.region.shape_zyx
    outer = pieces.grown(block, job.halo_zyx, shape)
    labels = job.cut(job.read(outer.moved(job.region.start_zyx)))
    found = pieces.cut_block(labels, outer, block, shape)
    job.ids[block.slices].write(found.ids).result()
    pieces.save(job.folder / "cut", block, **found.arrays())


def _connect(job: _Job, offsets: np.ndarray, block: Box) -> None:
    """Step 2: joins pieces across the faces to the blocks before, and computes a region graph."""
    ids = _read_pieces(job, offsets, block)
    place = [n // size for n, size in zip(block.start_zyx, job.block_zyx, strict=True)]
    joins = [np.zeros((0, 2), np.int64)]
    for axis in range(3):
        if not place[axis]:
            continue
        lower = _before(block, axis, job.block_zyx[axis])
        (after,) = pieces.load(job.folder / "cut", lower, f"after{axis}")
        (before,) = pieces.load(job.folder / "cut", block, f"before{axis}")
        of_lower = [place[other] - (other == axis) for other in range(3)]
        planes = np.moveaxis(ids, axis, 0)[:2, 1:, 1:]  # [z y x] -> [2 a b]
        joined_here = pieces.joins_across(
            planes[0],
            _in_whole(after, offsets[tuple(of_lower)]),
            planes[1],
            _in_whole(before, offsets[tuple(place)]),
        )
        joins.append(joined_here)
    graphs: dict[str, np.ndarray] = {}
    if job.scores:
        affinities = job.read(block.moved(job.region.start_zyx))
        for kind, score in {statistics_of(score): score for score in job.scores}.items():
            graph = region_graph(affinities, ids, score)
            graphs |= {"pairs": graph.pairs, kind: graph.statistics}
    pieces.save(job.folder / "connected", block, joins=np.concatenate(joins), **graphs)


def _before(block: Box, axis: int, size: int) -> Box:
    """The block before a block along an axis, in a grid of blocks of this size."""
    start, stop = list(block.start_zyx), list(block.stop_zyx)
    start[axis], stop[axis] = start[axis] - size, start[axis]
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def _read_pieces(job: _Job, offsets: np.ndarray, block: Box) -> np.ndarray:
    """The pieces of a block in numbers of the whole volume, with the plane before it on each axis.

    Returns:
      int64 `[1+z 1+y 1+x]`; the first planes are 0 where the volume begins.
    """
    begin = [max(0, start - 1) for start in block.start_zyx]
    where = [slice(a, b) for a, b in zip(begin, block.stop_zyx, strict=True)]
    with damage.naming_file(job.folder, pieces.MEND):
        ids = job.ids[tuple(where)].read().result()
    of_block = [
        np.arange(part.start, part.stop) // size
        for part, size in zip(where, job.block_zyx, strict=True)
    ]
    ids = _in_whole(ids, offsets[np.ix_(*of_block)])
    return np.pad(ids, [(int(start == 0), 0) for start in block.start_zyx])


def _in_whole(ids: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Pieces in numbers of the whole volume, from those of their block."""
    return np.where(ids > 0, ids.astype(np.int64) + offset, 0)


def _connected(region: CutRegion, name: str) -> Iterator[np.ndarray]:
    folder = region.job.folder / "connected"
    return (pieces.load(folder, block, name)[0] for block in region.job.blocks)


def _fragments(region: CutRegion) -> np.ndarray:
    """The fragment of each piece `[pieces]`, which may lie in several blocks.

    Numbered by first voxel, fragments do not depend on blocks; nor do ties between edges.
    """
    count = len(region.sizes)
    u, v = np.concatenate(list(_connected(region, "joins"))).T - 1
    joins = coo_array((np.ones(len(u), bool), (u, v)), shape=(count, count))
    _, fragments = connected_components(joins, directed=False)
    return _numbered(fragments, region.firsts)


def _graph(region: CutRegion, fragments: np.ndarray, score: str) -> RegionGraph:
    pairs = list(_connected(region, "pairs"))
    statistics = _connected(region, statistics_of(score))
    return joined(pairs, statistics, score, np.append(0, fragments))


def _numbered(names: np.ndarray, firsts: np.ndarray) -> np.ndarray:
    """Renumbers 1 to n, in the order of the lowest `firsts` of each."""
    _, numbers = np.unique(names, return_inverse=True)
    begins = np.full(numbers.max(initial=-1) + 1, np.iinfo(np.int64).max)
    np.minimum.at(begins, numbers, firsts)
    order = np.empty(len(begins), np.int64)
    order[np.argsort(begins)] = np.arange(1, len(begins) + 1)
    return order[numbers]


def _relabel(region: CutRegion, labels: ts.TensorStore, table: Path, block: Box) -> None:
    """Step 3: writes the objects of a block."""
    objects = np.load(table, mmap_mode="r", allow_pickle=False)
    labels[block.slices].write(objects[region.read(block)]).result()
