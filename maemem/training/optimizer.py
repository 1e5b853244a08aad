"""AdamW and SGD with warm-up and cosine decay, for a whole network or the upper part of one."""

import dataclasses
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """How parameters follow the gradient.

    Attributes:
      name: `adamw` (Loshchilov & Hutter 2019) or `sgd`, with momentum.
      learning_rate: at its peak.
      warmup_steps: in which it rises linearly from 0.
      steps: in which, warm-up included, it falls to 0 along a cosine.
      betas: decay of AdamW's two moments.
      momentum: of SGD.
      weight_decay: of kernels; biases, norms and the mask token are spared. AdamW's is decoupled,
        SGD's is part of the gradient.
      clip_norm: the largest gradient norm; 0 never clips.
      layer_decay: the factor of the learning rate from one block of the encoder to the one below
        (Clark et al. 2020; He et al. 2021); what is not in the encoder has the full rate.
      freeze_encoder: whether the encoder stays as it is.
    """

    name: str
    learning_rate: float
    warmup_steps: int
    steps: int
    betas: tuple[float, float]
    momentum: float
    weight_decay: float
    clip_norm: float
    layer_decay: float = 1.0
    freeze_encoder: bool = False

    def __post_init__(self):
        if self.name not in ("adamw", "sgd"):
            raise ValueError(f"optimizer {self.name!r} is unknown; choose adamw or sgd")
        if not 0 <= self.warmup_steps < self.steps:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} must be at least 0 and less than "
                f"steps {self.steps}"
            )

    def schedule(self) -> optax.Schedule:
        """The learning rate as a function of the steps done."""
        return optax.warmup_cosine_decay_schedule(
            0.0 if self.warmup_steps else self.learning_rate,
            self.learning_rate,
            self.warmup_steps,
            self.steps,
        )

    def transformation(self) -> optax.GradientTransformation:
        """The optimizer."""
        rate, decay = self.schedule(), self.weight_decay
        # Before clipping, whose norm is that of what is trained.
        steps = [_scaled(frozen_scales)] if self.freeze_encoder else []
        if self.clip_norm:
            steps.append(_clipped(self.clip_norm))
        if self.name == "adamw":
            steps.append(optax.adamw(rate, *self.betas, weight_decay=decay, mask=_is_kernel))
        else:
            steps.append(optax.add_decayed_weights(decay, mask=_is_kernel))
            steps.append(optax.sgd(rate, momentum=self.momentum))
        if self.layer_decay != 1:
            steps.append(_scaled(lambda updates: layer_scales(updates, self.layer_decay)))
        if self.freeze_encoder:  # Once more, after weight decay.
            steps.append(_scaled(frozen_scales))
        return optax.chain(*steps) if len(steps) > 1 else steps[0]


def tree_norm(tree: PyTree) -> Float[Array, ""]:
    """The Euclidean norm of all leaves together.

    A transformer has twice as many vectors as matrices. They share one sum: with one for each, a
    step is made of a thousand more programs, each of which takes its time to compile and to load.
    """
    leaves = jax.tree.leaves(tree)
    vectors = [leaf.ravel() for leaf in leaves if leaf.ndim < 2]
    matrices = [leaf for leaf in leaves if leaf.ndim > 1]
    return optax.tree.norm([jnp.concatenate(vectors), *matrices] if vectors else matrices)


def _clipped(limit: float) -> optax.GradientTransformation:
    """Scales the updates down to a norm of at most `limit` (Pascanu et al. 2013)."""

    def clip(updates, _):
        scale = jnp.minimum(1, limit / tree_norm(updates))
        return jax.tree.map(lambda update: update * scale.astype(update.dtype), updates)

    return optax.stateless(clip)


def _is_kernel(params: PyTree) -> PyTree:
    """Which leaves decay: kernels alone."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: getattr(path[-1], "key", None) == "kernel", params
    )


def _scaled(scales: Callable[[PyTree], PyTree]) -> optax.GradientTransformation:
    """Multiplies every update by its scale."""
    return optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, scales(updates)))


def frozen_scales(params: PyTree) -> PyTree:
    """0 for every parameter of the encoder, 1 for all others."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: 0.0 if _names(path)[0] == "encoder" else 1.0, params
    )


def layer_scales(params: PyTree, decay: float) -> PyTree:
    """The factor of the learning rate of every parameter.

    Of an encoder of n blocks, block i (from 0) has decay ** (n - i), the patch embedding
    and what goes with it decay ** (n + 1), the last norm 1; as has everything outside of the
    encoder.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    blocks = max((_block(path) for path, _ in leaves), default=-1) + 1

    def scale(path, _):
        if _names(path)[0] != "encoder":
            return 1.0
        if _names(path)[1] in ("patch_embedding", "plane"):
            return decay ** (blocks + 1)
        block = _block(path)
        return decay ** (blocks - block) if block >= 0 else 1.0

    return jax.tree_util.tree_map_with_path(scale, params)


def _names(path) -> list[str]:
    return [str(getattr(part, "key", part)) for part in path]


def _block(path) -> int:
    """The number of the encoder's block that a parameter belongs to; −1 if it belongs to none."""
    names = _names(path)
    if names[0] != "encoder" or "transformer" not in names:
        return -1
    found = re.fullmatch(r"block_(\d+)", names[names.index("transformer") + 1])
    return int(found[1]) if found else -1
