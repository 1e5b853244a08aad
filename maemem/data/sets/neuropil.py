"""Geometry of synthetic neuropil: branching tubes grown on a cubic lattice until they fill it.

All lengths are in nanometres, so calibres do not depend on the voxel size. The lattice is coarse,
for speed; B-splines interpolate it to the voxels.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools

import numpy as np
from scipy import ndimage, sparse, special
from skimage import measure

from maemem.geometry import Zyx

LATTICE_NM = 20.0  # fine enough for an 80 nm neurite
PAD = 4  # lattice points beyond each face, so that nothing ends at a face
STEP_NM = 30.0
TUBE_FRACTION = 0.65  # of the space, grown as tubes; neighbours swell into the rest
THINNEST_NM, MEDIAN_NM, THICKEST_NM = 40.0, 72.0, 300.0  # radii
SPREAD = 0.5  # of the logarithm of the radius


@dataclasses.dataclass(frozen=True)
class Lattice:
    """The voxels of a volume, and the coarse lattice around them."""

    voxels_zyx: Zyx
    voxel_nm: np.ndarray

    @functools.cached_property
    def spacing_nm(self) -> float:
        return max(LATTICE_NM, float(self.voxel_nm.min()))

    @functools.cached_property
    def shape(self) -> Zyx:
        extent = np.array(self.voxels_zyx) * self.voxel_nm
        z, y, x = (np.ceil(extent / self.spacing_nm).astype(int) + 2 * PAD).tolist()
        return z, y, x

    @functools.cached_property
    def subsections(self) -> np.ndarray:
        """Sampling positions across the thickness of a section, in sections from its middle."""
        return np.array([-1, 0, 1]) / 3 if self.voxel_nm[0] > 20 else np.zeros(1)

    def index(self, points_nm: np.ndarray) -> tuple[np.ndarray, ...]:
        """Indices of the lattice points nearest to positions `[n 3]`, clipped to the lattice."""
        nearest = np.rint(points_nm / self.spacing_nm).astype(int) + PAD
        return tuple(np.clip(nearest, 0, np.array(self.shape) - 1).T)

    def holds(self, point_nm: np.ndarray) -> bool:
        """Whether a position lies on the lattice, its border included."""
        at = point_nm / self.spacing_nm + PAD
        return bool(np.all((at >= 0) & (at < self.shape)))

    def near(self, point_nm: np.ndarray, reach_nm: float):
        """Slices of the lattice block around a point, and its offsets from the point in nm."""
        centre = point_nm / self.spacing_nm + PAD
        reach = reach_nm / self.spacing_nm
        low = np.maximum(np.ceil(centre - reach), 0).astype(int)
        high = np.minimum(np.floor(centre + reach) + 1, self.shape).astype(int)
        high = np.maximum(low, high)
        block = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        ranges = [
            (np.arange(a, b) - c) * self.spacing_nm
            for a, b, c in zip(low, high, centre, strict=True)
        ]
        return block, np.ix_(*ranges)

    def spline(self, axis: int, shift: float = 0.0) -> sparse.csr_array:
        """Cubic B-spline weights `[voxels lattice]` at voxel centres, moved by `shift` voxels."""
        count = self.voxels_zyx[axis]
        at = (np.arange(count) + 0.5 + shift) * self.voxel_nm[axis] / self.spacing_nm + PAD
        base = np.floor(at).astype(int)
        t = (at - base)[:, None]
        weights = np.hstack(
            [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
        )
        columns = base[:, None] + np.arange(-1, 3)
        rows = np.repeat(np.arange(count), 4)
        entries = (weights.ravel() / 6).astype(np.float32)
        shape = (count, self.shape[axis])
        return sparse.csr_array((entries, (rows, columns.ravel())), shape=shape)


def colour_cells(cells: np.ndarray) -> np.ndarray:
    """A uint8 colour for each cell, different from those of cells up to 3 lattice points away."""
    count = int(cells.max()) + 1
    touches = np.zeros((count, count), bool)
    for offset in itertools.product((-3, 0, 3), repeat=3):
        if offset > (0, 0, 0):
            here = tuple(slice(max(-o, 0), -o if o > 0 else None) for o in offset)
            there = tuple(slice(max(o, 0), o if o < 0 else None) for o in offset)
            touches[cells[here], cells[there]] = True
    touches |= touches.T
    np.fill_diagonal(touches, False)
    colours = np.zeros(count, np.uint8)
    for cell in range(1, count):
        taken = set(colours[:cell][touches[cell, :cell]].tolist())
        colours[cell] = next(c for c in itertools.count() if c not in taken)
    return colours


def grow_neurites(
    lattice: Lattice, rng: np.random.Generator
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Tubes on the lattice, int32 ids `[z y x]` (0 between them), and midlines `[n 3]` in nm."""
    tubes = np.zeros(lattice.shape, np.int32)
    # In a small volume a thick dendrite would leave no room for neighbours.
    room_nm = lattice.spacing_nm * tubes.size ** (1 / 3)
    thickest = np.clip(room_nm / 6, MEDIAN_NM, THICKEST_NM)
    paths, label = [], 0
    while (done := np.count_nonzero(tubes) / (tubes.size * TUBE_FRACTION)) < 1:
        label += 1
        start = rng.integers(lattice.shape)
        while tubes[tuple(start)]:
            start = rng.integers(lattice.shape)
        start = (start - PAD) * lattice.spacing_nm
        heading = unit(rng.normal(size=3) * (2.0, 1.0, 1.0))  # most cross the sections
        radius = min(_calibre(done + 0.03 * rng.random()), thickest)
        buds = [(start, heading, radius, np.inf), (start, -heading, radius, np.inf)]
        while buds:
            path, branches = _grow_path(lattice, tubes, label, buds.pop(), rng)
            paths.append(path)
            buds += branches
    return tubes, paths


