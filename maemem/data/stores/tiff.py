"""Checks that TIFF files are complete: tifffile reads truncated ones without an error."""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile

# Above the ratio of any compressor, even for zeros: deflate 1032, zstd 2^15.
_MAX_RATIO = 1 << 16
_MEND = "put a whole copy in its place, or write it anew with the program that made it"


@contextlib.contextmanager
def open_tiff(path: str | Path) -> Iterator[tifffile.TiffFile]:
    """A TIFF file, until the context ends.

    Raises:
      ValueError: if it is no TIFF, or its list of pages is cut off.
    """
    try:
        file = tifffile.TiffFile(path)
    except tifffile.TiffFileError as error:
        raise ValueError(f"{path} is not a TIFF file: {error}") from None
    with file as tiff:
        handle, place = tiff.filehandle, tiff.pages.next_page_offset
        if place is not None:
            # 0 after the last page. tifffile ignores an offset beyond the file's end.
            handle.seek(place)
            found = handle.read(tiff.tiff.offsetsize)
            if len(found) < tiff.tiff.offsetsize or struct.unpack(tiff.tiff.offsetformat, found)[0]:
                raise ValueError(f"{path} is truncated: it has more pages than the file holds")
        yield tiff


def check_depth(tiff: tifffile.TiffFile, depth: int, section_bytes: int, path: str | Path) -> None:
    """Raises ValueError if a file cannot hold as many sections as it declares."""
    series, size = tiff.series[0], tiff.filehandle.size
    if len(tiff.series) > 1:
        held = len(tiff.series)
    elif series.dataoffset is None:
        held = len(series.pages)
    else:  # one run of raw bytes
        held = (size - series.dataoffset) // section_bytes
    if depth > held:
        raise ValueError(
            f"{path} says that it is {depth} sections of {section_bytes} bytes, and holds {held} "
            f"whole ones in {size} bytes; {_MEND}"
        )


def check_page(page: tifffile.TiffPage | tifffile.TiffFrame, path: str | Path) -> None:
    """Checks that a file can hold a page of the declared size, before memory is allocated for it.

    Raises:
      ValueError: if the file ends within the page's grey values, or lacks strips or tiles.
    """
    size, described = page.parent.filehandle.size, page.keyframe
    assert described is not None  # tifffile reads the first page as a whole.
    ends = zip(page.dataoffsets, page.databytecounts, strict=True)
    if any(start + count > size for start, count in ends):
        raise ValueError(f"{path} is truncated: a page leaves the file, which is {size} bytes long")
    height, width = described.imagelength, described.imagewidth
    if described.is_tiled:  # Tiles are stored whole, also beyond the image's border.
        across, down = (
            math.ceil(width / described.tilewidth),
            math.ceil(height / described.tilelength),
        )
        row, rows = across * described.tilewidth, down * described.tilelength
    else:
        row, rows = width, height
    declared = rows * math.ceil(row * described.bitspersample / 8)
    stored, pieces = sum(page.databytecounts), math.prod(described.chunked)
    plain = described.compression == tifffile.COMPRESSION.NONE
    if declared > stored * (1 if plain else _MAX_RATIO) or len(page.databytecounts) < pieces:
        raise ValueError(
            f"{path} says that a section is {height}x{width} voxels (y, x), {declared} bytes in "
            f"{pieces} strips or tiles, and holds {stored} bytes in {len(page.databytecounts)}; "
            f"{_MEND}"
        )


def read_page(page: tifffile.TiffPage | tifffile.TiffFrame, path: str | Path) -> np.ndarray:
    """The grey values of a page.

    Raises:
      ValueError: as `check_page` does.
    """
    check_page(page, path)
    return page.asarray()
