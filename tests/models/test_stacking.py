import jax
import numpy as np

from maemem.models.stacking import stack_blocks, unstack_blocks

DEPTH = 101  # By name, block_100 would come before block_11.
BLOCKS = {f"block_{i:02d}": {"mlp": {"kernel": np.full((2, 3), i)}} for i in range(DEPTH)}
OTHERS = {"norm": {"scale": np.ones(3)}}
PLAIN = {"encoder": {"transformer": BLOCKS | OTHERS}, "climb": {"block_0": np.ones(3)}}
STACKED = {
    "encoder": {
        "transformer": {
            "blocks": {"mlp": {"kernel": np.arange(DEPTH)[:, None, None] * np.ones((2, 3), int)}},
            **OTHERS,
        }
    },
    "climb": {"block_0": np.ones(3)},
}


def test_blocks_of_transformers_are_stacked_in_their_order():
    jax.tree.map(np.testing.assert_array_equal, stack_blocks(PLAIN), STACKED)


def test_stacked_blocks_are_taken_apart():
    jax.tree.map(np.testing.assert_array_equal, unstack_blocks(STACKED), PLAIN)


def test_what_is_arranged_already_stays():
    jax.tree.map(np.testing.assert_array_equal, stack_blocks(STACKED), STACKED)
    jax.tree.map(np.testing.assert_array_equal, unstack_blocks(PLAIN), PLAIN)
