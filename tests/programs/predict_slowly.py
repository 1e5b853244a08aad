"""Predicts FOLDER/raw.zarr block by block, slowly enough to be killed: FOLDER, WORKERS."""

import sys
import time
from pathlib import Path

from maemem.blockwise.workers import open_workers
from maemem.data.stores.volumes import open_volume
from tests.blockwise.predictions import look_around, run


def slowly(crops):
    time.sleep(0.02)
    return look_around(crops)


if __name__ == "__main__":
    folder, where = Path(sys.argv[1]), sys.argv[2]
    with open_workers(where) as workers:
        volume = open_volume(str(folder / "raw.zarr"))
        run(volume, folder / "killed" / "a.zarr", slowly, workers=workers)
