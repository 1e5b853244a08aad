"""Volumes on tensorstore, whatever their format, opened in place as `[z y x]`."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import tensorstore as ts

from maemem.data.stores import damage, formats
from maemem.data.stores.formats import VoxelSize
from maemem.data.stores.stamps import stamp
from maemem.geometry import Box, Zyx

# Intensities and labels. Wider floats and booleans would only be stored at a loss, or by mistake.
DTYPES = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float32")
IMAGE_SUFFIXES = (".tif", ".tiff", ".png")
UNFINISHED_SUFFIX = ".partial"

# What coarser voxels hold.
Binning: TypeAlias = Literal["mean", "mode"]

_FILE_PATTERN = re.compile(r".*\.(tiff?|npy|h5|hdf5?)(:.*)?", re.IGNORECASE)
_MEND = "bring it back as it was, and start the same command again"
_MAX_VOXELS = 1 << 62  # tensorstore's largest index
_SAME_VOXEL_SIZE = 0.01  # relative: metadata are often rounded


@dataclasses.dataclass(frozen=True)
class Volume:
    """A volume, or a region of one, ready to be read."""

    store: ts.TensorStore  # [z y x], its origin at 0, already cut to `region`
    voxel_size_nm: VoxelSize  # z y x
    source: str  # URL of the array in full; the same for two volumes that show the same data
    region: Box  # what `store` shows, in its voxels, of the whole array
    start_nm: VoxelSize = (0.0, 0.0, 0.0)  # z y x, of the whole array, as its metadata place it
    stamp: str = ""  # tells this content from another at the same source

    @property
    def shape_zyx(self) -> Zyx:
        """Its extent, in voxels."""
        return self.region.shape_zyx

    @property
    def dtype(self) -> np.dtype:
        """The type of its voxels."""
        return self.store.dtype.numpy_dtype

    def read(self, box: Box) -> np.ndarray:
        """The voxels of a box `[z y x]`, in voxels of this volume; raises what `finish` does."""
        return self.finish(self.store[box.slices].read(order="C"), box.start_zyx)

    def finish(self, reading: ts.Future, start_zyx: Sequence[int]) -> np.ndarray:
        """The voxels `[z y x]` that are being read, once they are there, and checked.

        Args:
          reading: of a box that begins at `start_zyx`, in voxels of this volume.

        Raises:
          ValueError: if something stored is damaged or out of reach, infinite or not a number.
          FileNotFoundError: if the volume has vanished since it was opened.
        """
        with damage.naming_file(self.source, _MEND):
            values = reading.result()
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            z, y, x = np.argwhere(~np.isfinite(values))[0] + start_zyx + self.region.start_zyx
            raise ValueError(
                f"{self.source} holds NaN or infinity at z, y, x = {z}, {y}, {x}; expected numbers "
                f"everywhere: store others there, or choose a region without it"
            )
        # Chunks that are not there are read as one value, so all would be, once none is there.
        place, first = self.store.kvstore, values.flat[0]
        alike = first == values.flat[-1] and (values == first).all()
        if alike and place is not None and not formats.is_volume(place):
            raise FileNotFoundError(f"{self.source} has vanished since it was opened; {_MEND}")
        return values

    def cut(self, region: str) -> Volume:
        """A part of this volume, as `Box.parse` reads it, in voxels of this volume; empty is all.

        Raises:
          ValueError: if the region is malformed or leaves the volume.
        """
        box = Box.parse(region, self.shape_zyx)
        store = self.store[box.slices][ts.d[:].translate_to[0]]
        return dataclasses.replace(self, store=store, region=box.moved(self.region.start_zyx))

    def binned(self, bin_zyx: Zyx, method: Binning) -> Volume:
        """The whole of this volume with coarser voxels, computed as they are read.

        Args:
          bin_zyx: how many voxels make one along each axis; those at the far end may be fewer.
          method: `mean`, for intensities, or `mode`, the most frequent, for labels.
        """
        if bin_zyx == (1, 1, 1):
            return self
        store = ts.downsample(self.store, bin_zyx, method)
        store = store[ts.d[:].label["z", "y", "x"]]
        z, y, x = store.shape
        size = tuple(nm * n for nm, n in zip(self.voxel_size_nm, bin_zyx, strict=True))
        whole = Box((0, 0, 0), (z, y, x))
        size = check_voxel_size(size)
        return dataclasses.replace(self, store=store, voxel_size_nm=size, region=whole)


@functools.cache
def shared_context(cache_bytes: int) -> ts.Context:
    """The one tensorstore context of this process with a cache of this size, in bytes.

    Volumes opened in it share its cache and its threads; so open all of them in the same one.
    """
    return ts.Context({"cache_pool": {"total_bytes_limit": cache_bytes}})


def open_volume(
    path: str,
    *,
    voxel_size_nm: VoxelSize | None = None,
    region: str = "",
    context: ts.Context | None = None,
) -> Volume:
    """Opens a volume for reading: zarr 2 or 3, OME-Zarr, N5, or Neuroglancer precomputed.

    Of a multi-scale image the first scale is opened. Axes are turned to z y x: by their names where
    the metadata name them; else zarr is taken as z y x, and N5 as x y z, as its readers do. Axes
    such as time and channel must have size 1, and are dropped. Voxels count from 0, wherever the
    metadata place the first (`Volume.start_nm`).

    Args:
      path: a folder, or a URL that tensorstore knows (`gs://`, `s3://`, `http://`, `file://`, also
        `...|zip:` and `...|zarr3:`).
      voxel_size_nm: z y x; needed only where the metadata have none.
      region: what to show of it, as `Box.parse` reads it, in voxels of the whole; empty is all.
      context: as `shared_context` makes it; without it, nothing is cached.

    Raises:
      FileNotFoundError: if there is nothing at the path.
      ValueError: if what is there is no volume, is not whole yet, has another rank or a dtype not
        in `DTYPES`; if its voxel size is not known or is contradicted; if the region is malformed.
    """
    kvstore = _locate(path, context)
    if any(p.rstrip("/").endswith(UNFINISHED_SUFFIX) for p in kvstore.path.split("/")):
        raise ValueError(_unfinished(path))
    layout = formats.read_layout(kvstore)
    if formats.is_unfinished(kvstore):
        raise ValueError(_unfinished(path))
    if layout is None:
        raise _no_volume(path)
    store = _turn(_open_array(layout, path, context), layout, path)
    if store.dtype.name not in DTYPES:
        raise ValueError(
            f"{path} has voxels of type {store.dtype.name}, expected one of {', '.join(DTYPES)}; "
            f"store it as one of these"
        )
    z, y, x = store.shape
    size = _agreed_voxel_size(path, layout.voxel_size_nm, voxel_size_nm)
    source, whole = formats.address(layout.kvstore).rstrip("/"), Box((0, 0, 0), (z, y, x))
    return Volume(store, size, source, whole, layout.start_nm, stamp(layout)).cut(region)


def conversion_hint(path: str) -> str:
    """The command that makes a volume of a file which cannot be opened in place."""
    return f"python -m maemem.data.convert {path} OUTPUT.zarr --voxel_size_nm=z,y,x"


def check_voxel_size(size: tuple[float, ...]) -> VoxelSize:
    """Three lengths in nm, as floats.

    Raises:
      ValueError: if they are not three, or one is not a positive number.
    """
    if len(size) != 3 or not all(math.isfinite(s) and s > 0 for s in size):
        raise ValueError(
            f"voxel_size_nm is {tuple(size)}, expected three positive lengths in nm, in z, y, x, "
            f"like 30,6,6"
        )
    z, y, x = (float(s) for s in size)
    return z, y, x


def _locate(path: str, context: ts.Context | None) -> ts.KvStore:
    """The folder that a path or a URL names; the name of a folder is made canonical."""
    if "://" not in path:
        folder = Path(path).expanduser().resolve()
        if _FILE_PATTERN.fullmatch(path) and not folder.is_dir():
            raise ValueError(
                f"{path} is a file that cannot be read in place; convert it first: "
                f"{conversion_hint(path)}"
            )
        if not folder.exists():
            raise FileNotFoundError(f"there is no volume at {path}: {folder} does not exist")
        if not folder.is_dir():
            raise ValueError(
                f"{path} is a file, expected the folder of a volume; if it is a TIFF, HDF5 or npy "
                f"file, convert it first: {conversion_hint(path)}"
            )
        return formats.folder(folder)
    return open_url(path, context)


def open_url(url: str, context: ts.Context | None = None) -> ts.KvStore:
    """The storage that a URL names, as a folder; nothing need be there.

    `s3://` is Amazon's, or what the environment variable `AWS_ENDPOINT_URL` names instead.

    Raises:
      ValueError: if it is not a URL that tensorstore knows.
    """
    try:
        kvstore = ts.KvStore.open(_kvstore_spec(url), context=context).result()
    except ValueError as error:
        raise ValueError(f"{url} is not a URL that tensorstore can open: {error}") from None
    if "|" not in url and url.startswith("file://"):
        return formats.at(kvstore, str(Path(kvstore.path).resolve()))
    return formats.at(kvstore, kvstore.path)


def _kvstore_spec(url: str) -> ts.KvStore.Spec:
    spec = ts.KvStore.Spec(_without_format(url)).to_json()
    inner = spec.get("base", spec)  # Such as of `|zip:`.
    # As Amazon's own tools have it; tensorstore wants to be told, in the specification.
    if inner["driver"] == "s3" and (endpoint := os.environ.get("AWS_ENDPOINT_URL")):
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        inner |= {"endpoint": endpoint, "aws_region": region or "us-east-1"}
    return ts.KvStore.Spec(spec)


def _without_format(url: str) -> str | dict:
    """Without a last part such as `|zarr3:`: the metadata of a format speak for themselves."""
    last = url.rsplit("|", 1)[-1]
    if "|" in url and re.match(r"(zarr2?|zarr3|n5|neuroglancer-precomputed|auto):", last):
        array = ts.Spec(url).kvstore
        if array is not None:
            return array.to_json()
    return url


def _no_volume(path: str) -> Exception:
    if "://" in path:
        return FileNotFoundError(
            f"there is no volume at {path}: none of {', '.join(formats.METADATA_KEYS)} is there; "
            f"check the address"
        )
    images = sum(name.lower().endswith(IMAGE_SUFFIXES) for name in os.listdir(path))
    what = f"holds {images} images" if images else "holds no metadata of a volume"
    return ValueError(
        f"{path} {what}; expected zarr, N5 or Neuroglancer precomputed. If these are the sections "
        f"of a volume, convert them first: {conversion_hint(path)}"
    )


def _unfinished(path: str) -> str:
    return (
        f"{path} is an unfinished conversion; run the command that began it again, and it goes on "
        f"where it stopped"
    )


def _open_array(layout: formats.Layout, path: str, context: ts.Context | None) -> ts.TensorStore:
    spec = {
        "driver": layout.driver,
        "kvstore": layout.kvstore.spec().to_json(),
        # What is cached stays valid: or every crop would ask for the state of its files again.
        "recheck_cached_data": "open",
        "recheck_cached_metadata": "open",
    }
    try:
        store = ts.open(spec, open=True, read=True, context=context).result()
    except (ValueError, NotImplementedError) as error:
        raise ValueError(f"{path} cannot be opened as {layout.driver}: {error}") from None
    if not 0 < math.prod(store.shape) < _MAX_VOXELS:
        raise ValueError(
            f"{path} says that its shape is {store.shape}; expected a voxel at least, and fewer "
            f"than {_MAX_VOXELS}: correct its metadata"
        )
    try:  # Where tensorstore finds no memory for a chunk, it ends the process without a word.
        np.empty(store.chunk_layout.read_chunk_template.shape, store.dtype.numpy_dtype)
    except (MemoryError, ValueError) as error:
        raise ValueError(
            f"{path} says that it has chunks which are too large for this machine's memory: "
            f"{error}; correct its metadata, or store it in smaller chunks"
        ) from None
    return store


def _turn(store: ts.TensorStore, layout: formats.Layout, path: str) -> ts.TensorStore:
    """Drops axes of size 1 other than z, y and x, and puts these in order, with origin 0."""
    axes = layout.axes
    if axes is None or len(axes) != store.rank or not {"z", "y", "x"} & set(axes):
        if store.rank != 3:
            named = f" with axes {', '.join(axes)}" if axes else ", its axes without names"
            raise ValueError(
                f"{path} has {store.rank} dimensions{named}, expected 3, or axes named z, y and x "
                f"in the metadata"
            )
        axes = ("z", "y", "x")
    if sorted(name for name in axes if name in ("z", "y", "x")) != ["x", "y", "z"]:
        raise ValueError(f"{path} has axes {', '.join(axes)}, expected each of z, y and x once")
    for dim, name in enumerate(axes):
        if name not in ("z", "y", "x") and store.shape[dim] != 1:
            raise ValueError(
                f"{path} has {store.shape[dim]} entries along axis {name!r}, expected 1; store "
                f"the one that is wanted as a volume of its own"
            )
    order = [axes.index(name) for name in "zyx"]
    # The dropped axes may not begin at 0, hence the translation first.
    index = tuple(slice(None) if name in ("z", "y", "x") else 0 for name in axes)
    store = store[ts.d[:].translate_to[0]][ts.d[:].label[[""] * store.rank]]
    kept = sorted(order)
    turned = store[index][ts.d[[kept.index(dim) for dim in order]].transpose[:]]
    return turned[ts.d[:].label["z", "y", "x"]]


def _agreed_voxel_size(path: str, stored: VoxelSize | None, given: VoxelSize | None) -> VoxelSize:
    if given is None:
        if stored is None:
            raise ValueError(
                f"{path} does not say its voxel size; give voxel_size_nm, in nm, as z, y, x: "
                f"--config.data.SET.NAME.voxel_size_nm=30.,6.,6."
            )
        with damage.naming_file(path, "correct its metadata"):
            return check_voxel_size(stored)
    given = check_voxel_size(given)
    if stored and not np.allclose(given, stored, rtol=_SAME_VOXEL_SIZE, atol=0):
        raise ValueError(
            f"voxel_size_nm is {given} and the metadata of {path} say {stored} (z, y, x, in nm); "
            f"leave voxel_size_nm out, or correct the metadata"
        )
    return given
