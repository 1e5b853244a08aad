"""Objects decoded from a made-up prediction."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from scipy.ndimage import gaussian_filter

from maemem.config import markers, mutex, waterz
from maemem.data.synthetic import make_tissue
from maemem.objectives.affinity import LEE, NEAREST, Affinity
from maemem.objectives.bcd import Bcd
from maemem.segmentation.decoders import decode

LIBRARIES = ("maemem", "waterz", "scikit-image")
METHODS = {
    "waterz": (waterz, Affinity(NEAREST)),
    "mutex": (mutex, Affinity(LEE)),
    "markers": (markers, Bcd()),
}


def prepare(method, side):
    settings, target = METHODS[method][0](), METHODS[method][1]
    prediction = made_up(method, side)[0] * np.float32(1 / 255)
    thresholds = {name: tried[0] for name, tried in settings.grid.to_dict().items()}
    offsets = target.offsets_zyx if isinstance(target, Affinity) else ()

    def step():
        decode(
            method,
            prediction,
            thresholds,
            smallest=settings.smallest,
            offsets_zyx=offsets,
        )

    return step, lambda: {"amount": side**3}


def made_up(method: str, side: int) -> tuple[np.ndarray, np.ndarray]:
    """A prediction as it is stored, uint8 `[c z y x]`, and the truth, of one cube over and over."""
    labels = make_tissue((64, 64, 64), (10.0, 10.0, 10.0)).neurites
    target = METHODS[method][1]
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
