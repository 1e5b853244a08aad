"""Segments a volume of any size, block by block, into objects that know nothing of the blocks.

Three steps over all blocks, and a look at the whole between them:

1. Each block is cut into pieces, of which it is seen where they go on in the blocks beside it.
2. Across each face, pieces that both sides see as one fragment, by half of the voxels or more, are
   joined; and the affinities of all voxels of a block to their predecessors are summed up, in a
   graph of pieces.
3. Fragments are numbered and merged in the whole graph, which is all that has to fit the memory;
   small objects are dropped, and each block is told the objects of its pieces.
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
from maemem.segmentation.region_graph import Merging, RegionGraph, joined, merge, region_graph

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class _Job:
    """What the blocks have in common."""

    read: Callable[[Box], np.ndarray]
    cut: pieces.Cut
    merging: Merging | None
    region: Box
    block_zyx: Zyx
    halo_zyx: Zyx
    ids: ts.TensorStore  # [z y x], the pieces, each block's in numbers of its own
    labels: ts.TensorStore  # [z y x]
    folder: Path  # for what is kept of blocks on the way


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

    They are those of the whole region at once, whatever the blocks, if `cut` decides about each
    voxel by what is within the halo. What is killed goes on from its record.

    Args:
      read: of a box of the region's volume, what is predicted: float32 `[c z y x]`.
      cut: makes fragments of it, ids `[z y x]`, 0 for background.
      output: a local folder that does not exist.
      region: what to segment, in voxels of the volume that was predicted.
      voxel_size_nm: z y x.
      block_zyx: what is worked on at once, about: it is rounded up to whole chunks.
      halo_zyx: how far a block sees around itself, at least 1 along each axis.
      smallest: objects of fewer voxels are removed.
      identity: whatever decides them and is not given here, such as what `read` and `cut` were made
        of, as JSON has it; kept beside the objects. What was begun goes on only if none of this
        differs.
      merging: which fragments become one, by the nearest three affinities; None: none do.
      chunk_zyx: what is read at once later, in voxels; None: see `omezarr.chunk_shape`.
      workers: who does the blocks, see `engine.open_workers`; for others than this process, `read`
        and `cut` have to be picklable.
      progress: whether to show it.

    Returns:
      The number of objects.

    Raises:
      FileExistsError: if there is something at the output.
      ValueError: if the halo is too small, or what is begun there is another one's.
    """
    if min(halo_zyx) < 1:
        raise ValueError(
            f"the halo is {halo_zyx}; expected at least 1 along each axis, or blocks would not see "
            f"what goes on beyond their faces"
        )
    target = store.local_path(output)
    shape = region.shape_zyx
    chunk = chunk_zyx or omezarr.chunk_shape(shape, voxel_size_nm)
    sizes = zip(block_zyx, shape, chunk, strict=True)
    z, y, x = (-(-min(block, size) // c) * c for block, size, c in sizes)
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
        job = _Job(
            *(read, cut, merging, region, (z, y, x), halo_zyx),
            *(array(scratch), array(partial), scratch),
        )
        found = _run(job, smallest, finished, workers, progress)
        store.publish(partial, target, voxel_size_nm, region, attributes)
    return found


def _run(job: _Job, smallest: int, finished: ledger.Finished, workers: Map, progress: bool) -> int:
    every = list(blocks(job.region.shape_zyx, job.block_zyx))

    def step(verb: str, work: Work) -> None:
        here = finished.step(verb)
        do_blocks(work, every, here, verb=verb, log=log, workers=workers, progress=progress)

    step("cut", functools.partial(_cut, job))
    sizes, firsts = zip(
        *(pieces.load(job.folder / "cut", block, "sizes", "firsts") for block in every), strict=True
    )
    stops = np.cumsum([len(each) for each in sizes])
    axes = zip(job.region.shape_zyx, job.block_zyx, strict=True)
    offsets = np.append(0, stops[:-1]).reshape([-(-size // block) for size, block in axes])
    step("connected", functools.partial(_connect, job, offsets))
    objects = _objects(job, every, np.concatenate(sizes), np.concatenate(firsts), smallest)
    table = job.folder / "objects.npy"
    content = io.BytesIO()
    np.save(content, np.append(0, objects).astype(np.uint32))
    # Workers that outlive the run that asked for them may still read its table.
    write_durably(table, content.getvalue())
    step("labelled", functools.partial(_relabel, job, offsets, table))
    return int(objects.max(initial=0))


def _cut(job: _Job, block: Box) -> None:
    """Step 1 of a block."""
    shape = job.region.shape_zyx
    outer = pieces.grown(block, job.halo_zyx, shape)
    labels = job.cut(job.read(outer.moved(job.region.start_zyx)))
    found = pieces.cut_block(labels, outer, block, shape)
    job.ids[block.slices].write(found.ids).result()
    pieces.save(job.folder / "cut", block, **found.arrays())


def _connect(job: _Job, offsets: np.ndarray, block: Box) -> None:
    """Step 2 of a block, and of its faces towards the blocks before it."""
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
        planes = np.moveaxis(ids, axis, 0)[:2, 1:, 1:]
        joined_here = pieces.joins_across(
            planes[0],
            _in_whole(after, offsets[tuple(of_lower)]),
            planes[1],
            _in_whole(before, offsets[tuple(place)]),
        )
        joins.append(joined_here)
    graph = RegionGraph(joins[0], joins[0])
    if job.merging:
        affinities = job.read(block.moved(job.region.start_zyx))
        graph = region_graph(affinities, ids, job.merging.score)
    pieces.save(
        *(job.folder / "connected", block),
        joins=np.concatenate(joins),
        pairs=graph.pairs,
        statistics=graph.statistics,
    )


def _before(block: Box, axis: int, size: int) -> Box:
    """The whole block that a block follows along an axis, where blocks have a size."""
    start, stop = list(block.start_zyx), list(block.stop_zyx)
    start[axis], stop[axis] = start[axis] - size, start[axis]
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def _read_pieces(job: _Job, offsets: np.ndarray, block: Box) -> np.ndarray:
    """The pieces of a block, numbered in the whole, with a plane of those before it on each axis.

    Returns:
      int64, longer by 1 along each axis at its beginning; 0 where the volume begins there.
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
    """Pieces that are numbered in their block, numbered in the whole."""
    return np.where(ids > 0, ids.astype(np.int64) + offset, 0)


def _objects(
    job: _Job, every: Sequence[Box], sizes: np.ndarray, firsts: np.ndarray, smallest: int
) -> np.ndarray:
    """The object of each piece `[n]`, 0 for those that are dropped: the look at the whole."""

    def connected(name: str) -> Iterator[np.ndarray]:
        return (pieces.load(job.folder / "connected", block, name)[0] for block in every)

    u, v = np.concatenate(list(connected("joins"))).T - 1
    joined_pieces = coo_array((np.ones(len(u), bool), (u, v)), shape=(len(sizes), len(sizes)))
    _, fragments = connected_components(joined_pieces, directed=False)
    # Numbered by where they begin, fragments do not depend on blocks; nor do ties between edges.
    objects = _numbered(fragments, firsts)
    if merging := job.merging:
        graph = joined(
            *(list(connected("pairs")), connected("statistics"), merging.score),
            np.append(0, objects),
        )
        count = int(objects.max(initial=0))
        log.info("%d fragments, of which %d pairs touch", count, len(graph.pairs))
        (table,) = merge(graph, count, [merging.threshold], merging.score)
        objects = table[objects]
    voxels = np.bincount(objects, sizes, minlength=1)
    kept = voxels[objects] >= smallest
    numbered = np.zeros_like(objects)
    numbered[kept] = _numbered(objects[kept], firsts[kept])
    return numbered


def _numbered(names: np.ndarray, firsts: np.ndarray) -> np.ndarray:
    """Other names for the same: 1 to n, in the order of the lowest place of each."""
    _, numbers = np.unique(names, return_inverse=True)
    begins = np.full(numbers.max(initial=-1) + 1, np.iinfo(np.int64).max)
    np.minimum.at(begins, numbers, firsts)
    order = np.empty(len(begins), np.int64)
    order[np.argsort(begins)] = np.arange(1, len(begins) + 1)
    return order[numbers]


def _relabel(job: _Job, offsets: np.ndarray, table: Path, block: Box) -> None:
    """Step 3 of a block."""
    ids = _read_pieces(job, offsets, block)[1:, 1:, 1:]
    objects = np.load(table, mmap_mode="r", allow_pickle=False)
    job.labels[block.slices].write(objects[ids]).result()
