"""A plain 3-D vision transformer, which can encode the visible patches alone (He et al. 2021)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int, PyTree

from maemem.fields import given
from maemem.geometry import Zyx
from maemem.models.compute import Compute
from maemem.models.contract import Level
from maemem.models.layers import Rotation, Tokens, Transformer, dense
from maemem.models.patches import patchify, take_tokens, token_grid
from maemem.models.position import rotary_angles, sincos_embedding

# Tiny and small are DeiT's (Touvron et al. 2021), base is ViT-B (Dosovitskiy et al. 2021). Large is
# the one whose multiply-adds Cheng et al. (2023) publish, wider than the usual ViT-L.
VIT_SIZES: dict[str, dict[str, int]] = {
    "tiny": {"width": 192, "depth": 12, "heads": 3},
    "small": {"width": 384, "depth": 12, "heads": 6},
    "base": {"width": 768, "depth": 12, "heads": 12},
    "large": {"width": 1152, "depth": 24, "heads": 16},
}


def check_size(width: int, depth: int, heads: int) -> None:
    """Raises ValueError for a transformer that cannot be built."""
    if min(width, depth, heads) < 1 or width % (2 * heads):
        raise ValueError(
            f"width {width}, depth {depth}, heads {heads}; expected: positive, the width an even "
            f"multiple of heads"
        )
    if depth > 1000:
        raise ValueError(f"depth is {depth}; expected: at most 1000")


def gather_positions(table: np.ndarray, ids: Int[Array, "b n"] | None) -> Float[Array, "#b n d"]:
    """Position embeddings `[n d]` of the tokens `ids`; of all tokens if `ids` is None."""
    return jnp.asarray(table)[None] if ids is None else jnp.asarray(table)[ids]


def gather_rotation(
    rotary: bool, grid_zyx: Zyx, head_width: int, ids: Int[Array, "b n"] | None
) -> Rotation | None:
    """Cosines and sines of the rotary embedding of the tokens `ids`; None without rotary."""
    if not rotary:
        return None
    angles = rotary_angles(grid_zyx, head_width)
    return gather_positions(np.cos(angles), ids), gather_positions(np.sin(angles), ids)


class PretrainedPositions(nn.Module):
    """Position embedding and class token of a 2-D vision transformer.

    The table of in-plane positions is resampled to the tokens' grid and shared by all sections.
    Depth, sin-cos along z, is added times a gain that is learnt from 0 on: a network that starts
    from 2-D weights (see `models.inflation`) at first treats one section as they did.

    Attributes:
      grid_yx: how many positions the table has along y and x.
    """

    grid_yx: tuple[int, int]

    @nn.compact
    def __call__(
        self, tokens: Tokens, grid_zyx: Zyx, ids: Int[Array, "b n"] | None
    ) -> Float[Array, "b n_and_1 d"]:
        """The class token, then the tokens `ids` (all, if None) with their positions."""
        b, _, width = tokens.shape
        table = self.param("table", nn.initializers.normal(0.02), (*self.grid_yx, width))
        gain = self.param("depth_gain", nn.initializers.zeros, (width,))
        first = self.param("class_token", nn.initializers.normal(0.02), (width,))
        if self.grid_yx != tuple(grid_zyx[1:]):
            table = jax.image.resize(table, (*grid_zyx[1:], width), "cubic")
        depth = gain * sincos_embedding(grid_zyx[:1], width)  # [z d]
        positions = (depth[:, None, None] + table).reshape(-1, width)  # [z y x d] -> [n d]
        positions = positions[None] if ids is None else positions[ids]
        first = jnp.broadcast_to(first, (b, 1, width)).astype(tokens.dtype)
        return jnp.concatenate([first, tokens + positions.astype(tokens.dtype)], axis=1)


class Vit(nn.Module):
    """A plain 3-D ViT, without class token unless it starts from a 2-D one.

    Attributes:
      patch_zyx: shape of a patch, in voxels.
      width: of its tokens.
      depth: how many blocks.
      heads: attention heads of a block.
      rotary: rotary embedding of queries and keys on top of the sin-cos embedding.
      positions_yx: for an encoder that starts from 2-D weights, how many positions these know along
        y and x, (14, 14) for 224 pixels in patches of 16. They replace the sin-cos embedding, and
        do not go with `rotary`. (): sin-cos, as Cheng et al. (2023) have it.
      compute: see `models.compute`.
    """

    patch_zyx: Zyx = (1, 16, 16)
    width: int = 768
    depth: int = 12
    heads: int = 12
    rotary: bool = False
    positions_yx: tuple[()] | tuple[int, int] = ()
    compute: Compute = given(default=Compute())

    def __post_init__(self):
        check_size(self.width, self.depth, self.heads)
        if min(self.patch_zyx) < 1:
            raise ValueError(f"patch_zyx is {self.patch_zyx}; expected: at least 1 voxel each")
        if self.positions_yx and (self.rotary or min(self.positions_yx) < 1):
            raise ValueError(
                f"positions_yx is {self.positions_yx} with rotary {self.rotary}; expected: two "
                f"positive numbers, and rotary False, since positions are those of 2-D weights"
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self, image: Float[Array, "b z y x c"], visible: Int[Array, "b v"] | None = None
    ) -> list[Level]:
        """The tokens after a quarter, a half, three quarters and all of the blocks.

        The last are normed. See `models.contract.Encoder`.
        """
        grid = token_grid(image.shape[1:4], self.patch_zyx)
        patches = patchify(image, self.patch_zyx)  # [b z y x c] -> [b n patch]
        if visible is not None:
            patches = take_tokens(patches, visible)  # [b n patch] -> [b v patch]
        tokens = dense(self.width, self.compute, name="patch_embedding")(patches)
        transformer = Transformer(self.depth, self.heads, self.compute, name="transformer")
        if self.positions_yx:
            positions = PretrainedPositions(self.positions_yx, name="positions")
            states = transformer(positions(tokens, grid, visible))
            states = [state[:, 1:] for state in states]  # Without the class token.
        else:
            position = gather_positions(sincos_embedding(grid, self.width), visible)
            rotation = gather_rotation(self.rotary, grid, self.width // self.heads, visible)
            states = transformer(tokens + position.astype(tokens.dtype), rotation)
        quarters = [states[max(1, round(self.depth * k / 4)) - 1] for k in (1, 2, 3)]
        features = [*quarters, states[-1]]
        if visible is None:  # [b n d] -> [b z y x d]
            features = [state.reshape(len(image), *grid, self.width) for state in features]
        return [Level(each, self.patch_zyx) for each in features]

    def below(self, params: PyTree) -> PyTree:
        """See `models.contract.Encoder`: the last norm 0, block i of n n − i, all else n + 1."""
        layers = {f"block_{i:02d}": self.depth - i for i in range(self.depth)} | {"norm": 0}
        depths = {
            name: jax.tree.map(lambda _: self.depth + 1, part) for name, part in params.items()
        }
        depths["transformer"] = {
            name: jax.tree.map(lambda _, name=name: layers[name], part)
            for name, part in params["transformer"].items()
        }
        return depths
