"""Networks by the few numbers that tests care for."""

import math

from maemem.models.compute import Compute
from maemem.models.encoders.residual import Residual
from maemem.models.encoders.vit import VIT_SIZES, Vit
from maemem.models.mae_decoder import Decoder, MaskedAutoencoder
from maemem.models.segmenters.unet import Unet
from maemem.models.segmenters.unetr import Unetr

SIZES = {name: tuple(size.values()) for name, size in VIT_SIZES.items()}


def vit(patch, size, compute=None, **options) -> Vit:
    """A transformer of a width, a depth and so many heads."""
    width, depth, heads = size
    compute = compute or Compute()
    return Vit(patch_zyx=patch, width=width, depth=depth, heads=heads, compute=compute, **options)


def autoencoder(patch, size, decoder=(512, 4, 16), compute=None, rotary=False) -> MaskedAutoencoder:
    """A transformer with a decoder of such a size, for images of one channel."""
    compute = compute or Compute()
    light = Decoder(math.prod(patch), *decoder, rotary=rotary, compute=compute)
    return MaskedAutoencoder(vit(patch, size, compute, rotary=rotary), light)


def unetr(patch, size, channels, outputs=3, compute=None, **options) -> Unetr:
    """A decoder on a transformer."""
    compute = compute or Compute()
    encoder = vit(patch, size, compute, **options)
    return Unetr(channels=channels, encoder=encoder, outputs=outputs, compute=compute)


def unet(patch, channels, outputs=3, compute=None) -> Unet:
    """A residual U-Net."""
    compute = compute or Compute()
    encoder = Residual(patch_zyx=patch, channels=channels, compute=compute)
    return Unet(channels=channels, encoder=encoder, outputs=outputs, compute=compute)
