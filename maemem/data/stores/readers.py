"""Readers of files that tensorstore cannot open in place: TIFF, PNG sections, HDF5, npy."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import math
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import imagecodecs
import numpy as np
import tifffile

from maemem.data.stores import damage
from maemem.data.stores.formats import METADATA_KEYS, VoxelSize
from maemem.data.stores.tiff import check_depth, check_page, open_tiff, read_page
from maemem.data.stores.volumes import DTYPES, IMAGE_SUFFIXES, open_volume
from maemem.geometry import Box, Zyx, format_zyx

MEND = "put a whole copy in its place"
_TIFF_SUFFIXES = (".tif", ".tiff")
_HDF5_PATTERN = re.compile(r"(?P<file>.*\.(h5|hdf5?))(:(?P<dataset>.*))?", re.IGNORECASE)
_PNG_MAX_RATIO = 1032  # of deflate
_PNG_HEADER = struct.Struct(">8x8xIIBB")  # width, height, bits, colour; after the signature


@dataclasses.dataclass(frozen=True)
class Source:
    """A volume to convert."""

    path: str  # absolute, or a URL
    stamp: str  # changes when the file is replaced
    shape_zyx: Zyx
    dtype: np.dtype
    voxel_size_nm: VoxelSize | None  # z y x; None: not in the file
    whole_sections: bool  # whether sections are decoded as a whole
    read: Callable[[Box], np.ndarray]  # the values [z y x] of a box


def is_foreign(path: str) -> bool:
    """Whether a volume must be converted: a TIFF, HDF5 or npy file, or a folder of images.

    Files are recognised by name, so a missing file may be foreign, too.
    """
    if "://" in path:
        return False
    folder = Path(path).expanduser()
    if folder.is_dir():
        return not any((folder / key).exists() for key in METADATA_KEYS) and bool(sections(folder))
    suffixes = (*_TIFF_SUFFIXES, ".npy")
    return path.lower().endswith(suffixes) or _HDF5_PATTERN.fullmatch(path) is not None


def identify(path: str) -> tuple[str, str]:
    """The absolute path of a foreign volume, and a stamp that changes when it is replaced.

    Raises:
      FileNotFoundError: if it does not exist.
    """
    hdf5 = _HDF5_PATTERN.fullmatch(path)
    file = Path(hdf5["file"] if hdf5 else path).expanduser().resolve()
    if not file.exists():
        raise FileNotFoundError(f"there is no volume at {path}: {file} does not exist")
    if file.is_dir():
        stats = [(p.name, p.stat()) for p in sections(file)]
        listed = "\n".join(f"{name} {s.st_size} {s.st_mtime_ns}" for name, s in stats)
        return str(file), f"{len(stats)} sections {hashlib.sha256(listed.encode()).hexdigest()}"
    dataset = f":/{hdf5['dataset'].lstrip('/')}" if hdf5 and hdf5["dataset"] else ""
    stat = file.stat()
    return f"{file}{dataset}", f"{stat.st_size} bytes, mtime {stat.st_mtime_ns} ns"


@contextlib.contextmanager
def open_source(
    path: str, *, voxel_size_nm: VoxelSize | None, cache_bytes: int
) -> Iterator[Source]:
    """Opens a volume to convert, until the context ends.

    Args:
      path: a TIFF stack, a folder of TIFF or PNG sections, `file.h5:/dataset`, an npy file, or
        what `open_volume` opens.
      voxel_size_nm: z y x, where the file has none; else checked against it.
      cache_bytes: how much decoded data may be kept for the next box.

    Raises:
      FileNotFoundError: if it does not exist.
      ValueError: if it is not one three-dimensional volume of grey values.
    """
    if not is_foreign(path):
        volume = open_volume(path, voxel_size_nm=voxel_size_nm)
        yield Source(
            path=volume.source,
            stamp=volume.stamp,
            shape_zyx=volume.shape_zyx,
            dtype=volume.dtype,
            voxel_size_nm=volume.voxel_size_nm,
            whole_sections=False,
            read=volume.read,
        )
        return
    absolute, stamp = identify(path)
    hdf5 = _HDF5_PATTERN.fullmatch(absolute)
    file = hdf5["file"] if hdf5 else absolute
    with contextlib.ExitStack() as stack:
        with damage.naming_file(file, MEND):
            if Path(absolute).is_dir():
                array = _open_sections(Path(absolute), cache_bytes)
            elif hdf5:
                array = _open_hdf5(stack, file, hdf5["dataset"], cache_bytes)
            elif absolute.lower().endswith(".npy"):
                array = _open_npy(absolute)
            else:
                array = _open_tiff(stack, absolute, cache_bytes)
        shape, dtype, whole_sections, read = array
        if len(shape) != 3 or 0 in shape or dtype.name not in DTYPES:
            raise ValueError(
                f"{path} is an array {format_zyx(shape)} of {dtype}; expected three dimensions "
                f"z, y, x, and one of {', '.join(DTYPES)}"
            )
        read = functools.partial(_read, file, read)
        yield Source(absolute, stamp, shape, dtype, None, whole_sections, read)


# Shape, dtype, whether whole sections are decoded, and the reader of a box.
_Opened = tuple[tuple[int, ...], np.dtype, bool, Callable[[Box], np.ndarray]]


def _read(file: str, read: Callable[[Box], np.ndarray], box: Box) -> np.ndarray:
    with damage.naming_file(file, MEND):
        return read(box)


def _open_npy(path: str) -> _Opened:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"{path} is not an npy file of numbers: {error}") from None
    fortran = not array.flags.c_contiguous
    read = functools.partial(_read_mapped, path, array.dtype, array.offset, array.shape, fortran)
    return array.shape, array.dtype.newbyteorder("="), False, read


def _read_mapped(
    path: str, dtype: np.dtype, offset: int, shape: Zyx, fortran: bool, box: Box
) -> np.ndarray:
    # Mapped anew each time: pages that were read count as resident until they are unmapped.
    mapped = np.memmap(path, dtype, "r", offset, shape, "F" if fortran else "C")
    return np.array(mapped[box.slices], dtype.newbyteorder("="), order="C")


def _open_hdf5(
    stack: contextlib.ExitStack, path: str, dataset: str | None, cache_bytes: int
) -> _Opened:
    try:
        file = stack.enter_context(h5py.File(path, "r", rdcc_nbytes=cache_bytes))
    except OSError as error:
        raise ValueError(f"{path} is not an HDF5 file: {error}") from None
    found: list[str] = []

    def note(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim == 3:
            found.append("/" + name)

    file.visititems(note)
    if not dataset and len(found) == 1:
        dataset = found[0]
    array = file.get(dataset) if dataset else None
    if not isinstance(array, h5py.Dataset):
        missing = f"has no dataset {dataset}" if dataset else "needs a dataset, FILE.h5:/DATASET"
        raise ValueError(f"{path} {missing}; those of three dimensions: {', '.join(found) or '-'}")

    def read(box: Box) -> np.ndarray:
        return array[box.slices].astype(array.dtype.newbyteorder("="), copy=False)

    return array.shape, array.dtype.newbyteorder("="), False, read


def _open_tiff(stack: contextlib.ExitStack, path: str, cache_bytes: int) -> _Opened:
    tiff = stack.enter_context(open_tiff(path))
    series = tiff.series[0]
    height, width, dtype = _page_kind(path, series)
    # tifffile takes each section that was appended separately as a series.
    appended = len(tiff.series) > 1
    shapes = {(s.shape, s.dtype, len(s.pages)) for s in tiff.series}
    depth = math.prod(series.shape) // (height * width)
    # tifffile drops axes of size 1 from the shape of a series.
    stacked = sum(n > 1 for n in series.shape) - (height > 1) - (width > 1)
    if stacked > 1 or len(shapes) > 1 or (appended and depth > 1):
        found = ", ".join(format_zyx(shape) for shape, _, _ in sorted(shapes, key=str)[:5])
        raise ValueError(
            f"{path} holds {len(tiff.series)} images of {found}, expected one stack of sections"
        )
    shape = (len(tiff.series) if appended else depth, height, width)
    check_depth(tiff, shape[0], height * width * dtype.itemsize, path)
    if not appended and series.dataoffset is not None:  # one run of raw bytes, as by ImageJ
        stored = series.dtype.newbyteorder(tiff.byteorder)
        read = functools.partial(_read_mapped, path, stored, series.dataoffset, shape, False)
        return shape, dtype, False, read

    def decode(z: int) -> np.ndarray:
        page = tiff.series[z].pages[0] if appended else series.pages[z]
        if page is None:
            raise ValueError(f"{path} lacks section {z}")
        return read_page(page, path).reshape(height, width)  # [y x], without axes of size 1

    return shape, dtype, True, _by_section(decode, shape, dtype, cache_bytes)


def _page_kind(path: str | Path, series: tifffile.TiffPageSeries) -> tuple[int, int, np.dtype]:
    """Height, width and dtype of the pages; checks the first one."""
    if "S" in series.axes:
        raise ValueError(
            f"{path} is a colour image, {format_zyx(series.shape)}; expected grey values. Store it "
            f"with one channel"
        )
    page = series.keyframe
    check_page(page, path)
    return page.imagelength, page.imagewidth, series.dtype.newbyteorder("=")


def sections(folder: Path) -> list[Path]:
    """The images in a folder, sorted by the numbers in their names."""
    images = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES]

    def natural(path: Path) -> list[tuple[int, str]]:
        return [(int(n or -1), text) for text, n in re.findall(r"(\D*)(\d*)", path.name)]

    return sorted(images, key=natural)


def _open_sections(folder: Path, cache_bytes: int) -> _Opened:
    files = sections(folder)
    first = _section_kind(files[0])
    for file in files[1:]:
        kind = _section_kind(file)
        if kind != first:
            raise ValueError(
                f"{file} is {format_zyx(kind[0])} of {kind[1]}, and {files[0].name} is "
                f"{format_zyx(first[0])} of {first[1]}; the sections of a volume must agree"
            )
    (height, width), dtype = first

    def decode(z: int) -> np.ndarray:
        if files[z].suffix.lower() == ".png":
            # [y x] or [y x 1] -> [y x]
            return imagecodecs.png_decode(files[z].read_bytes()).reshape(height, width)
        with open_tiff(files[z]) as tiff:
            return read_page(tiff.pages[0], files[z]).reshape(height, width)  # [y x]

    shape = (len(files), height, width)
    return shape, dtype, True, _by_section(decode, shape, dtype, cache_bytes)


def _section_kind(path: Path) -> tuple[tuple[int, int], np.dtype]:
    """Height, width and dtype of an image, from its header."""
    if path.suffix.lower() == ".png":
        with path.open("rb") as file:
            header = file.read(_PNG_HEADER.size)
        if len(header) < _PNG_HEADER.size or not header.startswith(b"\x89PNG"):
            raise ValueError(f"{path} is not a PNG file")
        width, height, bits, colour = _PNG_HEADER.unpack(header)
        if colour != 0 or bits not in (8, 16):
            raise ValueError(
                f"{path} is a PNG of colour type {colour} with {bits} bits; expected grey values "
                f"of 8 or 16 bits"
            )
        stored = path.stat().st_size
        if height * width * bits // 8 > stored * _PNG_MAX_RATIO:
            raise ValueError(
                f"{path} says that it is {height}x{width} voxels (y, x) of {bits} bits, and is "
                f"{stored} bytes long, which cannot hold them; {MEND}"
            )
        return (height, width), np.dtype(f"uint{bits}")
    with open_tiff(path) as tiff:
        height, width, dtype = _page_kind(path, tiff.series[0])
        if len(tiff.series) > 1 or math.prod(tiff.series[0].shape) != height * width:
            raise ValueError(f"{path} holds several sections, expected one; convert it by itself")
        return (height, width), dtype


def _by_section(
    decode: Callable[[int], np.ndarray], shape: Zyx, dtype: np.dtype, cache_bytes: int
) -> Callable[[Box], np.ndarray]:
    """A reader of boxes that caches decoded sections, as many as fit `cache_bytes`."""
    section_bytes = shape[1] * shape[2] * dtype.itemsize
    section = functools.lru_cache(maxsize=max(1, cache_bytes // section_bytes))(decode)

    def read(box: Box) -> np.ndarray:
        out = np.empty(box.shape_zyx, dtype)
        zs, ys, xs = box.slices
        for i, z in enumerate(range(zs.start, zs.stop)):
            out[i] = section(z)[ys, xs]
        return out

    return read
