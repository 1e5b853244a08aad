"""The memory that grows with a volume that is segmented in blocks: its graph of fragments.

    python -m benchmarks.graph --score=median --side=192

Segments a cube of made-up predictions, and prints what the look at the whole takes at its peak,
beyond what was held before.
"""

from __future__ import annotations

import dataclasses
import logging
import pathlib
import tempfile
import tracemalloc

import numpy as np
from absl import app, flags

from benchmarks.ours.segmentation import cutting, made_up
from maemem.blockwise import segment
from maemem.geometry import Box
from maemem.segmentation.region_graph import SCORES

_SCORE = flags.DEFINE_enum("score", "mean", SCORES, "Of the affinities across a boundary.")
_SIDE = flags.DEFINE_integer("side", 192, "Of the cube, in voxels; a multiple of 64.")
_BLOCK = (64, 64, 64)


def main(argv: list[str]) -> None:
    del argv
    values = made_up(_SIDE.value)
    peaks, counts = [], []

    def read(box: Box) -> np.ndarray:
        return values[(slice(None), *box.slices)] * np.float32(1 / 255)

    def watched(work, missing):
        """Does the blocks, and notes what was taken since the step before."""
        peaks.append(tracemalloc.get_traced_memory()[1] - held[0])
        for block in missing:
            yield work(block)
        tracemalloc.reset_peak()
        held[0] = tracemalloc.get_traced_memory()[0]

    def note(record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple) and "fragments" in record.msg:
            counts.extend(record.args)
        return True

    segment.log.setLevel(logging.INFO)
    segment.log.addFilter(note)
    cut, merging = cutting("steepest")
    merging = dataclasses.replace(merging, score=_SCORE.value)
    held = [0]
    tracemalloc.start()
    with tempfile.TemporaryDirectory() as folder:
        segment.segment_volume(
            *(read, cut, pathlib.Path(folder) / "objects.zarr"),
            region=Box((0, 0, 0), values.shape[1:]),
            voxel_size_nm=(10.0, 10.0, 10.0),
            block_zyx=_BLOCK,
            halo_zyx=(8, 8, 8),
            smallest=0,
            identity={},
            merging=merging,
            workers=watched,
            progress=False,
        )
    taken, (fragments, pairs) = peaks[-1], counts
    print(
        f"{_SCORE.value}: {fragments} fragments, {pairs} pairs, {taken / 2**20:.0f} MiB: "
        f"{taken / fragments:.0f} bytes a fragment, {taken / pairs:.0f} a pair"
    )


if __name__ == "__main__":
    app.run(main)