def _calibre(done: float) -> float:
    """The radius of the next tube, when a share `done` of the tubes is grown: thick ones first.

    Radii are log-normal; weighted by cross-section, they are log-normal around a larger median.
    """
    rank = special.ndtri(np.clip(1 - done, 1e-6, 1 - 1e-3))
    radius = MEDIAN_NM * np.exp(2 * SPREAD**2 + SPREAD * rank)
    return float(np.clip(radius, THINNEST_NM, THICKEST_NM))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors `[... 3]` scaled to length 1."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _grow_path(lattice: Lattice, tubes: np.ndarray, label: int, bud, rng: np.random.Generator):
    """Grows a tube from a bud (start, heading, radius, length) until it leaves or has no way on.

    Returns its midline `[n 3]` in nm and the buds of its branches.
    """
    point, heading, calibre, length = bud
    path, buds, swelling = [], [], 0.0
    wander = np.linspace(0.15, 1.5, 8)[:, None]  # the straightest free way is taken
    while lattice.holds(point):
        swelling = 0.93 * swelling + 0.13 * rng.normal()  # varicosities, some 400 nm long
        radius = np.clip(calibre * np.exp(swelling), THINNEST_NM, 1.5 * calibre)
        block, (dz, dy, dx) = lattice.near(point, radius)
        ball = tubes[block]
        ball[(ball == 0) & (dz**2 + dy**2 + dx**2 <= radius**2)] = label
        path.append(point)
        ways = unit(heading + wander * rng.normal(size=(8, 3)))
        met = tubes[lattice.index(point + ways * (radius + 2 * lattice.spacing_nm))]
        open_ways = np.flatnonzero((met == 0) | (met == label))
        if open_ways.size == 0 or len(path) * STEP_NM > length:
            break
        heading = ways[open_ways[0]]
        point = point + heading * STEP_NM
        if rng.random() < STEP_NM / 1500 and calibre > 1.2 * THINNEST_NM:
            aside = unit(np.cross(heading, rng.normal(size=3)) + 0.3 * heading)
            buds.append((point, aside, calibre * rng.uniform(0.4, 0.8), rng.exponential(1200)))
    return np.array(path).reshape(-1, 3), buds  # [n 3], also where n is 0


def noise(shape: Zyx, sigma, rng: np.random.Generator) -> np.ndarray:
    """Smooth float32 noise of mean 0 and deviation 1; `sigma` in grid steps."""
    field = ndimage.gaussian_filter(
        rng.standard_normal(shape, np.float32), sigma, mode="wrap", truncate=3
    )
    return field / field.std()


def fill_space(lattice: Lattice, tubes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cells, int32 `[z y x]`: tubes swollen until they touch, with lobed outlines."""
    cells = _spread(tubes)
    warp = [noise(cells.shape, 80 / lattice.spacing_nm, rng) for _ in range(3)]
    at = [
        np.clip(np.rint(i + w * (35 / lattice.spacing_nm)), 0, n - 1).astype(np.int32)
        for i, w, n in zip(np.ogrid[tuple(map(slice, cells.shape))], warp, cells.shape, strict=True)
    ]
    pieces = np.asarray(measure.label(cells[tuple(at)], connectivity=1), np.int32)
    small = np.bincount(pieces.ravel()) < 0.003e9 / lattice.spacing_nm**3
    if small[1:].all():
        return pieces
    pieces[small[pieces]] = 0
    return _spread(pieces)


def _spread(labels: np.ndarray) -> np.ndarray:
    """Gives every 0 the nearest label."""
    nearest = ndimage.distance_transform_edt(
        labels == 0, return_distances=False, return_indices=True
    )
    return labels[tuple(np.asarray(nearest))]


def depth_below_membrane(cells: np.ndarray) -> np.ndarray:
    """Distance to the next cell in lattice spacings, float32 `[z y x]`."""
    inside = np.ones(cells.shape, bool)
    for axis in range(3):
        differs = np.diff(cells, axis=axis) != 0
        ahead = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        behind = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
        inside[ahead] &= ~differs
        inside[behind] &= ~differs
    return np.asarray(ndimage.distance_transform_edt(inside), np.float32)
