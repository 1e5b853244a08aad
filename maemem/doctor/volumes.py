"""Checks of volumes: that they open, what they hold, and how they are stored."""

from __future__ import annotations

import dataclasses
import itertools
import math
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from maemem.assembly.volumes import open_raw, open_truth, scored_box
from maemem.config import Config
from maemem.data.samples.pipeline import reader
from maemem.data.stores.formats import VoxelSize
from maemem.data.stores.volumes import Volume
from maemem.data.truth import LabelVolume
from maemem.doctor.verdict import Verdict, amount, worst
from maemem.geometry import Box, Zyx, format_zyx

SETS = ("train", "validation", "test")

_SHOWN = 8  # Of a list of sections.
_NAMED = 5  # Of more gaps, so many are named.
_CROPS = 16  # Looked at for their intensities.


@dataclasses.dataclass(frozen=True)
class Opened:
    """A volume of a config: the whole of it, and what part of it is used."""

    set: str
    name: str
    entry: Config
    raw: Volume
    labels: Volume | None
    region: Box

    def read(self, volume: Volume, most_zyx: Zyx) -> np.ndarray:
        """The middle of the region, at most so large, from `raw` or `labels`."""
        box = middle(self.region.shape_zyx, most_zyx).moved(self.region.start_zyx)
        return volume.read(box)


