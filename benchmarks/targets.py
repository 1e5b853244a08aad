"""How long targets take on the device, beside numpy and the `edt` library on the host.

    python -m benchmarks.targets

Both make the targets of the same fully labelled crops, cells with membranes between them, and must
agree. What is jitted also works out which targets are known; the host does without. They are timed
in turns, and `speedup` is the median of the host's time over the device's, pair by pair, which a
busy machine disturbs less than either time.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

import edt
import jax
import numpy as np
from absl import app, flags
from scipy.ndimage import maximum_filter
from scipy.spatial import KDTree

from maemem.geometry import Zyx, format_zyx
from maemem.objectives.affinity import LEE, NEAREST, Affinity
from maemem.objectives.bcd import BACKGROUND_SCALE, FOREGROUND_SCALE, Bcd

_REPEATS = flags.DEFINE_integer("repeats", 15, "Timed pairs of each measurement.")

# Crops in a batch, their shape, and the step from section to section, in voxels of the plane.
BATCHES = ((16, (6, 96, 96), 5.0), (4, (48, 48, 48), 1.0))


def main(argv: list[str]) -> None:
    results = []
    for batch, shape, thickness in BATCHES:
        crops = np.stack([cells(shape, thickness, seed) for seed in range(batch)])
        for name, objective in {
            "affinity, nearest three": Affinity(NEAREST),
            "affinity, Lee's twelve": Affinity(LEE),
            "BCD": Bcd(),
        }.items():
            result = {"targets": name, "crops": f"{batch} of {format_zyx(shape)}"}
            results.append(result | compare(objective, crops))
    print(json.dumps({"device": jax.devices()[0].device_kind, "results": results}, indent=2))


def compare(objective: Affinity | Bcd, crops: np.ndarray) -> dict[str, float]:
    """Median milliseconds of both ways on crops `[b z y x]`, and the median of paired ratios."""
    on_device = jax.device_put(crops)
    jitted = jax.jit(objective.targets)

    def device() -> np.ndarray:
        values, _ = jax.block_until_ready(jitted(on_device))
        return values

    def host() -> np.ndarray:
        if isinstance(objective, Affinity):
            return affinities(crops, objective.offsets_zyx)
        return bcd(crops, objective.contour_width)

    np.testing.assert_allclose(device(), host(), atol=1e-5)
    pairs = [(seconds(device), seconds(host)) for _ in range(_REPEATS.value)]
    figures = {
        "device_ms": 1000 * statistics.median(pair[0] for pair in pairs),
        "host_ms": 1000 * statistics.median(pair[1] for pair in pairs),
        "speedup": statistics.median(slow / fast for fast, slow in pairs),
    }
    return {name: round(value, 2) for name, value in figures.items()}


def seconds(work: Callable[[], np.ndarray]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def affinities(crops: np.ndarray, offsets_zyx: tuple[Zyx, ...]) -> np.ndarray:
    """Affinities of crops `[b z y x]` along offsets that are not positive, by slices."""
    out = np.zeros((*crops.shape, len(offsets_zyx)), np.float32)
    for channel, offset in enumerate(offsets_zyx):
        ends = tuple(slice(-step, None) for step in offset)
        starts = tuple(slice(None, step or None) for step in offset)
        here, there = crops[:, *ends], crops[:, *starts]
        out[:, *ends, channel] = (here == there) & (here > 0)
    return out


def bcd(crops: np.ndarray, width: int) -> np.ndarray:
    """Binary, contour and distance of crops `[b z y x]`, section by section."""
    out = np.empty((*crops.shape, 3), np.float32)
    for place in np.ndindex(crops.shape[:2]):
        section = crops[place]
        inside = section > 0
        edge = np.zeros(section.shape, bool)
        down = section[1:] != section[:-1]
        right = section[:, 1:] != section[:, :-1]
        edge[1:] |= down
        edge[:-1] |= down
        edge[:, 1:] |= right
        edge[:, :-1] |= right
        depth = edt.edt(inside) / FOREGROUND_SCALE - edt.edt(~inside) / BACKGROUND_SCALE
        out[place] = np.stack(
            [inside, maximum_filter(edge, 2 * width + 1), np.tanh(depth)], axis=-1
        )
    return out


def cells(shape_zyx: Zyx, thickness: float, seed: int) -> np.ndarray:
    """Labels `[z y x]` of the regions nearest to random points, with membranes between them."""
    extent = np.array(shape_zyx) * (thickness, 1, 1)
    random = np.random.default_rng(seed)
    count = int((extent + 20).prod() / 15**3)
    points = random.uniform(-10, extent + 10, (count, 3))
    voxels = np.indices(shape_zyx).reshape(3, -1).T * (thickness, 1, 1)
    distances, nearest = map(np.asarray, KDTree(points).query(voxels, 2))
    labels = np.where(distances[:, 1] - distances[:, 0] < 2, 0, nearest[:, 0] + 1)
    return labels.reshape(shape_zyx).astype(np.int32)


if __name__ == "__main__":
    app.run(main)
