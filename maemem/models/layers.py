"""Transformer blocks."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from maemem.models.compute import Compute
from maemem.models.position import rotate

# Logits of more than this do not stay in a processor's cache; and below it, what the backward pass
# keeps of them (four times as much) is little.
_CACHE_BYTES = 4 << 20

Tokens = Float[Array, "b n d"]
Heads = Float[Array, "b n h d"]
CropHeads = Float[Array, "n h d"]
# Cosines and sines of the angles that turn the queries and keys of each token.
Rotation = tuple[Float[Array, "#b n half_head"], Float[Array, "#b n half_head"]]


def dense(features: int, compute: Compute, name: str | None = None) -> nn.Dense:
    """A linear layer, initialised as in MAE (He et al. 2021)."""
    init = nn.initializers.xavier_uniform()
    return nn.Dense(features, dtype=compute.dtype, kernel_init=init, name=name)


def layer_norm(compute: Compute, name: str | None = None) -> nn.LayerNorm:
    """Layer norm; its statistics are float32 whatever the compute dtype."""
    return nn.LayerNorm(epsilon=1e-6, dtype=compute.dtype, name=name)


def attend(query: Heads, key: Heads, value: Heads, implementation: str) -> Heads:
    """Softmax attention; `implementation` as in `Compute.attention`."""
    b, n, h, width = query.shape
    # The fused kernel has no gradient for an odd number of tokens; the article's encoder sees 21.
    if implementation == "cudnn" and n % 2 == 0 and width % 8 == 0 and width <= 128:
        return jax.nn.dot_product_attention(query, key, value, implementation="cudnn")
    if implementation != "sequential" or 4 * b * h * n * n < _CACHE_BYTES:
        return jax.nn.dot_product_attention(query, key, value, implementation="xla")
    # Recomputing a crop's logits in the backward pass is cheaper than fetching them from memory.
    return jax.lax.map(jax.checkpoint(lambda crop: _attend_in_crop(*crop)), (query, key, value))


def _attend_in_crop(query: CropHeads, key: CropHeads, value: CropHeads) -> CropHeads:
    logits = jnp.einsum("nhd,mhd->hnm", query, key, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(logits * query.shape[-1] ** -0.5).astype(value.dtype)
    return jnp.einsum("hnm,mhd->nhd", weights, value)


class Attention(nn.Module):
    """Multi-head self-attention."""

    heads: int
    compute: Compute

    @nn.compact
    def __call__(self, tokens: Tokens, rotation: Rotation | None) -> Tokens:
        """Mixes the tokens; `rotation`, if given, turns queries and keys."""
        b, n, d = tokens.shape
        qkv = dense(3 * d, self.compute, name="qkv")(tokens)
        qkv = qkv.reshape(b, n, 3, self.heads, d // self.heads)  # [b n 3d] -> [b n 3 h head]
        query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        if rotation is not None:
            query, key = rotate(query, *rotation), rotate(key, *rotation)
        mixed = attend(query, key, value, self.compute.attention)
        return dense(d, self.compute, name="out")(mixed.reshape(b, n, d))  # [b n h head] -> [b n d]


class Block(nn.Module):
    """A pre-norm transformer block (Dosovitskiy et al. 2021), its hidden layer 4 × as wide."""

    heads: int
    compute: Compute

    @nn.compact
    def __call__(self, tokens: Tokens, rotation: Rotation | None = None) -> Tokens:
        """Tokens in, tokens out."""
        normed = layer_norm(self.compute, name="norm_attention")(tokens)
        tokens = tokens + Attention(self.heads, self.compute, name="attention")(normed, rotation)
        hidden = layer_norm(self.compute, name="norm_mlp")(tokens)
        hidden = dense(4 * tokens.shape[-1], self.compute, name="mlp_in")(hidden)
        hidden = nn.gelu(hidden, approximate=False)
        return tokens + dense(tokens.shape[-1], self.compute, name="mlp_out")(hidden)


class Transformer(nn.Module):
    """A row of blocks and a last norm."""

    depth: int
    heads: int
    compute: Compute

    @nn.compact
    def __call__(self, tokens: Tokens, rotation: Rotation | None = None) -> list[Tokens]:
        """The tokens after each block, the last of them normed."""
        block = nn.remat(Block) if self.compute.remat else Block
        block = nn.jit(block)  # Blocks are alike: they are traced and lowered once.
        states = []
        for i in range(self.depth):
            tokens = block(self.heads, self.compute, name=f"block_{i:02d}")(tokens, rotation)
            states.append(tokens)
        return [*states[:-1], layer_norm(self.compute, name="norm")(tokens)]
