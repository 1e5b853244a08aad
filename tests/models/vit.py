"""A tiny 2-D vision transformer of colour images, in numpy."""

import math

import numpy as np

WIDTH, DEPTH, HEADS, PATCH, SIDE = 24, 2, 2, 4, 3
SIZE = PATCH * SIDE
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)

# A name of timm, and the same of the files of transformers.
RENAMED = {
    "patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
    "cls_token": "vit.embeddings.cls_token",
    "pos_embed": "vit.embeddings.position_embeddings",
    "blocks.": "vit.encoder.layer.",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    """A random 2-D vision transformer by timm's names; linear layers are [out, in]."""
    random = np.random.default_rng(seed)
    shapes = {
        "patch_embed.proj": (WIDTH, 3, PATCH, PATCH),
        **{f"blocks.{i}.attn.qkv": (3 * WIDTH, WIDTH) for i in range(DEPTH)},
        **{f"blocks.{i}.attn.proj": (WIDTH, WIDTH) for i in range(DEPTH)},
        **{f"blocks.{i}.mlp.fc1": (4 * WIDTH, WIDTH) for i in range(DEPTH)},
        **{f"blocks.{i}.mlp.fc2": (WIDTH, 4 * WIDTH) for i in range(DEPTH)},
        **{f"blocks.{i}.norm{k}": (WIDTH,) for i in range(DEPTH) for k in (1, 2)},
        **{"norm": (WIDTH,), "head": (10, WIDTH)},
    }
    found = {f"{name}.weight": 0.3 * random.normal(size=s) for name, s in shapes.items()}
    found |= {f"{name}.bias": 0.3 * random.normal(size=s[:1]) for name, s in shapes.items()}
    found["cls_token"] = random.normal(size=(1, 1, WIDTH))
    found["pos_embed"] = random.normal(size=(1, 1 + SIDE**2, WIDTH))
    return {name: value.astype(np.float32) for name, value in found.items()}


def renamed(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same as transformers stores it: other names, and queries, keys and values apart."""
    found = {}
    for name, value in tensors.items():
        for theirs, others in RENAMED.items():
            name = name.replace(theirs, others)
        if "attn.qkv" in name:
            for part, rows in zip(("query", "key", "value"), np.split(value, 3), strict=True):
                found[name.replace("attn.qkv", f"attention.attention.{part}")] = rows
        else:
            found[name.replace("norm.", "vit.layernorm.") if name[:5] == "norm." else name] = value
    return found


def features(tensors: dict[str, np.ndarray], grey: np.ndarray) -> np.ndarray:
    """What the 2-D network makes of a grey image in [0, 1]: its patches' tokens `[n d]`."""
    t = tensors
    pixels = (grey[..., None] - np.array(MEAN)) / np.array(STD)  # [y x colour]
    patches = pixels.reshape(SIDE, PATCH, SIDE, PATCH, 3).transpose(0, 2, 4, 1, 3)
    kernel = t["patch_embed.proj.weight"].reshape(WIDTH, -1)
    tokens = patches.reshape(SIDE**2, -1) @ kernel.T + t["patch_embed.proj.bias"]
    tokens = np.concatenate([t["cls_token"][0], tokens]) + t["pos_embed"][0]

    def dense(name, values):
        return values @ t[f"{name}.weight"].T + t[f"{name}.bias"]

    def norm(name, values):
        centred = values - values.mean(-1, keepdims=True)
        scaled = centred / np.sqrt(values.var(-1, keepdims=True) + 1e-6)
        return scaled * t[f"{name}.weight"] + t[f"{name}.bias"]

    for i in range(DEPTH):
        qkv = dense(f"blocks.{i}.attn.qkv", norm(f"blocks.{i}.norm1", tokens))
        q, k, v = qkv.reshape(-1, 3, HEADS, WIDTH // HEADS).transpose(1, 2, 0, 3)
        logits = np.exp(q @ k.transpose(0, 2, 1) / math.sqrt(WIDTH // HEADS))
        mixed = (logits / logits.sum(-1, keepdims=True)) @ v
        tokens = tokens + dense(
            f"blocks.{i}.attn.proj", mixed.transpose(1, 0, 2).reshape(-1, WIDTH)
        )
        hidden = dense(f"blocks.{i}.mlp.fc1", norm(f"blocks.{i}.norm2", tokens))
        bell = np.vectorize(math.erf)(hidden / math.sqrt(2))
        tokens = tokens + dense(f"blocks.{i}.mlp.fc2", hidden * (1 + bell) / 2)
    return norm("norm", tokens)[1:]
