import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maemem.learners.supervised import Segmentation
from maemem.learners.targets.affinity import NEAREST, Affinity
from maemem.models.segmenters.unet import ResidualUnet
from maemem.stages import predict


@pytest.mark.skipif(
    jax.default_backend() != "cpu" or jax.device_count() > 1, reason="done on one processor alone"
)
def test_large_crops_one_after_the_other_say_the_same_in_less_memory(monkeypatch):
    model = ResidualUnet((1, 2, 2), (4,), len(NEAREST))
    objective = Segmentation(model, Affinity(NEAREST), (0.0, 255.0))
    params = objective.init(jax.random.key(0), (4, 32, 32))
    random = np.random.default_rng(0)
    crops = jnp.asarray(random.integers(0, 256, (6, 4, 32, 32), np.uint8))
    together = predict.jitted(objective).lower(params, crops).compile()
    monkeypatch.setattr(predict, "_LARGE_CROP", 1)
    single = predict.jitted(objective).lower(params, crops).compile()
    np.testing.assert_allclose(single(params, crops), together(params, crops), atol=1e-5)
    used = [each.memory_analysis().temp_size_in_bytes for each in (single, together)]
    assert used[0] < used[1] / 2
