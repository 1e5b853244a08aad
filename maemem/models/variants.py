"""Encoder sizes by name."""

from typing import NamedTuple


class Size(NamedTuple):
    """A transformer's size: `width` of its tokens, `depth` in blocks, attention `heads`."""

    width: int
    depth: int
    heads: int


# Tiny and small are DeiT's (Touvron et al. 2021), base is ViT-B (Dosovitskiy et al. 2021); large is
# the one whose multiply-adds Cheng et al. (2023) publish, wider than the usual ViT-L.
ENCODERS = {
    "tiny": Size(192, 12, 3),
    "small": Size(384, 12, 6),
    "base": Size(768, 12, 12),
    "large": Size(1152, 24, 16),
}
