"""The memory that tuning and decoding take: bytes a voxel at the peak, beyond what was held before.

    python -m benchmarks.memory --method=waterz --side=256
    python -m benchmarks.memory --method=waterz --side=128 --unsure

Tries a part of the default grid (the first value of each threshold, but all scores of waterz) on a
cube of made-up predictions, and scores what comes out, as the stage `segment` does. Needs Linux.
"""

from __future__ import annotations

import pathlib
import re

import numpy as np
from absl import app, flags

from benchmarks.ours.segmentation import METHODS, made_up
from maemem.learners.targets.affinity import Affinity
from maemem.scores.contingency import contingency
from maemem.scores.summary import score_all
from maemem.segmentation.decoders import candidates

_METHOD = flags.DEFINE_enum("method", "waterz", list(METHODS), "What decodes.")
_SIDE = flags.DEFINE_integer("side", 256, "Of the cube, in voxels; a multiple of 64.")


_UNSURE = flags.DEFINE_bool("unsure", False, "As of a network that is hardly trained.")


def resident(name: str) -> int:
    """Bytes of this process: VmRSS, held now, or VmHWM, the most so far."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.findall(rf"{name}:\s+(\d+) kB", status)[0]) << 10


def main(argv: list[str]) -> None:
    del argv
    settings, target = METHODS[_METHOD.value][0](), METHODS[_METHOD.value][1]
    prediction, truth = made_up(_METHOD.value, _SIDE.value, _UNSURE.value)
    before = resident("VmRSS") - prediction.nbytes - truth.nbytes
    grid = settings.grid.to_dict()
    grid = {name: tried if name == "score" else tried[:1] for name, tried in grid.items()}
    found = candidates(
        _METHOD.value,
        prediction * np.float32(1 / 255),
        grid,
        smallest=settings.smallest,
        offsets_zyx=target.offsets_zyx if isinstance(target, Affinity) else (),
    )
    tried = [score_all(contingency(truth, labels), True) for _, labels in found]
    taken = resident("VmHWM") - before
    print(f"{len(tried)} combinations, {taken / 2**30:.2f} GiB, {taken / truth.size:.0f} B/voxel")


if __name__ == "__main__":
    app.run(main)
