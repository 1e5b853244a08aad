"""Objects from binary and contour maps, with or without distance: marker watershed."""

import dataclasses

import cc3d
import numpy as np
from jaxtyping import Float, UInt32
from skimage.segmentation import watershed

from maemem.segmentation.checks import check_probabilities
from maemem.segmentation.instances import compact, remove_small


@dataclasses.dataclass(frozen=True)
class MarkerThresholds:
    """Where seeds are, how far they grow, and what is too small.

    Binary and contour are probabilities; distances are in units of the hyperbolic tangent, from -1
    (deep in the background) to 1 (deep inside). Give both distances or none.
    """

    seed_binary: float  # A seed's binary probability is above this,
    seed_contour: float  # its contour probability is below this,
    mask_binary: float  # Objects end where the binary probability is not above this.
    smallest: int  # Objects of fewer voxels are dropped.
    seed_distance: float | None = None  # and its distance is above this.
    mask_distance: float | None = None  # Nor do they reach distances that are not above this.
    smallest_seed: int = 32  # Seeds of fewer voxels are dropped, as PyTorch Connectomics does.

    def __post_init__(self):
        if (self.seed_distance is None) != (self.mask_distance is None):
            raise ValueError(
                f"seed_distance is {self.seed_distance} and mask_distance {self.mask_distance}; "
                f"give both for a prediction with distance, none for one without"
            )


def marker_watershed(
    prediction: Float[np.ndarray, "c z y x"], thresholds: MarkerThresholds
) -> UInt32[np.ndarray, "z y x"]:
    """Finds seeds well inside of objects, and floods from them (Wei et al. 2020).

    Seeds are the connected components (26 neighbours) of the voxels that pass the seed thresholds;
    those of fewer than `smallest_seed` voxels are dropped.
    They grow from high to low distance, or binary probability where there is no distance, as far as
    the mask reaches.

    Args:
      prediction: binary, contour and, if the thresholds speak of it, distance, in [0, 1]; distance
        is stored as (tanh + 1) / 2.
      thresholds: see `MarkerThresholds`.

    Returns:
      instances 1, 2, ..., n; 0 is background: voxels outside of the mask, those that no seed
      reaches, and objects that are too small.

    Raises:
      ValueError: if channels are missing, or values are not in [0, 1].
    """
    with_distance = thresholds.seed_distance is not None
    check_probabilities(prediction, channels=3 if with_distance else 2)
    binary, contour = prediction[:2]
    seeds = (binary > thresholds.seed_binary) & (contour < thresholds.seed_contour)
    mask = binary > thresholds.mask_binary
    height = binary
    if with_distance:
        height = 2 * prediction[2] - 1
        seeds &= height > thresholds.seed_distance
        mask &= height > thresholds.mask_distance
    markers = cc3d.connected_components(seeds, connectivity=26, out_dtype=np.uint32)
    markers = remove_small(markers, thresholds.smallest_seed)
    # skimage floods upwards, and wants signed markers.
    labels = watershed(-height, markers.astype(np.int32), mask=mask)
    return compact(remove_small(labels, thresholds.smallest))
