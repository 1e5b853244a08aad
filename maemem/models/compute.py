"""How networks are computed; the only place that asks which platform this is."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class Compute:
    """How a network is computed; none of it changes what is computed, but to rounding.

    Attributes:
      dtype: of activations and matrix products. Parameters, norms and softmax stay float32.
      remat: recompute each block's activations in the backward pass instead of keeping them.
      attention: `xla` or `cudnn`, as `jax.nn.dot_product_attention` knows them (`cudnn` is the
        fused kernel of NVIDIA GPUs, for bfloat16); or `sequential`, for a CPU: where the logits of
        a batch would not stay in the processor's cache, one crop after the other (a step of
        pre-training, ViT-B, 16 crops of 216 tokens, on two cores of an Intel Xeon: 2.32 s and
        2.87 GiB in place of 2.58 s and 3.32 GiB).
      convolution: `xla`; or `folded`: as one 2-D convolution, several times faster on a CPU.
    """

    dtype: Any = jnp.float32
    remat: bool = False
    attention: Literal["xla", "cudnn", "sequential"] = "xla"
    convolution: Literal["xla", "folded"] = "xla"


def compute_here(dtype: str = "auto", remat: bool = False) -> Compute:
    """How networks are computed on the devices of this process.

    Args:
      dtype: a key of `DTYPES`; `auto`: float32 on CPUs, bfloat16 elsewhere.
      remat: see `Compute`.
    """
    platform = jax.default_backend()
    if dtype == "auto":
        dtype = "float32" if platform == "cpu" else "bfloat16"
    if platform == "cpu":
        attention = "sequential" if jax.device_count() == 1 else "xla"
        return Compute(DTYPES[dtype], remat, attention, "folded")
    fused = platform == "gpu" and dtype == "bfloat16" and _is_ampere_or_newer()
    return Compute(DTYPES[dtype], remat, "cudnn" if fused else "xla")


def _is_ampere_or_newer() -> bool:
    """Whether NVIDIA's fused attention runs on this GPU."""
    return float(getattr(jax.devices()[0], "compute_capability", "0")) >= 8
