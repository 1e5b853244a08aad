"""Weights of 2-D vision transformers as those of an encoder of volumes."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from flax import traverse_util

from maemem.geometry import Zyx

Tensors = dict[str, np.ndarray]
Inflation = Literal["centre", "average"]


@dataclasses.dataclass(frozen=True)
class _Names:
    """What a library calls the parts of a vision transformer, each with `.weight` and `.bias`."""

    patches: str
    class_token: str  # This and the next have no such ending.
    places: str
    block: str
    norm: str
    # Our parts of a block, and theirs, side by side in the output where they are several.
    parts: Mapping[str, tuple[str, ...]]


_TIMM = _Names(
    "patch_embed.proj",
    "cls_token",
    "pos_embed",
    "blocks",
    "norm",
    {
        "norm_attention": ("norm1",),
        "attention/qkv": ("attn.qkv",),
        "attention/out": ("attn.proj",),
        "norm_mlp": ("norm2",),
        "mlp_in": ("mlp.fc1",),
        "mlp_out": ("mlp.fc2",),
    },
)
_TRANSFORMERS = _Names(
    "embeddings.patch_embeddings.projection",
    "embeddings.cls_token",
    "embeddings.position_embeddings",
    "encoder.layer",
    "layernorm",
    {
        "norm_attention": ("layernorm_before",),
        "attention/qkv": tuple(f"attention.attention.{n}" for n in ("query", "key", "value")),
        "attention/out": ("attention.output.dense",),
        "norm_mlp": ("layernorm_after",),
        "mlp_in": ("intermediate.dense",),
        "mlp_out": ("output.dense",),
    },
)


# What is trained beside an encoder, and is not of it.
_HEADS = re.compile(
    r"(head|fc_norm|pre_logits|pooler|classifier|decoder|(embeddings\.)?mask_token)"
)


def inflate(
    tensors: Mapping[str, np.ndarray],
    patch_zyx: Zyx,
    inflation: Inflation,
    *,
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.5,),
) -> dict[str, Any]:
    """The parameters of `Encoder`, with `Plane`, of a 2-D vision transformer of colour images.

    For one section of tokens the features are those of the 2-D network of that section as a grey
    image: the kernels of red, green and blue are summed, and the normalisation of the network's
    pixels becomes part of them. For several sections they are not, even if all sections are alike:
    attention spans all of them, and the one class token weighs less beside more tokens.

    Args:
      tensors: by the names of timm (`blocks.0.attn.qkv.weight`) or of files of transformers
        (`vit.encoder.layer.0.attention.attention.query.weight`); heads and decoders are ignored.
      patch_zyx: of the encoder, in voxels; in plane that of the 2-D network.
      inflation: how a kernel of an image becomes one of a patch of several sections. `centre`: it
        lies in the middle one, the others are 0; `average`: an equal part of it lies in each
        (Carreira & Zisserman 2017).
      mean: of each colour, or of all, in [0, 1], which pixels of the 2-D network were lessened by,
      std: and what they were then divided by.

    Raises:
      ValueError: if it is no plain vision transformer, or has other patches.
    """
    names, prefix = _scheme(tensors)
    left = dict(tensors)  # What is taken leaves it.
    kernel = _take(left, f"{prefix}{names.patches}.weight")
    bias = _take(left, f"{prefix}{names.patches}.bias")
    width, colours, *size_yx = kernel.shape
    if tuple(size_yx) != tuple(patch_zyx[1:]):
        raise ValueError(
            f"the 2-D network has patches of {'x'.join(map(str, size_yx))} pixels, and "
            f"model.encoder.patch_zyx is {tuple(patch_zyx)}; give it these sizes in y and x"
        )
    # Voxels lie in [−1, 1], so that (voxel / 2 + 1/2 − mean) / std is what the network saw.
    means, stds = (np.broadcast_to(np.asarray(each, np.float32), colours) for each in (mean, std))
    grey = np.einsum("dcyx,c->yxd", kernel, 0.5 / stds)
    offset = np.einsum("dcyx,c->d", kernel, (0.5 - means) / stds)
    plane = _plane(left, names, prefix)
    blocks = _blocks(left, names, prefix)
    norm = _norm(left, prefix + names.norm)
    if beyond := [name for name in left if not _HEADS.match(name.removeprefix(prefix))]:
        raise ValueError(
            f"the 2-D network is no plain vision transformer: it has {min(beyond)} beyond the "
            f"parts of one"
        )
    return {
        "patch_embedding": {
            "kernel": _deepen(grey, patch_zyx[0], inflation).reshape(-1, width),
            "bias": bias + offset,
        },
        "positions": plane,
        "transformer": {**blocks, "norm": norm},
    }


def _scheme(tensors: Mapping[str, np.ndarray]) -> tuple[_Names, str]:
    """Whose names these are, and what stands before them."""
    for names in (_TIMM, _TRANSFORMERS):
        last = f"{names.patches}.weight"
        found = [name for name in tensors if re.fullmatch(rf"(\w+\.)*{re.escape(last)}", name)]
        if len(found) == 1:
            return names, found[0].removesuffix(last)
    raise ValueError(
        f"these are not the weights of a vision transformer of timm or transformers: there is no "
        f"{_TIMM.patches}.weight and no {_TRANSFORMERS.patches}.weight, but "
        f"{', '.join(sorted(tensors)[:4])} and so on"
    )


def _deepen(kernel: np.ndarray, depth: int, inflation: Inflation) -> np.ndarray:
    """`[y x d]` to `[z y x d]`."""
    if inflation == "average":
        return np.repeat(kernel[None] / depth, depth, axis=0)
    deep = np.zeros((depth, *kernel.shape), kernel.dtype)
    deep[depth // 2] = kernel
    return deep


def _plane(tensors: Tensors, names: _Names, prefix: str) -> dict[str, np.ndarray]:
    """The table of places, and the class token with its own."""
    places = _take(tensors, prefix + names.places)[0]
    side, width = math.isqrt(len(places) - 1), places.shape[-1]
    if 1 + side * side != len(places):
        raise ValueError(
            f"the 2-D network has {len(places)} places; expected one of a class token, and those "
            f"of a square grid"
        )
    return {
        "table": places[1:].reshape(side, side, width),
        "depth_gain": np.zeros(width, np.float32),
        "class_token": _take(tensors, prefix + names.class_token).reshape(width) + places[0],
    }


def _blocks(tensors: Tensors, names: _Names, prefix: str) -> dict[str, Any]:
    start = f"{prefix}{names.block}."
    inside = [name.removeprefix(start) for name in tensors if name.startswith(start)]
    blocks: dict[str, Any] = {}
    for i in range(1 + max((int(name.split(".")[0]) for name in inside), default=-1)):
        for ours, theirs in names.parts.items():
            make = _norm if ours.startswith("norm") else _dense
            made = make(tensors, *(f"{start}{i}.{their}" for their in theirs))
            blocks[f"block_{i:02d}/{ours}"] = made
    return traverse_util.unflatten_dict(blocks, sep="/")


def _dense(tensors: Tensors, *names: str) -> dict[str, np.ndarray]:
    """Linear layers side by side."""
    kernels, biases = (
        [_take(tensors, f"{n}.{kind}") for n in names] for kind in ("weight", "bias")
    )
    return {"kernel": np.concatenate(kernels).T, "bias": np.concatenate(biases)}


def _norm(tensors: Tensors, name: str) -> dict[str, np.ndarray]:
    return {"scale": _take(tensors, f"{name}.weight"), "bias": _take(tensors, f"{name}.bias")}


def _take(tensors: Tensors, name: str) -> np.ndarray:
    if name not in tensors:
        raise ValueError(f"the 2-D network is no plain vision transformer: it has no {name}")
    return np.asarray(tensors.pop(name), np.float32)
