"""Synthetic brain tissue: labelled volumes that look like electron microscopy, from a seed.

All lengths are in nanometres. Neurites are grown as branching tubes on a coarse cubic
lattice, swell until they fill it, and are then drawn at any voxel size: neighbouring cells get
different colours, the indicator of each colour is upsampled with cubic B-splines, and membranes run
where the two strongest colours tie. So surfaces are smooth, however coarse the lattice.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
from scipy import ndimage, spatial
from skimage import measure

from maemem.data.sets import artefacts as serial_sections
from maemem.data.sets import neuropil
from maemem.data.sets.neuropil import STEP_NM, Lattice
from maemem.geometry import Zyx

MIN_SHAPE_ZYX = (4, 32, 32)
SMALLEST_NEURITE_NM3 = 60.0**3  # smaller ones look like membrane
SMALLEST_MITOCHONDRION_NM3 = 60.0**3
MEMBRANE_STAIN = 0.88
FAR_NM = 60.0  # reach of a mitochondrion's distance field


@dataclasses.dataclass(frozen=True)
class Tissue:
    """A synthetic volume with its labels, all `[z y x]`.

    Attributes:
      image: uint8; cytoplasm bright, membranes dark.
      neurites: uint32; ids 1..n, each one face-connected component. 0 is membrane, as wide as it
        is drawn, and small slivers, which are drawn as membrane. A process that is pinched off by
        membrane has two ids.
      mitochondria: uint32; ids 1..n, each one face-connected component inside one neurite; 0 is
        everything else.
      voxel_size_nm: z, y, x.
    """

    image: np.ndarray
    neurites: np.ndarray
    mitochondria: np.ndarray
    voxel_size_nm: tuple[float, float, float]


def make_tissue(
    shape_zyx: Zyx,
    voxel_size_nm: tuple[float, float, float] = (30.0, 6.0, 6.0),
    *,
    seed: int = 0,
    artefacts: bool = False,
) -> Tissue:
    """Makes labelled tissue; a pure function of its arguments.

    Args:
      shape_zyx: in voxels, at least 4x32x32.
      voxel_size_nm: z, y, x; sections thicker than 20 nm blur oblique structures.
      seed: not negative.
      artefacts: whether to damage the sections in `artefacts.plan(shape_zyx[0], seed)`; labels stay
        those of the intact tissue.

    Raises:
      ValueError: if the shape is too small, or a voxel size is not positive.
    """
    if len(shape_zyx) != 3 or any(n < m for n, m in zip(shape_zyx, MIN_SHAPE_ZYX, strict=True)):
        raise ValueError(f"shape zyx is {shape_zyx}; tissue needs at least {MIN_SHAPE_ZYX} voxels")
    if len(voxel_size_nm) != 3 or not all(0 < size < np.inf for size in voxel_size_nm):
        raise ValueError(f"voxel size zyx is {voxel_size_nm} nm; give three positive numbers")
    rng = np.random.default_rng(seed)
    lattice = Lattice(shape_zyx, np.array(voxel_size_nm, float))
    tubes, paths = neuropil.grow_neurites(lattice, rng)
    cells = neuropil.fill_space(lattice, tubes, rng)
    depth_nm = neuropil.depth_below_membrane(cells) * lattice.spacing_nm
    organelles = _place_mitochondria(lattice, paths, cells, depth_nm, rng)
    stain, neurites, mitochondria = _draw(lattice, cells, organelles, rng)
    _draw_microtubules(lattice, stain, paths, depth_nm, organelles[0], rng)
    _draw_vesicles(lattice, stain, paths, depth_nm, organelles[0], rng)
    image = _expose(lattice, stain, neurites, rng)
    if artefacts:
        image = serial_sections.apply(image, serial_sections.plan(shape_zyx[0], seed))
    return Tissue(image, neurites, mitochondria, voxel_size_nm)


def _place_mitochondria(
    lattice: Lattice, paths, cells, depth_nm, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Signed distance to the nearest mitochondrion (negative inside), and across cristae; nm."""
    distance = np.full(cells.shape, FAR_NM, np.float32)
    cristae = np.zeros(cells.shape, np.float32)
    for path in paths:
        roomy = depth_nm[lattice.index(path)] > 120
        for i in np.flatnonzero(roomy & (rng.random(len(path)) < STEP_NM / 600)):
            stretch = path[i : i + int(rng.uniform(10, 45))]
            home = cells[lattice.index(path[i : i + 1])]
            thickest = rng.uniform(100, 240)
            normal = neuropil.unit(rng.normal(size=3))
            for point in stretch:
                radius = min(thickest, 0.75 * depth_nm[lattice.index(point[None])][0])
                block, (dz, dy, dx) = lattice.near(point, radius + FAR_NM)
                shell = np.sqrt(dz**2 + dy**2 + dx**2) - radius
                closer = (shell < distance[block]) & (cells[block] == home)
                distance[block][closer] = shell[closer]
                offset = point @ normal + dz * normal[0] + dy * normal[1] + dx * normal[2]
                cristae[block][closer] = offset[closer]
    return np.maximum(distance, 35 - depth_nm), cristae


