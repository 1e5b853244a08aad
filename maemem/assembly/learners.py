"""The learners of a config, with what the rest of it gives them."""

from __future__ import annotations

import dataclasses

from maemem.assembly.networks import compute, encoder, intensity_range, rounded, segmenter, target
from maemem.config import Config
from maemem.data.samples.augment import Augmentation
from maemem.data.stores.formats import VoxelSize
from maemem.fields import build, build_kind
from maemem.geometry import Zyx, alike_axes
from maemem.learners import LEARNERS
from maemem.learners.contract import Given, Learner
from maemem.learners.supervised import Supervised

_PLAIN: Zyx = (0, 1, 2)


def make_learner(config: Config, stage: str, voxel_size_nm: VoxelSize = (1.0, 1.0, 1.0)) -> Learner:
    """What a training minimises.

    Args:
      config: the experiment's.
      stage: the section that says which learner, `pretrain` or `finetune`.
      voxel_size_nm: z, y, x; crops may be turned only as it allows.

    Raises:
      ValueError: if a field has a value that no learner can work with.
    """
    section, name = config[stage], f"{stage}.augmentation"
    given = dataclasses.replace(
        given_by(config),
        augmentation=augmentation(config, section.augmentation, name, voxel_size_nm),
    )
    return build_kind(LEARNERS, section.learner, f"{stage}.learner", given=given)


def make_segmenter(config: Config) -> Supervised:
    """What predicts: the segmenter with its target, whatever it was trained with."""
    return Supervised(given=given_by(config))


def given_by(config: Config) -> Given:
    """What a config gives to every learner; without augmentation.

    Raises:
      ValueError: if a field has a value that no network can work with.
    """
    return Given(
        intensity_range(config),
        compute(config),
        encoder(config),
        lambda outputs: segmenter(config, outputs),
        target=target(config) if "target" in config else None,
    )


def augmentation(
    config: Config, section: Config, name: str, voxel_size_nm: VoxelSize
) -> Augmentation:
    """How training crops are augmented; axes that are alike are permuted where crops are flipped.

    Raises:
      ValueError: naming the field, its value and what is expected.
    """
    alike = alike_axes(config.data.crop_zyx, rounded(voxel_size_nm))
    return build(
        Augmentation, section, name, orders_zyx=tuple(alike) if section.flip else (_PLAIN,)
    )
