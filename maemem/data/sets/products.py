"""Public data sets: their files, and how volumes are made from them."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
from PIL import Image

from maemem.data.convert import convert
from maemem.data.sets import relabel
from maemem.data.sets.archives import matches, unpack
from maemem.data.sets.relabel import Encoding
from maemem.data.stores.formats import VoxelSize
from maemem.data.stores.readers import is_foreign, open_source, sections
from maemem.geometry import Box

_CACHE_BYTES = 1 << 30
_FOREGROUND = 127  # Masks are drawn in black and white.

_MASKS: dict[Encoding, Callable[[np.ndarray], np.ndarray]] = {
    Encoding.COMPONENTS: relabel.components,
    Encoding.LINKED: relabel.linked_components,
}


@dataclasses.dataclass(frozen=True)
class Download:
    """One file to download."""

    name: str  # on disk
    url: str | None  # None: given to registered users only
    checksum: str | None  # "sha256:…" or "md5:…"; None: no published one was found
    seen: str  # who published the address and the checksum
    verified: bool = True  # whether exactly this address was published


@dataclasses.dataclass(frozen=True)
class Product:
    """A volume that is made from a download."""

    path: str  # below the folder of the data set; it ends in `.zarr`
    download: Download
    # An HDF5 dataset; or the pattern of files in a zip: one file, or sections with numbered names.
    inside: str
    encoding: Encoding = Encoding.AS_IT_IS


@dataclasses.dataclass(frozen=True)
class PublicDataset:
    """A data set that `python -m maemem.data.fetch NAME` downloads."""

    name: str  # also the folder below the root
    title: str
    tissue: str
    voxel_size_nm: VoxelSize
    products: tuple[Product, ...]
    license: str
    citation: str
    home: str
    note: str = ""

    @property
    def downloads(self) -> tuple[Download, ...]:
        """Its files, each once."""
        return tuple(dict.fromkeys(product.download for product in self.products))


@dataclasses.dataclass(frozen=True)
class Material:
    """The files that a volume is made from."""

    path: Path
    # The downloaded file, a folder unpacked from it, or the volume itself.
    kind: Literal["download", "unpacked", "volume"]


def find_material(given: Path, product: Product, alone: bool) -> Material | None:
    """The files that a user has of a product, or None.

    Args:
      given: a folder or a file.
      product: the volume to make.
      alone: whether the data set is a single file, so that its name does not matter.
    """
    name = product.download.name
    whole = given / name if given.is_dir() else given
    if whole.is_file() and (whole.name == name or alone):
        return Material(whole, "download")
    if not given.is_dir():
        return None
    if name.endswith(".zip") and _matching(given, product.inside):
        return Material(given, "unpacked")
    for path in sorted(given.glob(f"{Path(product.path).stem}.*")):
        if path.is_file() and is_foreign(str(path)):
            return Material(path, "volume")
    return None


def make_volume(
    product: Product, material: Material, target: Path, voxel_size_nm: VoxelSize, scratch: Path
) -> None:
    """Makes a volume, as OME-Zarr.

    Args:
      product: the volume to make.
      material: the files to make it from.
      target: its path, which does not exist.
      voxel_size_nm: z y x.
      scratch: a folder for unpacked files; it stays after an interrupt, to go on from.

    Raises:
      ValueError: if the material is damaged or has other content than the product expects.
      OSError: if the disk is too small.
    """
    source = _source(product, material, scratch)
    encoding = Encoding.AS_IT_IS if material.kind == "volume" else product.encoding
    if encoding is Encoding.AS_IT_IS:
        convert(source, str(target), voxel_size_nm=voxel_size_nm)
    else:
        scratch.mkdir(parents=True, exist_ok=True)
        ids = scratch / "ids.npy"
        np.save(ids, _decode(source, encoding))
        os.utime(ids, (0, 0))  # An interrupted conversion compares times, and may go on from it.
        convert(str(ids), str(target), voxel_size_nm=voxel_size_nm)
    shutil.rmtree(scratch, ignore_errors=True)


def _source(product: Product, material: Material, scratch: Path) -> str:
    """A path for `open_source`: a file, or a folder with the sections alone."""
    if material.kind == "volume":
        return str(material.path)
    if not product.download.name.endswith(".zip"):
        return f"{material.path}:/{product.inside}"
    sections = scratch / "sections"
    if material.kind == "unpacked":
        sections.mkdir(parents=True, exist_ok=True)
        for path in _matching(material.path, product.inside):
            (sections / path.name).unlink(missing_ok=True)
            (sections / path.name).symlink_to(path)
    else:
        unpack(material.path, product.inside, sections)
    files = list(sections.iterdir())
    return str(files[0] if len(files) == 1 else sections)


def _matching(folder: Path, pattern: str) -> list[Path]:
    """The files in a folder that match a pattern of the archive, wherever it was unpacked."""
    patterns = (pattern, f"*/{pattern}", pattern.removeprefix("*/"))
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and any(matches(path.relative_to(folder).as_posix(), p) for p in patterns)
    ]


def _decode(source: str, encoding: Encoding) -> np.ndarray:
    """An image or the ids that a source encodes, `[z y x]`, all in memory."""
    if encoding is Encoding.BODIES:
        file, dataset = source.rsplit(":/", 1)
        with h5py.File(file) as opened:
            return relabel.bodies(_array(opened, dataset), _array(opened, "transforms"))
    if encoding is Encoding.COLOURS_REVERSED:
        files = reversed(sections(Path(source)))
        return relabel.colour_ids(np.asarray(Image.open(p).convert("RGB")) for p in files)
    if encoding in _MASKS:
        mask = np.stack(list(_masks(sections(Path(source)))))
        if not mask.any() or mask.all():
            raise ValueError(f"the sections in {source} are all of one value, expected masks")
        return _MASKS[encoding](mask)
    with open_source(source, voxel_size_nm=None, cache_bytes=_CACHE_BYTES) as opened:
        return opened.read(Box((0, 0, 0), opened.shape_zyx))


def _masks(sections: list[Path]) -> Iterator[np.ndarray]:
    for path in sections:
        yield np.asarray(Image.open(path).convert("L")) > _FOREGROUND


def _array(opened: h5py.File, name: str) -> np.ndarray:
    found = opened.get(name)
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"{opened.filename} has no dataset {name}; is it the right file?")
    return found[...]
