"""Encoders: networks that turn an image into levels of features, one file each.

What an encoder is, is said in `models.contract`. A config names one by its key in `ENCODERS`.
"""

from maemem.models.encoders.residual import Residual
from maemem.models.encoders.vit import Vit

ENCODERS = {"vit": Vit, "residual": Residual}
