"""Draws a first state that is split over eight devices: no device ever holds all of it."""

import jax

from maemem.learners.mae import DecoderSize, MaskedReconstruction
from maemem.training.mesh import make_mesh, state_sharding
from maemem.training.optimizer import Optimizer
from maemem.training.step import make_init, state_like
from tests.learners.made import given_vit, like

if __name__ == "__main__":
    given = given_vit((1, 8, 8), (128, 6, 2))
    learner = MaskedReconstruction("random", 0.75, decoder=DecoderSize(128, 2, 2), given=given)
    sgd = Optimizer(name="sgd", learning_rate=0.1, momentum=0.0)
    init = make_init(learner, sgd, like((4, 32, 32), 8), steps=10, ema=False)
    state = state_like(init, make_mesh(), fsdp=True)
    drawn = jax.jit(init, out_shardings=state_sharding(make_mesh(), state, fsdp=True))
    used = drawn.lower(jax.random.key(0)).compile().memory_analysis().temp_size_in_bytes
    whole = sum(4 * leaf.size for leaf in jax.tree.leaves(state.params))
    assert used < whole / 4, (used, whole)
