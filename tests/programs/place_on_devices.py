"""Lays a state and a batch on eight devices."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from maemem.training.mesh import make_mesh, place, state_sharding

if __name__ == "__main__":
    mesh = make_mesh()
    state = {"wide": jnp.zeros((256, 1024)), "odd": jnp.zeros((1023, 255)), "bias": jnp.zeros(1024)}
    split = state_sharding(mesh, state, fsdp=True)
    assert split["wide"].spec == PartitionSpec(None, "data"), split
    assert split["odd"].spec == split["bias"].spec == PartitionSpec(), split
    whole = state_sharding(mesh, state, fsdp=False)
    assert all(each.spec == PartitionSpec() for each in whole.values()), whole
    placed = jax.device_put(state, split)
    assert placed["wide"].addressable_shards[0].data.shape == (256, 128)
    batch = place(np.arange(16).reshape(16, 1), mesh)
    rows = [shard.data.ravel().tolist() for shard in batch.addressable_shards]
    assert rows == [[2 * i, 2 * i + 1] for i in range(8)], rows
