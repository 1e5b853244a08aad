"""Draws a first state that is split over eight devices: no device ever holds all of it."""

import jax
import optax

from maemem.learners.mae import Reconstruction
from maemem.models.mae import MaskedAutoencoder
from maemem.training.mesh import make_mesh
from maemem.training.step import state_maker

if __name__ == "__main__":
    model = MaskedAutoencoder((1, 8, 8), (128, 6, 2), (128, 2, 2))
    objective = Reconstruction(model, (0, 255), "random", 0.75)
    like, make = state_maker(
        lambda key: objective.init(key, (4, 32, 32)),
        optax.sgd(0.1),
        seed=0,
        ema=False,
        mesh=make_mesh(),
        fsdp=True,
    )
    used = make.func.lower(*make.args).compile().memory_analysis().temp_size_in_bytes
    whole = sum(4 * leaf.size for leaf in jax.tree.leaves(like.params))
    assert used < whole / 4, (used, whole)
