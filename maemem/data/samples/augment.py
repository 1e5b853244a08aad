"""Augmentation of crops and their truth, on the device: a function of keys, crops and settings.

The kinds and their usual strengths follow Lee et al. (2017), Superhuman accuracy on the SNEMI3D
connectomics challenge, and PyTorch Connectomics (Lin et al. 2021).
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax, random
from jaxtyping import Array, Key, Shaped

from maemem.data.samples import intensities, warps
from maemem.data.samples.warps import Crop
from maemem.fields import given
from maemem.geometry import Zyx, format_zyx

# `image`, float32 in [−1, 1], and fields of truth such as `labels`, by name.
Batch = dict[str, Shaped[Array, "b z y x"]]


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How crops are augmented: for each kind a probability, at 0 of which it costs nothing.

    Tissue is bent, cut and shifted, and then seen from some side (`move`), and imaged (`expose`).
    What befalls a crop follows from its own key alone, whatever truth it has.

    The defaults suit serial sections, which are thick. In an isotropic volume no section is lost,
    shifted or blurred by itself: there set those probabilities to 0, `warp_voxels_zyx` and
    `warp_spacing_zyx` alike along the three axes, and `orders_zyx` to all six.

    Attributes:
      flip: whether each axis is reversed with a chance of 1/2.
      warp: tissue is bent smoothly,
      warp_voxels_zyx: by at most so many voxels along each axis,
      warp_spacing_zyx: independently at points so many voxels apart.
      rotation: sections are turned,
      rotation_degrees: by at most this angle, either way.
      translation: all sections from one on are shifted. Of this, `slip` and `missing_section` one
        at most befalls a crop.
      slip: one section alone is shifted.
      misalignment_voxels: the largest shift of either kind along y and along x.
      missing_section: sections are painted black or grey,
      missing_section_count: at most so many,
      missing_section_part: each with this chance on one side of a line only.
      blurred_section: one section is out of focus,
      blurred_section_sigma: blurred by a Gaussian of at most so many voxels.
      brightness: a number is added,
      brightness_strength: of at most this size; intensities reach from −1 to 1.
      contrast: intensities are scaled about 0,
      contrast_strength: by 1 ± at most this.
      gamma: intensities are raised to a power,
      gamma_octaves: of at most 2 to this, and at least its inverse.
      noise: Gaussian noise is added,
      noise_sigma: of at most this standard deviation.
      by_section: the chance that brightness, contrast, gamma or noise, where it acts, has a
        strength for each section instead of one for the crop.
      cut_out: boxes are painted grey,
      cut_out_boxes: at most so many,
      cut_out_share: their edges at most this share of the crop's.
      orders_zyx: the permutations of the axes to choose from, see `geometry.alike_axes`.
    """

    flip: bool = True
    warp: float = 0.5
    warp_voxels_zyx: tuple[float, float, float] = (0.0, 8.0, 8.0)
    warp_spacing_zyx: tuple[float, float, float] = (8.0, 32.0, 32.0)
    rotation: float = 0.5
    rotation_degrees: float = 15.0
    translation: float = 0.1
    slip: float = 0.1
    misalignment_voxels: int = 10
    missing_section: float = 0.1
    missing_section_count: int = 2
    missing_section_part: float = 0.5
    blurred_section: float = 0.1
    blurred_section_sigma: float = 3.0
    brightness: float = 0.5
    brightness_strength: float = 0.3
    contrast: float = 0.5
    contrast_strength: float = 0.3
    gamma: float = 0.25
    gamma_octaves: float = 1.0
    noise: float = 0.25
    noise_sigma: float = 0.1
    by_section: float = 0.5
    cut_out: float = 0.1
    cut_out_boxes: int = 3
    cut_out_share: float = 0.3
    orders_zyx: tuple[Zyx, ...] = given(default=((0, 1, 2), (0, 2, 1)))

    def __post_init__(self) -> None:
        """Refuses what cannot be.

        Raises:
          ValueError: for a chance outside of [0, 1], damage to sections of more than 1 together, a
            warp that folds tissue, a count below 1, or no order of the axes.
        """
        for name in (*KINDS, "by_section", "missing_section_part", "cut_out_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; choose from 0 to 1")
        for name in ("misalignment_voxels", "missing_section_count", "cut_out_boxes"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; choose at least 1, or a probability of 0"
                )
        damage = self.translation + self.slip + self.missing_section
        if damage > 1:
            raise ValueError(
                f"translation, slip and missing_section are {damage:.3g} together; one at most "
                f"befalls a crop, so choose a sum of at most 1"
            )
        pairs = zip(self.warp_voxels_zyx, self.warp_spacing_zyx, strict=True)
        if any(2 * voxels >= spacing for voxels, spacing in pairs):
            raise ValueError(
                f"a warp of {format_zyx(self.warp_voxels_zyx)} voxels over a spacing of "
                f"{format_zyx(self.warp_spacing_zyx)} folds tissue; along each axis choose a "
                f"spacing of more than twice the warp"
            )
        if any(sorted(order) != [0, 1, 2] for order in self.orders_zyx) or not self.orders_zyx:
            raise ValueError(
                f"orders_zyx is {self.orders_zyx}; give one or more permutations of (0, 1, 2)"
            )

    def apply(self, keys: Key[Array, " b"], batch: Batch) -> Batch:
        """Both halves, `move` and then `expose`, of each crop of a batch, one key a crop.

        All kinds are computed for all crops, so that a batch may be split over devices; to go from
        crop to crop and skip some could not be (`benchmarks.augmentation` measures both).

        Raises:
          ValueError: if an order of the axes changes the shape of the crops.
        """
        return jax.vmap(lambda key, crop: self.expose_crop(key, self.move_crop(key, crop)))(
            keys, batch
        )

    def move(self, keys: Key[Array, " b"], batch: Batch) -> Batch:
        """What changes where tissue is: image and truth alike; see `move_crop`."""
        return jax.vmap(self.move_crop)(keys, batch)

    def expose(self, keys: Key[Array, " b"], batch: Batch) -> Batch:
        """What changes the image only; see `expose_crop`."""
        return jax.vmap(self.expose_crop)(keys, batch)

    def move_crop(self, key: Key[Array, ""], crop: Crop) -> Crop:
        """Warp, rotation, misalignment, permutations and flips of a crop.

        Args:
          key: the crop's own.
          crop: `image` and fields of truth. Floats are interpolated, integers are those of the
            nearest voxel; beyond its sides the crop is mirrored.

        Raises:
          ValueError: if an order of the axes changes the shape of the crop.
        """
        shape = crop["image"].shape
        for order in self.orders_zyx:
            if [shape[axis] for axis in order] != list(shape):
                raise ValueError(
                    f"the order {order} of the axes changes the shape of a crop of "
                    f"{format_zyx(shape)} voxels; leave it out of orders_zyx"
                )
        orientation, acts, keys = _draw(self, key)
        crop = _displace(self, keys, acts, crop)
        if self.flip or self.orders_zyx != ((0, 1, 2),):
            crop = warps.orient(orientation, crop, self.orders_zyx, self.flip)
        return crop

    def expose_crop(self, key: Key[Array, ""], crop: Crop) -> Crop:
        """All kinds that change the image alone, in the order in which a microscope would.

        Args:
          key: the crop's own, the same that moved it: one kind of damage at most befalls a crop.
          crop: `image`, and fields of truth, which stay.
        """
        _, acts, keys = _draw(self, key)
        return {**crop, "image": _expose(self, keys, acts, crop["image"])}


