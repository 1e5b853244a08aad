"""Learners of tiny configs and of single numbers, and what their batches look like."""

import jax
import numpy as np

from maemem.learners.contract import Given
from maemem.models.compute import Compute
from tests.models.networks import unet, vit


def like(crop_zyx, count=1, fields=()):
    """Shapes and dtypes of a batch of raw crops, with such fields of truth."""
    shape = (count, *crop_zyx)
    truth = {name: jax.ShapeDtypeStruct(shape, np.int32) for name in fields}
    return {"image": jax.ShapeDtypeStruct(shape, np.uint8), **truth}


def given_vit(patch, size, **fields) -> Given:
    """A transformer, intensities from 0 to 255, and no segmenter."""
    return Given((0.0, 255.0), Compute(), vit(patch, size), lambda outputs: None, **fields)


def given_unet(patch, channels, **fields) -> Given:
    """A residual U-Net, and intensities from 0 to 255."""
    model = unet(patch, channels)
    make = lambda outputs: unet(patch, channels, outputs)  # noqa: E731
    return Given((0.0, 255.0), Compute(), model.encoder, make, **fields)
