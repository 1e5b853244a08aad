"""Which crop a sample reads: a pure function of the seed and the sample's global index.

Philox, numpy's counter-based generator, makes this cheap: block number i of the stream that belongs
to a seed is four random words, and they are all that sample i needs: one for the volume, one each
for z, y and x. So any range of samples is drawn without those before it, on any host or thread.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Mapping, Sequence

import numpy as np

from maemem.data.stores.volumes import Volume
from maemem.geometry import Zyx, format_zyx

log = logging.getLogger(__name__)

# The high half of the Philox key: keeps this stream apart from others of the same seed.
_STREAM = int.from_bytes(b"crops", "big") << 64
_ATTEMPT_BIT = 112  # of the key, above those of the stream's name
# Voxel sizes that differ by a larger factor than this in one mix are worth a warning.
_VOXEL_SIZE_TOLERANCE = 1.1


def draw_crops(
    seed: int,
    samples: range,
    shapes_zyx: Sequence[Zyx],
    weights: Sequence[float],
    crop_zyx: Zyx,
    attempt: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the crops of the samples `samples.start` to `samples.stop - 1`.

    Each sample's volume is drawn with probability weight / sum(weights), whatever the volume's
    size; then its start, uniformly among all at which the crop fits. Samples are independent.

    Args:
      seed: from 0 to 2**64 - 1.
      samples: global sample indices, not negative, consecutive.
      shapes_zyx: the volumes' shapes in voxels, none smaller than the crop (see `check_crops`).
      weights: one positive number a volume, on any common scale.
      crop_zyx: the crop's shape, in voxels.
      attempt: how often these samples were drawn and rejected before; up to 255.

    Returns:
      volume numbers `[n]` and first voxels `[n 3]` in z y x order, both int64, for n samples.

    Raises:
      ValueError: if the seed is out of range.
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed {seed} is out of range; choose one from 0 to 2**64 - 1")
    key = _STREAM + (attempt << _ATTEMPT_BIT) + seed
    philox = np.random.Philox(key=key, counter=samples.start)
    words = philox.random_raw(4 * len(samples)).reshape(-1, 4)
    uniform = (words >> np.uint64(11)) * 2.0**-53  # in [0, 1), all 53 bits of a float64's mantissa

    # Without the last bound, which is 1 but for rounding, no draw can fall behind the last volume.
    upper_bounds = np.cumsum(weights)[:-1] / np.sum(weights)
    numbers = np.searchsorted(upper_bounds, uniform[:, 0], side="right")
    positions = np.asarray(shapes_zyx, np.int64) - crop_zyx + 1
    starts_zyx = (uniform[:, 1:] * positions[numbers]).astype(np.int64)
    return numbers, starts_zyx


def check_crops(volumes: Sequence[Volume], weights: Sequence[float], crop_zyx: Zyx) -> None:
    """Checks that crops of one shape can be drawn from a mix of volumes.

    Voxel sizes may differ, since a mix of resolutions is legal for pre-training, but a difference
    of more than 10 % along an axis is logged as a warning.

    Raises:
      ValueError: if there is no volume, a weight is missing or not positive, the dtypes differ, or
        a volume is smaller than the crop.
    """
    if not volumes:
        raise ValueError("there is no volume to crop from; name at least one")
    if len(weights) != len(volumes):
        raise ValueError(
            f"{len(volumes)} volumes have {len(weights)} weights; give one weight to each volume"
        )
    for volume, weight in zip(volumes, weights, strict=True):
        if not (math.isfinite(weight) and weight > 0):
            raise ValueError(
                f"the weight of {volume.source} is {weight}; give a positive number, "
                f"or leave the volume out of the mix"
            )
        if any(n < c for n, c in zip(volume.shape_zyx, crop_zyx, strict=True)):
            raise ValueError(
                f"{volume.source} [{volume.region}] has shape zyx {format_zyx(volume.shape_zyx)}, "
                f"smaller than the crop {format_zyx(crop_zyx)}; "
                f"choose a smaller crop, a larger region or another volume"
            )
    _check_alike(volumes)


def _check_alike(volumes: Sequence[Volume]) -> None:
    """Refuses a mix of dtypes, and warns of a mix of voxel sizes."""
    first = volumes[0]
    for other in volumes[1:]:
        if other.dtype != first.dtype:
            raise ValueError(
                f"{first.source} holds {first.dtype} and {other.source} holds {other.dtype}; "
                f"volumes in one mix must have one dtype, so convert one of them"
            )
        ratios = np.divide(first.voxel_size_nm, other.voxel_size_nm)
        if np.any(np.maximum(ratios, 1 / ratios) > _VOXEL_SIZE_TOLERANCE):
            log.warning(
                "Voxel sizes in one mix differ: %s has %s nm, %s has %s nm (zyx).",
                *(first.source, first.voxel_size_nm, other.source, other.voxel_size_nm),
            )


def check_disjoint(sets: Mapping[str, Sequence[Volume]]) -> None:
    """Checks that no voxel belongs to two sets, such as "train" and "validation".

    Within one set, volumes may overlap.

    Raises:
      ValueError: if regions of one source overlap in different sets.
    """
    named = [(name, volume) for name, volumes in sets.items() for volume in volumes]
    for (name_a, a), (name_b, b) in itertools.combinations(named, 2):
        if name_a != name_b and a.source == b.source and a.region.overlaps(b.region):
            raise ValueError(
                f"the sets {name_a!r} and {name_b!r} share voxels of {a.source}: the regions "
                f"[{a.region}] and [{b.region}] overlap; choose regions that do not"
            )
