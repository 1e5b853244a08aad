"""Segmenters: networks that turn an encoder's levels into logits of every voxel, one file each.

What a segmenter is, is said in `models.contract`. A config names one by its key in `SEGMENTERS`.
"""

from maemem.models.segmenters.unet import Unet
from maemem.models.segmenters.unetr import Unetr

SEGMENTERS = {"unetr": Unetr, "unet": Unet}
