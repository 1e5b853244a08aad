import subprocess
import sys

import pytest

from maemem.training.mesh import check_divisible, join_cluster
from tests.runs import REPOSITORY, environment

_SHARDING = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import PartitionSpec as P
from maemem.training.mesh import make_mesh, place, state_sharding

mesh = make_mesh()
state = {"wide": jnp.zeros((256, 1024)), "odd": jnp.zeros((1023, 255)), "bias": jnp.zeros(1024)}
split = state_sharding(mesh, state, fsdp=True)
assert split["wide"].spec == P(None, "data"), split
assert split["odd"].spec == split["bias"].spec == P(), split
whole = state_sharding(mesh, state, fsdp=False)
assert all(s.spec == P() for s in whole.values()), whole
placed = jax.device_put(state, split)
assert placed["wide"].addressable_shards[0].data.shape == (256, 128)
batch = place(np.arange(16).reshape(16, 1), mesh)
rows = [shard.data.ravel().tolist() for shard in batch.addressable_shards]
assert rows == [[2 * i, 2 * i + 1] for i in range(8)], rows
"""

_FIRST_STATE = """
import jax, optax
from maemem.models.mae import MaskedAutoencoder
from maemem.learners.mae import Reconstruction
from maemem.training.mesh import make_mesh
from maemem.training.step import state_maker

model = MaskedAutoencoder((1, 8, 8), (128, 6, 2), (128, 2, 2))
objective = Reconstruction(model, (0, 255), "random", 0.75)
def init(key):
    return objective.init(key, (4, 32, 32))
like, make = state_maker(init, optax.sgd(0.1), seed=0, ema=False, mesh=make_mesh(), fsdp=True)
used = make.func.lower(*make.args).compile().memory_analysis().temp_size_in_bytes
whole = sum(4 * leaf.size for leaf in jax.tree.leaves(like.params))
assert used < whole / 4, (used, whole)
"""


@pytest.mark.parametrize("program", [_SHARDING, _FIRST_STATE], ids=["placed", "drawn"])
def test_large_parameters_are_split_over_devices(program):
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, env=environment(8), check=True)


def test_a_batch_that_devices_do_not_divide_is_refused():
    with pytest.raises(ValueError, match=r"crops 7 is not divisible by .* nearest: 6 or 8"):
        check_divisible("crops", 7, 2)
    check_divisible("crops", 8, 2)


def test_half_a_cluster_is_refused(monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "localhost:1234")
    with pytest.raises(ValueError, match=r"needs all of .*JAX_PROCESS_ID"):
        join_cluster()
