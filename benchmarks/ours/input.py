"""Random crops read from a zarr, batch by batch."""

from __future__ import annotations

import itertools
import math
import pathlib

from benchmarks.pipeline import made_tissue, open_bare, write_volume
from maemem.data.samples.pipeline import batches, reader

LIBRARIES = ("maemem", "tensorstore", "grain")


def prepare(folder, volume, crop, batch, count, workers):
    path = pathlib.Path(folder) / "volume.zarr"
    write_volume(path, tuple(volume), (8, 64, 64), (128, 512, 512), "raw", made_tissue())
    opened = open_bare(path, cache_mb=1000)
    seeds = itertools.count()

    def step():
        read = reader([opened], [1.0], tuple(crop), seed=next(seeds))
        last = count // batch
        for each in batches(
            read, batch_size=batch, first_step=0, last_step=last, read_threads=workers
        ):
            assert each["image"].shape == (batch, *crop)

    return step, lambda: {"amount": count, "gb": count * math.prod(crop) / 1e9}