def _draw(lattice: Lattice, cells: np.ndarray, organelles, rng: np.random.Generator):
    """Membranes and mitochondria at the voxels.

    Returns stain (float32, 0 clear to 1 black), neurites and mitochondria (uint32).
    """
    colours = neuropil.colour_cells(cells)[cells]
    cleft = neuropil.noise(cells.shape, 100 / lattice.spacing_nm, rng) * 4 + 4
    bend = neuropil.noise(cells.shape, 60 / lattice.spacing_nm, rng) * 20
    reticulum = neuropil.noise(cells.shape, 45 / lattice.spacing_nm, rng)
    patches = neuropil.noise(cells.shape, 120 / lattice.spacing_nm, rng)
    fields = [organelles[0], organelles[1] + bend, cleft, reticulum, patches]
    # [z x field y], so that both products of the upsampling read whole rows.
    nz, ny, nx = cells.shape
    stack = np.empty((nz, nx, len(fields) + int(colours.max()) + 1, ny), np.float32)
    for i in range(stack.shape[2]):
        indicator = (colours == i - len(fields)).astype(np.float32)
        field = fields[i] if i < len(fields) else ndimage.uniform_filter(indicator, 3)
        stack[:, :, i] = field.transpose(0, 2, 1)  # [z y x] -> [z x y]
    stain = np.empty(lattice.voxels_zyx, np.float32)
    winner = np.empty(lattice.voxels_zyx, np.uint8)
    inside = np.empty(lattice.voxels_zyx, bool)
    along_y, along_x = lattice.spline(1), lattice.spline(2)
    layers = {shift: lattice.spline(0, shift) for shift in lattice.subsections}
    for z in range(lattice.voxels_zyx[0]):
        shades = []
        for shift, along_z in layers.items():
            plane = _upsample(stack, along_z[[z]], along_y, along_x)
            shade, best, mitochondrion = _shade(plane, lattice)
            shades.append(shade)
            if shift == 0:
                winner[z], inside[z] = best, mitochondrion
        stain[z] = np.mean(shades, axis=0)
    neurites = _components(winner, lattice, SMALLEST_NEURITE_NM3)
    stain[(winner > 0) & (neurites == 0)] = MEMBRANE_STAIN
    mitochondria = _components(np.where(inside, neurites, 0), lattice, SMALLEST_MITOCHONDRION_NM3)
    return stain, neurites, mitochondria


def _upsample(stack, along_z, along_y, along_x) -> np.ndarray:
    """One plane `[y field x]` of a lattice stack `[z x field y]`."""
    _, nx, fields, ny = stack.shape
    layers = np.einsum("l,lxfy->xfy", along_z.data, stack[along_z.indices])
    # [x field y] -> [x field*y] -> [X field y], X and Y counting voxels
    rows = (along_x @ layers.reshape(nx, -1)).reshape(-1, fields, ny)
    rows = np.ascontiguousarray(rows.transpose(2, 1, 0))  # [X field y] -> [y field X]
    # [y field X] -> [y field*X] -> [Y field X]
    return (along_y @ rows.reshape(ny, -1)).reshape(-1, fields, along_x.shape[0])