# Fields that are probabilities of a kind; those of which one at most befalls a crop come first.
_DAMAGE = ("translation", "slip", "missing_section")
KINDS = (
    *(*_DAMAGE, "warp", "rotation", "blurred_section"),
    *("brightness", "contrast", "gamma", "noise", "cut_out"),
)


def _draw(settings: Augmentation, key: Array) -> tuple[Array, dict[str, Array], dict[str, Array]]:
    """A crop's key of its orientation, which kinds befall it, and the key of each kind."""
    orientation, chance, *drawn = random.split(key, 2 + len(KINDS))
    return orientation, _draw_kinds(settings, chance), dict(zip(KINDS, drawn, strict=True))


def _draw_kinds(settings: Augmentation, key: Array) -> dict[str, Array]:
    """Which kinds befall a crop; one of those in `_DAMAGE` at most."""
    drawn = random.uniform(key, (len(KINDS),))
    acts = {kind: drawn[i] < getattr(settings, kind) for i, kind in enumerate(KINDS)}
    low, damage = 0.0, drawn[0]
    for kind in _DAMAGE:
        high = low + getattr(settings, kind)
        acts[kind] = (low <= damage) & (damage < high)
        low = high
    return acts


def _displace(
    settings: Augmentation,
    keys: dict[str, Array],
    acts: dict[str, Array],
    crop: Crop,
) -> Crop:
    """Warp, rotation and misalignment, in one resampling."""
    s, fields = settings, []
    depth, height, width = crop["image"].shape
    if s.warp:
        bound_zyx = acts["warp"] * jnp.array(s.warp_voxels_zyx, jnp.float32)
        shape_zyx = depth, height, width
        fields.append(warps.warp_field(keys["warp"], shape_zyx, bound_zyx, s.warp_spacing_zyx))
    if s.rotation or s.translation or s.slip:
        angle, shifts_yx = jnp.zeros(()), jnp.zeros((2, depth))
        if s.rotation:
            angle = acts["rotation"] * warps.rotation(keys["rotation"], s.rotation_degrees)
        if s.translation or s.slip:
            slip, voxels = acts["slip"], s.misalignment_voxels
            drawn = warps.misalignment(keys["slip"], depth, voxels, slip)
            shifts_yx = (slip | acts["translation"]) * drawn
        fields.append(warps.section_field((depth, height, width), angle, shifts_yx))
    if not fields:
        return crop
    still = 0 if s.warp and s.warp_voxels_zyx[0] else 1  # axes along which nothing moves
    return warps.resample(crop, sum(fields[1:], fields[0])[still:])


def _expose(
    settings: Augmentation, keys: dict[str, Array], acts: dict[str, Array], image: Array
) -> Array:
    """The image `[z y x]` after all kinds that change it alone."""
    s, each = settings, settings.by_section
    strengths = {
        intensities.blurred_section: (s.blurred_section_sigma,),
        intensities.contrast: (s.contrast_strength, each),
        intensities.brightness: (s.brightness_strength, each),
        intensities.gamma: (s.gamma_octaves, each),
        intensities.noise: (s.noise_sigma, each),
        intensities.cut_out: (s.cut_out_boxes, s.cut_out_share),
        intensities.missing_section: (s.missing_section_count, s.missing_section_part),
    }
    for kind, strength in strengths.items():
        name = kind.__name__
        if getattr(settings, name):
            change = functools.partial(kind, keys[name], image, *strength)
            image = lax.cond(acts[name], change, lambda image=image: image)
    return image
