import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maemem.learners.supervised import Supervised
from maemem.learners.targets.affinity import Affinity
from maemem.stages import predict
from tests.learners.made import given_unet, like


@pytest.mark.skipif(
    jax.default_backend() != "cpu" or jax.device_count() > 1, reason="done on one processor alone"
)
def test_large_crops_one_after_the_other_say_the_same_in_less_memory(monkeypatch):
    learner = Supervised(given=given_unet((1, 2, 2), (4,), target=Affinity()))
    params = learner.init(jax.random.key(0), like((4, 32, 32)))
    random = np.random.default_rng(0)
    crops = jnp.asarray(random.integers(0, 256, (6, 4, 32, 32), np.uint8))
    together = predict.jitted(learner).lower(params, crops).compile()
    monkeypatch.setattr(predict, "_LARGE_CROP", 1)
    single = predict.jitted(learner).lower(params, crops).compile()
    np.testing.assert_allclose(single(params, crops), together(params, crops), atol=1e-5)
    used = [each.memory_analysis().temp_size_in_bytes for each in (single, together)]
    assert used[0] < used[1] / 2
