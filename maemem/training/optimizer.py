"""AdamW and SGD with warm-up and cosine decay, by groups of parameters."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from maemem.learners.contract import Group


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """How parameters follow the gradient.

    Attributes:
      name: `adamw` (Loshchilov & Hutter 2019) or `sgd`, with momentum.
      learning_rate: at its peak.
      warmup_steps: in which it rises linearly from 0.
      betas: decay of AdamW's two moments.
      momentum: of SGD.
      weight_decay: of kernels; biases, norms and the mask token are spared. AdamW's is decoupled,
        SGD's is part of the gradient.
      clip_norm: the largest gradient norm; 0 never clips.
      layer_decay: the factor of the learning rate from one layer of the encoder to the one below
        (Clark et al. 2020; He et al. 2021); what is not in the encoder has the full rate.
      frozen: parts of the network that stay as they are, such as ("encoder",). They are not
        differentiated, and have no moments.
    """

    name: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 1e-4
    warmup_steps: int = 0
    betas: tuple[float, float] = (0.9, 0.95)
    momentum: float = 0.9
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    layer_decay: float = 1.0
    frozen: tuple[str, ...] = ()

    def __post_init__(self):
        if self.name not in ("adamw", "sgd"):
            raise ValueError(f"name is {self.name!r}; expected: adamw or sgd")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas is {self.betas}; expected: two in [0, 1)")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum is {self.momentum}; expected: in [0, 1)")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay is {self.layer_decay}; expected: above 0, at most 1")

    def schedule(self, steps: int) -> optax.Schedule:
        """The learning rate as a function of the steps done; after `steps` it is 0."""
        return optax.warmup_cosine_decay_schedule(
            0.0 if self.warmup_steps else self.learning_rate,
            self.learning_rate,
            self.warmup_steps,
            steps,
        )

    def transformation(self, steps: int, groups: PyTree) -> optax.GradientTransformation:
        """The optimizer of a network.

        Args:
          steps: the length of the run.
          groups: a `Group` for each parameter.

        Raises:
          ValueError: if there is no part of a name that is to be frozen, or all are.
        """
        check_frozen(self.frozen, groups)
        rate, decay = self.schedule(steps), self.weight_decay
        kernels = jax.tree.map(lambda group: group.decays, groups)
        chain = [_clipped(self.clip_norm)] if self.clip_norm else []
        if self.name == "adamw":
            chain.append(optax.adamw(rate, *self.betas, weight_decay=decay, mask=kernels))
        else:
            chain.append(optax.add_decayed_weights(decay, mask=kernels))
            chain.append(optax.sgd(rate, momentum=self.momentum))
        scales = learning_rate_scales(groups, self.layer_decay)
        if any(scale != 1 for scale in jax.tree.leaves(scales)):
            chain.append(_scaled(scales))
        trained = optax.chain(*chain) if len(chain) > 1 else chain[0]
        if not self.frozen:
            return trained
        labels = jax.tree.map(lambda group: group.part in self.frozen, groups)
        return optax.partition({False: trained, True: optax.set_to_zero()}, labels)


def check_frozen(frozen: tuple[str, ...], groups: PyTree) -> None:
    """Checks the parts of a network that are to stay as they are.

    Raises:
      ValueError: if the network has no such part, or nothing is left to train.
    """
    parts = {group.part for group in jax.tree.leaves(groups)}
    if not set(frozen) <= parts or set(frozen) == parts:
        raise ValueError(
            f"optimizer.frozen is {frozen}; expected: some of the network's parts "
            f"{', '.join(sorted(parts))}, but not all"
        )


def freeze(params: PyTree, groups: PyTree, frozen: tuple[str, ...]) -> PyTree:
    """The same parameters, of which frozen parts are constants: nothing is computed for them in a
    backward pass.
    """
    if not frozen:
        return params
    stop = jax.lax.stop_gradient
    return jax.tree.map(lambda p, group: stop(p) if group.part in frozen else p, params, groups)


def learning_rate_scales(groups: PyTree, layer_decay: float) -> PyTree:
    """The factor of the learning rate of every parameter.

    Of the encoder it is `layer_decay` to the power of the layers below its output.
    """

    def scale(group: Group) -> float:
        return group.rate * layer_decay ** (group.below if group.part == "encoder" else 0)

    return jax.tree.map(scale, groups)


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


def _scaled(scales: PyTree) -> optax.GradientTransformation:
    """Multiplies every update by its scale; frozen parameters have none."""

    def scale(scale: float, update: Any) -> Any:
        return update if isinstance(update, optax.MaskedNode) else update * scale

    return optax.stateless(lambda updates, _: jax.tree.map(scale, scales, updates))
