"""Targets of labelled crops on the device; which of them are known is worked out as well."""

from __future__ import annotations

import jax
import numpy as np

from benchmarks.labels import crops_of_cells, fingerprint
from maemem.learners.targets.affinity import Affinity
from maemem.learners.targets.bcd import Bcd

LIBRARIES = ("maemem", "jax")


def prepare(crops, shape, thickness, offsets, times):
    labels = jax.device_put(crops_of_cells(crops, shape, thickness))
    objective = Affinity(tuple(map(tuple, offsets))) if offsets else Bcd()
    make = jax.jit(lambda labels: objective.targets({"labels": labels}))

    def step():
        for _ in range(times):
            jax.block_until_ready(make(labels))

    def facts():
        values, _ = make(labels)
        return {"amount": times * crops, "result": fingerprint(np.asarray(values))}

    return step, facts
