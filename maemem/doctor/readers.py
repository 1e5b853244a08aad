"""Checks that two readers see the same: ours, and the library that the format is known by."""

from __future__ import annotations

import importlib.util
import itertools
import pathlib
import re
import urllib.parse
from collections.abc import Callable, Sequence

import h5py
import numpy as np
import tifffile
from PIL import Image

from maemem.config import Config
from maemem.data.sets.datasets import located, open_dataset
from maemem.data.stores.readers import is_foreign, sections
from maemem.data.stores.volumes import shared_context
from maemem.doctor.verdict import Verdict
from maemem.geometry import Box, Zyx, format_zyx

_BOXES, _SIDE = 8, 128
_NAMED = 5  # Of more gaps, so many are named.

# Sections of a user's own are large; Pillow would take them for bombs above 179 megapixels.
Image.MAX_IMAGE_PIXELS = None

# A box, read as [z y x].
Read = Callable[[Box], np.ndarray]


def alike(config: Config, entry: Config, path: str, workdir: pathlib.Path) -> Verdict:
    """Compares boxes of a volume, before it is binned, with what another reader gives.

    Args:
      config: with the root and the cache.
      entry: the volume's.
      path: of its image or its labels.
      workdir: where copies are.

    Raises:
      ValueError: if it cannot be opened.
      OSError: if a file cannot be read.
    """
    ours = open_dataset(
        path,
        root=config.data.root,
        cache=workdir / "cache",
        voxel_size_nm=tuple(entry.voxel_size_nm) or None,
        context=shared_context(config.runtime.cache_bytes),
    )
    there = located(path, config.data.root)
    name, shape, read = (
        _reader_of_file(there) if is_foreign(there) else _reader_of_store(ours.source)
    )
    if read is None:
        return Verdict("warn", f"not compared: {name}", "look at the contact sheet")
    if shape != ours.shape_zyx:
        return Verdict(
            "fail",
            f"{name} has {format_zyx(shape)}, maemem reads {format_zyx(ours.shape_zyx)}",
            "name the axes in the metadata, or store it as z, y, x",
        )
    boxes = random_boxes(ours.shape_zyx)
    return compare(name, boxes, read, ours.read)


def compare(name: str, boxes: list[Box], theirs: Read, ours: Read) -> Verdict:
    """Whether two readers give the same in all boxes."""
    for box in boxes:
        a, b = np.asarray(theirs(box)), np.asarray(ours(box))
        if not np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
            return Verdict(
                "fail",
                f"{name} and maemem differ in [{box}]",
                "if the file was changed since, delete its copy in WORKDIR/cache; else report it",
            )
    return Verdict("ok", f"{name} and maemem read the same in {len(boxes)} random boxes")


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


def random_boxes(shape_zyx: Zyx) -> list[Box]:
    """Boxes of two sections anywhere in a shape, the same each time."""
    random = np.random.default_rng(0)
    sizes = np.minimum(shape_zyx, (2, _SIDE, _SIDE))
    starts = random.integers(0, np.subtract(shape_zyx, sizes) + 1, (_BOXES, 3))
    return [Box(tuple(a.tolist()), tuple((a + sizes).tolist())) for a in starts]


def _reader_of_file(path: str) -> tuple[str, tuple[int, ...], Read]:
    """The name of a library, the shape that it sees in a file, and what reads a box by it."""
    lower = path.lower()
    if pathlib.Path(path).is_dir():
        return _reader_of_sections(sections(pathlib.Path(path)))
    if lower.endswith(".npy"):
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        return "numpy", mapped.shape, lambda box: mapped[box.slices]
    if lower.endswith((".tif", ".tiff")):
        return "tifffile", *_reader_of_tiff(path)
    name, _, dataset = path.rpartition(":") if ":" in path else (path, "", "")
    array = _dataset(h5py.File(name, "r"), dataset)
    return "h5py", array.shape, lambda box: array[box.slices]


def _reader_of_sections(files: list[pathlib.Path]) -> tuple[str, tuple[int, ...], Read]:
    """The same of a folder; Pillow lacks codecs of TIFF, so that it reads the others alone."""
    tiffs = [_is_tiff(file) for file in files]
    name = "tifffile" if all(tiffs) else "Pillow" if not any(tiffs) else "tifffile and Pillow"

    def read(box: Box) -> np.ndarray:
        zs, ys, xs = box.slices
        return np.stack([_image(file)[ys, xs] for file in files[zs]])

    return name, (len(files), *_size(files[0])), read


def _size(file: pathlib.Path) -> tuple[int, int]:
    """Height and width of a section, from its header alone."""
    if _is_tiff(file):
        with tifffile.TiffFile(file) as tiff:
            return tiff.pages.first.imagelength, tiff.pages.first.imagewidth
    with Image.open(file) as image:
        return image.height, image.width


def _is_tiff(file: pathlib.Path) -> bool:
    return file.suffix.lower() in (".tif", ".tiff")


def _image(file: pathlib.Path) -> np.ndarray:
    """A section as [y x]."""
    if _is_tiff(file):
        return tifffile.imread(file, key=0)
    with Image.open(file) as image:
        return np.asarray(image)


def _dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """That of a name; without one, the only one of three axes."""
    found: list[h5py.Dataset] = []

    def note(path: str, item: h5py.Dataset | h5py.Group) -> None:
        fits = path == name.strip("/") if name else getattr(item, "ndim", 0) == 3
        if isinstance(item, h5py.Dataset) and fits:
            found.append(item)

    file.visititems(note)
    return found[0]


def _reader_of_tiff(path: str) -> tuple[tuple[int, ...], Read]:
    with tifffile.TiffFile(path) as tiff:
        depth, page = len(tiff.pages), tiff.pages.first
        shape = (depth, page.imagelength, page.imagewidth)
        stacked = tiff.series[0].shape
    if depth == 1 and len(stacked) == 3:  # ImageJ describes all sections in the first.
        mapped = tifffile.memmap(path, mode="r")
        return mapped.shape, lambda box: mapped[box.slices]

    def read(box: Box) -> np.ndarray:
        zs, ys, xs = box.slices
        pages = [tifffile.imread(path, key=z) for z in range(zs.start, zs.stop)]
        return np.stack([section.reshape(shape[1:])[ys, xs] for section in pages])

    return shape, read


def _reader_of_store(source: str) -> tuple[str, tuple[int, ...], Read | None]:
    """The same of a store, for zarr alone; without a reader, why there is none."""
    if not source.startswith("file://") or "|" in source:
        return f"{source} is not a local folder", (), None
    folder = pathlib.Path(urllib.parse.unquote(urllib.parse.urlsplit(source).path))
    if not (folder / ".zarray").exists() and not (folder / "zarr.json").exists():
        return "zarr-python does not read this format", (), None
    if importlib.util.find_spec("zarr") is None:
        return "zarr-python is not installed (pip install zarr)", (), None
    import zarr

    array = zarr.open_array(str(folder), mode="r")
    if array.ndim != 3:
        return f"it has {array.ndim} axes, of which maemem drops some", (), None

    def read(box: Box) -> np.ndarray:
        return np.asarray(array[box.slices])

    return "zarr-python", array.shape, read
