"""The memory that tuning and decoding take: bytes a voxel at the peak, beyond what was held before.

    python -m benchmarks.memory --method=waterz --side=256

Tries a part of the default grid (the first value of each threshold, but all scores of waterz) on a
cube of made-up predictions, and scores what comes out, as the stage `segment` does. Needs Linux.
"""

from __future__ import annotations

import pathlib
import re

import jax.numpy as jnp
import numpy as np
from absl import app, flags
from scipy.ndimage import gaussian_filter

from maemem.config import markers, mutex, waterz
from maemem.data.synthetic import make_tissue
from maemem.objectives.affinity import LEE, NEAREST, Affinity
from maemem.objectives.bcd import Bcd
from maemem.segmentation.contingency import contingency
from maemem.segmentation.decoders import candidates
from maemem.segmentation.summary import score_all

_METHODS = {
    "waterz": (waterz, Affinity(NEAREST)),
    "mutex": (mutex, Affinity(LEE)),
    "markers": (markers, Bcd()),
}
_METHOD = flags.DEFINE_enum("method", "waterz", list(_METHODS), "What decodes.")
_SIDE = flags.DEFINE_integer("side", 256, "Of the cube, in voxels; a multiple of 64.")


def resident(name: str) -> int:
    """Bytes of this process: VmRSS, held now, or VmHWM, the most so far."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.findall(rf"{name}:\s+(\d+) kB", status)[0]) << 10


def stored(method: str, side: int) -> tuple[np.ndarray, np.ndarray]:
    """A prediction as it is stored, uint8 `[c z y x]`, and the truth, of one cube over and over."""
    labels = make_tissue((64, 64, 64), (10.0, 10.0, 10.0)).neurites
    target = _METHODS[method][1]
    values = np.array(target.targets(jnp.asarray(labels[None], jnp.int32))[0][0])
    if method == "markers":
        values[..., 2] = (values[..., 2] + 1) / 2
    # Networks err smoothly; white noise would part the tissue into far more fragments.
    noise = np.random.default_rng(0).normal(size=values.shape)
    noise = gaussian_filter(noise, 2.0, axes=(0, 1, 2))
    values = values + 0.15 * noise / noise.std()
    small = np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8).transpose(3, 0, 1, 2)
    times = side // 64
    return np.tile(small, (1, times, times, times)), np.tile(labels, (times, times, times))


def main(argv: list[str]) -> None:
    del argv
    settings, target = _METHODS[_METHOD.value][0](), _METHODS[_METHOD.value][1]
    prediction, truth = stored(_METHOD.value, _SIDE.value)
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