def middle(shape_zyx: Zyx, most_zyx: Zyx) -> Box:
    """The box in the middle of a shape that is at most so large."""
    sizes = [min(n, most) for n, most in zip(shape_zyx, most_zyx, strict=True)]
    z, y, x = ((n - size) // 2 for n, size in zip(shape_zyx, sizes, strict=True))
    return Box((0, 0, 0), (sizes[0], sizes[1], sizes[2])).moved((z, y, x))


def open_entry(config: Config, set_: str, name: str, workdir: pathlib.Path) -> Opened:
    """Opens a volume with its labels.

    Raises:
      ValueError: if one of them cannot serve.
      FileNotFoundError: if a path does not exist.
    """
    entry = config.data[set_][name]
    raw = open_raw(config, entry, workdir)
    truth = open_truth(config, entry, workdir, raw) if entry.labels else None
    labels = truth.volume if isinstance(truth, LabelVolume) else None
    scored_box(entry, raw)
    return Opened(set_, name, entry, raw, labels, Box.parse(entry.region, raw.shape_zyx))


def describe(opened: Opened) -> Verdict:
    """What was opened."""
    raw, labels = opened.raw, opened.labels
    said = f"{format_zyx(raw.shape_zyx)} {raw.dtype} at {_nm(raw.voxel_size_nm)}"
    said += f", [{opened.region}] of it" if opened.entry.region else ""
    said += f"; labels {labels.dtype}" if labels else "; no labels"
    return Verdict("ok", said)


def axes(
    voxel_size_nm: VoxelSize, labels_nm: VoxelSize | None, shape_zyx: Zyx, image: np.ndarray
) -> Verdict:
    """Whether voxel size and order of the axes are what the image looks like.

    Args:
      voxel_size_nm: of the image.
      labels_nm: of its labels, if it has any.
      shape_zyx: of the whole volume.
      image: a part of it, `[z y x]`.
    """
    z, y, x = voxel_size_nm
    told = z / min(y, x)
    seen, apart = look_of_axes(image)
    doubts = []
    if labels_nm and not np.allclose(labels_nm, voxel_size_nm, rtol=0.01):
        doubts.append(
            Verdict(
                "fail",
                f"its labels say {_nm(labels_nm)}",
                "correct the metadata of one of the two, or give voxel_size_nm",
            )
        )
    if min(voxel_size_nm) < 1 or max(voxel_size_nm) > 200:
        doubts.append(
            Verdict("warn", "EM has voxels of 1 to 200 nm", "give voxel_size_nm in nm, as z, y, x")
        )
    if told < 0.9 or max(y, x) > 1.1 * min(y, x):
        doubts.append(
            Verdict("warn", "z is not the coarsest axis", "give voxel_size_nm in the order z, y, x")
        )
    if told > 2 and shape_zyx[0] > max(shape_zyx[1:]):
        doubts.append(
            Verdict("warn", "sections are thick, but z is the longest axis", "look at the axes")
        )
    said = f"{_nm(voxel_size_nm)}, so a section is {told:.3g} voxels thick"
    if seen:
        said += f", and looks {seen:.2g} thick"
        if not 0.4 < seen / told < 2.5:
            doubts.append(
                Verdict(
                    "warn",
                    "that is another voxel size than the image has, or another order of its axes",
                    "look at the volume, and correct voxel_size_nm or the order of the axes",
                )
            )
        elif not 0.6 < apart < 1.6:
            doubts.append(
                Verdict("warn", f"y and x look {apart:.2g} apart", "look at the order of the axes")
            )
    return worst(said, doubts)


def look_of_axes(image: np.ndarray) -> tuple[float, float]:
    """How thick a section looks, in voxels of its plane; and how y changes, relative to x.

    A section is as thick as the step in plane that changes the image as much as the step to the
    next section does (by the median over sections of the mean squared difference, each section
    brought to the same brightness and contrast, so that lost sections and those that are lighter
    do not count). 0.0, where nothing can be said: a single section, or no contrast.
    """
    image = image.astype(np.float32)
    image = (image - image.mean((1, 2), keepdims=True))[image.std((1, 2)) > 0]
    if len(image) < 2 or min(image.shape[1:]) < 4:
        return 0.0, 1.0
    image /= image.std((1, 2), keepdims=True)
    across = float(np.median(np.square(image[1:] - image[:-1]).mean((1, 2))))
    furthest = min(image.shape[1:]) // 2
    steps = [n for n in (1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32, 40, 50, 64) if n < furthest]
    down = [float(np.square(image[:, n:] - image[:, :-n]).mean()) for n in steps]
    right = [float(np.square(image[:, :, n:] - image[:, :, :-n]).mean()) for n in steps]
    changes = np.maximum.accumulate(np.add(down, right) / 2)
    # Below one voxel as if the change grew in proportion.
    thick = np.interp(across, [0, *changes], [0, *steps])
    return float(thick), down[0] / right[0]


def read_crops(opened: Opened, crop_zyx: Zyx) -> np.ndarray:
    """Crops of the image, the same each time, `[n z y x]`."""
    read = reader([opened.raw.cut(opened.entry.region)], [1.0], crop_zyx, 0)
    return read(range(_CROPS))["image"]


def intensities(crops: np.ndarray, intensity_range: tuple[float, float]) -> Verdict:
    """Whether the range of the config is that of the image.

    Args:
      crops: of the image, of any shape.
      intensity_range: what becomes −1 and 1.
    """
    (low, high), values = intensity_range, crops.astype(np.float32)
    if not np.isfinite(values).all():
        return Verdict(
            "fail",
            f"{np.mean(~np.isfinite(values)):.2%} of voxels are not finite",
            "replace them, by the mean intensity for example",
        )
    least, dark, bright, most = np.percentile(values, (0, 1, 99, 100)).tolist()
    if least == most:
        return Verdict("fail", f"all voxels are {least:g}", "look at the volume: it is empty")
    used, outside = (bright - dark) / (high - low), np.mean((values < low) | (values > high))
    said = (
        f"{crops.dtype} from {least:.4g} to {most:.4g}, most from {dark:.4g} to {bright:.4g}, of "
        f"the range {low:g} to {high:g}"
    )
    mend = f"--config.data.intensity_range='({dark:.4g},{bright:.4g})'"
    doubts = []
    if outside > 0.05:
        level = "fail" if outside > 0.5 else "warn"
        doubts.append(Verdict(level, f"{outside:.1%} lie outside and are clipped", mend))
    for end, share in ((least, np.mean(values == least)), (most, np.mean(values == most))):
        if share > 0.05:
            doubts.append(
                Verdict(
                    "warn",
                    f"{share:.1%} are exactly {end:.4g}",
                    "if that is padding, missing sections or saturation, leave it out by `region`",
                )
            )
    if used < 0.2:
        level = "fail" if used < 0.02 else "warn"
        doubts.append(Verdict(level, f"that uses {used:.1%} of the range", mend))
    return worst(said, doubts)


def sections(runs: Sequence[tuple[int, np.ndarray]], depth: int) -> Verdict:
    """Whether sections are missing, nearly empty or there twice.

    Args:
      runs: consecutive sections `[z y x]` each, with the number of the first.
      depth: how many sections the region has.
    """
    numbers = np.concatenate([first + np.arange(len(run)) for first, run in runs])
    spreads = np.concatenate([run.std((1, 2), dtype=np.float32) for _, run in runs])
    usual = float(np.median(spreads))
    changes = np.concatenate([_changes(run) for _, run in runs])
    known = changes[np.isfinite(changes)]
    still = changes < 0.1 * (np.median(known) if len(known) else 0)
    kinds = {
        "constant": numbers[spreads == 0],
        "nearly constant": numbers[(spreads > 0) & (spreads < 0.1 * usual)],
        "as the one before": numbers[still & (spreads > 0)],
    }
    _, height, width = runs[0][1].shape
    said = f"{len(numbers)} of {depth} looked at, {height}×{width} of each"
    doubts = []
    for what, found in kinds.items():
        if len(found):
            level = "fail" if len(found) > len(numbers) / 2 else "warn"
            shown = ", ".join(map(str, found[:_SHOWN])) + (", …" if len(found) > _SHOWN else "")
            doubts.append(Verdict(level, f"{len(found)} {what} (z = {shown})"))
    if doubts:
        mend = "leave them out by `region` if they are many; a few do not harm"
        doubts[0] = dataclasses.replace(doubts[0], mend=mend)
    return worst(said, doubts)


def _changes(run: np.ndarray) -> np.ndarray:
    """How much each section differs from the one before; of the first it is not known."""
    run = run.astype(np.float32)
    return np.concatenate([[np.nan], np.abs(run[1:] - run[:-1]).mean((1, 2))])


def read_sections(opened: Opened) -> list[tuple[int, np.ndarray]]:
    """All sections of a region, of many the most that is read in seconds: the middle of each."""
    depth, runs, length = opened.region.shape_zyx[0], 8, 64
    starts = np.linspace(0, max(depth - length, 0), runs).astype(int).tolist()
    if depth <= runs * length:
        starts = list(range(0, depth, length))
    window = middle(opened.region.shape_zyx, (depth, 256, 256)).moved(opened.region.start_zyx)
    (first, y0, x0), (_, y1, x1) = window.start_zyx, window.stop_zyx
    ranges = [(first + z, first + min(z + length, depth)) for z in starts]
    return [(a, opened.raw.read(Box((a, y0, x0), (b, y1, x1)))) for a, b in ranges]


def chunks(
    crop_zyx: Zyx, chunk_zyx: Zyx, shape_zyx: Zyx, itemsize: int, cache_bytes: int
) -> Verdict:
    """How much is read for a crop that lies anywhere.

    Args:
      crop_zyx: its shape.
      chunk_zyx: what is read at once.
      shape_zyx: of the region that crops are drawn from.
      itemsize: bytes a voxel.
      cache_bytes: kept of what was read.
    """
    # A line of n voxels meets 1 + (n - 1) / c chunks of c voxels, on average over its starts.
    sizes = zip(crop_zyx, chunk_zyx, shape_zyx, strict=True)
    touched = [min(1 + (n - 1) / c, math.ceil(size / c)) for n, c, size in sizes]
    read = math.prod(touched) * math.prod(chunk_zyx)
    share = read / math.prod(crop_zyx)
    said = (
        f"chunks of {format_zyx(chunk_zyx)}: a crop of {format_zyx(crop_zyx)} touches "
        f"{math.prod(touched):.3g}, {amount(read * itemsize)}, {share:,.1f} times its own"
    )
    total = math.prod(shape_zyx) * itemsize
    if total <= cache_bytes:
        return Verdict("ok", f"{said}; all of it fits the cache ({amount(cache_bytes)})")
    if share > 20:
        return Verdict(
            "warn",
            said,
            "convert it: python -m maemem.data.convert VOLUME OUTPUT.zarr, whose chunks suit crops;"
            " or, if RAM allows, --config.runtime.cache_bytes",
        )
    return Verdict("ok", said)


def chunk_shape(volume: Volume) -> Zyx:
    """What is read at once of a volume, in voxels; of one without chunks, all."""
    read = volume.store.chunk_layout.read_chunk.shape or volume.shape_zyx
    z, y, x = (n or size for n, size in zip(read, volume.shape_zyx, strict=True))
    return z, y, x


def _nm(size: Sequence[float]) -> str:
    return f"{format_zyx(tuple(round(n, 3) for n in size))} nm"


def numbering(files: Sequence[str]) -> Verdict:
    """Whether the numbers in names of sections skip any, which would be joined as neighbours.

    Numbers may rise by any step that is always the same.

    Args:
      files: the names, in order.
    """
    rows = [[int(n) for n in re.findall(r"\d+", name)] for name in files]
    columns = list(zip(*rows, strict=True)) if len(set(map(len, rows))) == 1 else []
    rising = [c for c in columns if all(a < b for a, b in itertools.pairwise(c))]
    if not rising or len(files) < 2:
        return Verdict("ok", f"{len(files)} sections, whose names do not count them")
    # Beside the number of a section there may be one that rises anyhow, such as its time.
    numbers = min(rising, key=lambda column: len(_gaps(column)))
    gaps = _gaps(numbers)
    said = f"{len(files)} sections, numbered {numbers[0]} to {numbers[-1]}"
    if not gaps:
        return Verdict("ok", said)
    more = ", …" if len(gaps) > _NAMED else ""
    return Verdict(
        "warn",
        f"{said}, but {len(gaps)} gaps: {', '.join(gaps[:_NAMED])}{more}; what is on both sides of "
        f"a gap is taken for neighbours",
        "bring the missing files, or a region between gaps",
    )


def _gaps(numbers: Sequence[int]) -> list[str]:
    step = min(b - a for a, b in itertools.pairwise(numbers))
    return [f"{a} to {b}" for a, b in itertools.pairwise(numbers) if b - a > step]
