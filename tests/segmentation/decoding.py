"""Whole predictions decoded at once: what decoding by blocks is compared with."""

from maemem.segmentation.agglomeration import agglomerate
from maemem.segmentation.instances import compact, remove_small


def decode(decoder, prediction, thresholds, smallest=0):
    """Objects 1 to n `[z y x]` of a prediction `[c z y x]`, by a decoder and its thresholds."""
    pieces = decoder.cut(prediction, **{name: thresholds[name] for name in decoder.cuts})
    merging = decoder.merging(**{name: thresholds[name] for name in decoder.merges})
    if merging:
        (pieces,) = agglomerate(prediction, pieces, [merging.threshold], merging.score)
    return compact(remove_small(pieces, smallest))


def middle(grid):
    """The middle value of each threshold of a grid."""
    return {name: values[len(values) // 2] for name, values in grid.items()}
