"""AdamW with warm-up and cosine decay."""

import dataclasses

import jax
import optax
from jaxtyping import PyTree


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """An AdamW run (Loshchilov & Hutter 2019).

    Attributes:
      learning_rate: at its peak.
      warmup_steps: in which it rises linearly from 0.
      steps: in which, warm-up included, it falls to 0 along a cosine.
      betas: decay of the two moments.
      weight_decay: of kernels; biases, norms and the mask token are spared.
      clip_norm: the largest gradient norm; 0 never clips.
    """

    learning_rate: float
    warmup_steps: int
    steps: int
    betas: tuple[float, float]
    weight_decay: float
    clip_norm: float

    def __post_init__(self):
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
        adamw = optax.adamw(
            self.schedule(),
            *self.betas,
            weight_decay=self.weight_decay,
            mask=_is_kernel,
        )
        if not self.clip_norm:
            return adamw
        return optax.chain(optax.clip_by_global_norm(self.clip_norm), adamw)


def _is_kernel(params: PyTree) -> PyTree:
    """Which leaves decay: by name, since stacked (scanned) norms have two axes as well."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: getattr(path[-1], "key", None) == "kernel", params
    )
