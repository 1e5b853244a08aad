"""TIFF files that are whole: tifffile reads what is left of others without an error."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile


@contextlib.contextmanager
def open_tiff(path: str | Path) -> Iterator[tifffile.TiffFile]:
    """A TIFF file, until the context ends.

    Raises:
      ValueError: if it is none, or the list of its pages ends before its time.
    """
    try:
        file = tifffile.TiffFile(path)
    except tifffile.TiffFileError as error:
        raise ValueError(f"{path} is not a TIFF file: {error}") from None
    with file as tiff:
        handle, place = tiff.filehandle, tiff.pages.next_page_offset
        if place is not None:
            # Of the last page it is 0; one that leads out of the file is left out by tifffile.
            handle.seek(place)
            found = handle.read(tiff.tiff.offsetsize)
            if len(found) < tiff.tiff.offsetsize or struct.unpack(tiff.tiff.offsetformat, found)[0]:
                raise ValueError(f"{path} is truncated: it has more pages than the file holds")
        yield tiff


def read_page(page: tifffile.TiffPage | tifffile.TiffFrame, path: str | Path) -> np.ndarray:
    """The grey values of a page.

    Raises:
      ValueError: if the file ends within them.
    """
    size = page.parent.filehandle.size
    ends = zip(page.dataoffsets, page.databytecounts, strict=True)
    if any(start + count > size for start, count in ends):
        raise ValueError(f"{path} is truncated: a page leaves the file, which is {size} bytes long")
    return page.asarray()