def _shade(plane: np.ndarray, lattice: Lattice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stain, strongest colour + 1 (0 on membranes), and whether in a mitochondrion; `[y x]`."""
    distance, cristae, cleft, reticulum, patches, first = (plane[:, i] for i in range(6))
    best, second, winner = first.copy(), np.zeros_like(first), np.ones(first.shape, np.uint8)
    for colour in range(1, plane.shape[1] - 5):
        value = plane[:, 5 + colour]
        np.maximum(second, np.minimum(best, value), out=second)
        winner[value > best] = colour + 1
        np.maximum(best, value, out=best)
    # A step blurred by a Gaussian has the slope 2 / (sigma sqrt(2 pi)) in its middle. Sigma is one
    # spacing: the box of three has a variance of 2/3, the B-spline of 1/3.
    sigma_nm = lattice.spacing_nm
    gap_nm = (best - second) * np.float32(sigma_nm * np.sqrt(np.pi / 2))
    pixel = lattice.voxel_nm[2]
    half = np.float32(max(7.5, 0.7 * pixel))
    lips = np.maximum(cleft, 0)
    membrane = np.exp(-(((gap_nm - lips) / half) ** 2))
    winner[gap_nm < lips + half] = 0
    rim = np.exp(-((distance / half) ** 2))
    folds = 0.5 + 0.5 * np.cos(cristae * np.float32(2 * np.pi / 55))
    matrix = np.clip(0.5 - distance / half, 0, 1) * (0.44 + 0.16 * folds)
    # Smooth noise changes sign along curved sheets, like endoplasmic reticulum.
    sheet = np.exp(-((reticulum * 64 / half) ** 2)) * np.clip(2 * patches - 1, 0, 0.45)
    sheet *= np.clip(gap_nm / sigma_nm * 4 - 3, 0, 1) * (distance > 15)
    layers = (MEMBRANE_STAIN * membrane, 0.6 * rim, matrix, sheet)
    return np.maximum.reduce(layers), winner, distance < 0


def _components(values: np.ndarray, lattice: Lattice, smallest_nm3: float) -> np.ndarray:
    """Face-connected components of equal non-zero values that are large enough; uint32, 1..n."""
    pieces = np.asarray(measure.label(values, background=0, connectivity=1), np.uint32)
    kept = np.bincount(pieces.ravel()) * lattice.voxel_nm.prod() >= smallest_nm3
    kept[0] = False
    return np.where(kept, np.cumsum(kept), 0).astype(np.uint32)[pieces]


def _splat(lattice: Lattice, stain, points_nm, profile: Callable, reach_nm: float) -> None:
    """Draws a profile of stain, a function of the distance in nm, around each point; in place."""
    size = lattice.voxel_nm
    nearest = np.floor(points_nm / size).astype(np.int32)
    from_point = ((nearest + 0.5) * size - points_nm).astype(np.float32)
    reach = np.ceil(reach_nm / size + 0.5 + (lattice.subsections[-1], 0, 0)).astype(int) - 1
    for offset in itertools.product(*(range(-r, r + 1) for r in reach)):
        voxel = nearest + np.array(offset, np.int32)
        seen = np.all((voxel >= 0) & (voxel < lattice.voxels_zyx), axis=1)
        dz, dy, dx = (from_point[seen] + (np.array(offset) * size).astype(np.float32)).T
        shades = [
            profile(np.sqrt((dz + np.float32(shift * size[0])) ** 2 + dy**2 + dx**2))
            for shift in lattice.subsections
        ]
        np.maximum.at(stain, tuple(voxel[seen].T), np.mean(shades, axis=0))


def _draw_microtubules(
    lattice: Lattice, stain, paths, depth_nm, mitochondria_nm, rng: np.random.Generator
) -> None:
    """Draws thin dark threads that run along the neurites, in place."""
    points = []
    for path in paths:
        if len(path) < 4:
            continue
        at = np.linspace(0, len(path) - 1, len(path) * 2)
        line = np.stack([np.interp(at, np.arange(len(path)), axis) for axis in path.T], 1)
        line = ndimage.gaussian_filter1d(line, 3, axis=0)
        for _ in range(rng.integers(1, 6)):
            points.append(line + rng.normal(size=3) * 45)
    points = np.concatenate(points)
    at = lattice.index(points)
    points = points[(depth_nm[at] > 35) & (mitochondria_nm[at] > 20)]
    _splat(lattice, stain, points, lambda d: 0.38 * np.exp(-((d / 11) ** 2)), 18)


def _draw_vesicles(
    lattice: Lattice, stain, paths, depth_nm, mitochondria_nm, rng: np.random.Generator
) -> None:
    """Draws clusters of synaptic vesicles, rings 40 nm across, in place."""
    points = [np.zeros((0, 3))]
    for path in paths:
        roomy = depth_nm[lattice.index(path)] > 60
        for centre in path[roomy & (rng.random(len(path)) < STEP_NM / 1500)]:
            points.append(
                centre + rng.normal(size=(rng.integers(100, 500), 3)) * rng.uniform(60, 120)
            )
    points = np.concatenate(points)
    crowded = spatial.KDTree(points).query_pairs(38, output_type="ndarray")
    points = np.delete(points, np.unique(crowded[:, 1]), axis=0)
    at = lattice.index(points)
    points = points[(depth_nm[at] > 35) & (mitochondria_nm[at] > 30)]
    _splat(lattice, stain, points, lambda d: 0.55 * np.exp(-(((d - 15) / 6) ** 2)), 28)


def _expose(lattice: Lattice, stain, neurites, rng: np.random.Generator) -> np.ndarray:
    """The image of the stain: tone, texture, blur, shot noise and uneven light; uint8 `[z y x]`."""
    tone = rng.normal(0.72, 0.035, int(neurites.max()) + 1).astype(np.float32)
    tone[rng.random(tone.size) < 0.12] -= 0.14  # glia and dark axons
    tone[0] = 0.72
    light = tone[neurites]
    for size_nm, strength in ((7, 0.08), (22, 0.05)):
        grain = neuropil.noise(lattice.voxels_zyx, size_nm / lattice.voxel_nm, rng)
        light -= strength * (grain + 0.8 * np.maximum(grain - 0.5, 0))  # clumps are dark
    light *= 1 - stain
    # Blur crosses sections in block-face imaging only; others are cut before they are imaged.
    blur = np.minimum(5 / lattice.voxel_nm, 0.8) * (len(lattice.subsections) == 1, 1, 1)
    light = ndimage.gaussian_filter(light, blur)
    level, down, across = 0.02 * rng.standard_normal((3, len(light), 1, 1), np.float32)
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in light.shape[1:])
    light *= 1 + level + down * y[:, None] + across * x
    light += 0.055 * np.sqrt(np.maximum(light, 0.05)) * rng.standard_normal(light.shape, np.float32)
    return np.clip(np.rint(light * 255), 0, 255).astype(np.uint8)
