"""Volumes of any format of tensorstore, opened in place as `[z y x]`."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import tensorstore as ts

from maemem.data.stores import damage, formats
from maemem.data.stores.formats import VoxelSize
from maemem.data.stores.stamps import stamp
from maemem.geometry import Box, Zyx

# For intensities and labels. Wider floats waste space; booleans are usually a mistake.
DTYPES = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float32")
IMAGE_SUFFIXES = (".tif", ".tiff", ".png")
UNFINISHED_SUFFIX = ".partial"

# How voxels are binned: their mean, for intensities; the most frequent, for labels.
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
    region: Box  # of the whole array that `store` shows, in voxels
    start_nm: VoxelSize = (0.0, 0.0, 0.0)  # z y x, where the metadata place the whole array
    stamp: str = ""  # changes when the source is replaced

    @property
    def shape_zyx(self) -> Zyx:
        """Its extent, in voxels."""
        return self.region.shape_zyx

    @property
    def dtype(self) -> np.dtype:
        """The type of its voxels."""
        return self.store.dtype.numpy_dtype

    def read(self, box: Box) -> np.ndarray:
        """The voxels of a box `[z y x]`, in voxels of this volume; raises what `begin` says."""
        return self.begin(box)()

    def begin(self, box: Box, batch: ts.Batch | None = None) -> Callable[[], np.ndarray]:
        """Begins to read a box.

        Args:
          box: in voxels of this volume.
          batch: that the read is submitted with, once it is closed; None: at once.

        Returns:
          What waits for the voxels `[z y x]`, and checks them. It raises ValueError if something
          stored is damaged or out of reach, infinite or not a number, and FileNotFoundError if the
          volume has vanished since it was opened.
        """
        reading = self.store[box.slices].read(order="C", batch=batch)
        return functools.partial(self._finish, reading, box.start_zyx)

    def _finish(self, reading: ts.Future, start_zyx: Zyx) -> np.ndarray:
        with damage.naming_file(self.source, _MEND):
            values = reading.result()
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            z, y, x = np.argwhere(~np.isfinite(values))[0] + start_zyx + self.region.start_zyx
            raise ValueError(
                f"{self.source} holds NaN or infinity at z, y, x = {z}, {y}, {x}; expected numbers "
                f"everywhere: store others there, or choose a region without it"
            )
        # Missing chunks read as one value; so does a whole volume that was deleted.
        place, first = self.store.kvstore, values.flat[0]
        alike = first == values.flat[-1] and (values == first).all()
        if alike and place is not None and not formats.is_volume(place):
            raise FileNotFoundError(f"{self.source} has vanished since it was opened; {_MEND}")
        return values

    def cut(self, region: str) -> Volume:
        """A region of this volume, parsed by `Box.parse`, in its voxels; empty is all.

        Raises:
          ValueError: if the region is malformed or leaves the volume.
        """
        box = Box.parse(region, self.shape_zyx)
        store = self.store[box.slices][ts.d[:].translate_to[0]]
        return dataclasses.replace(self, store=store, region=box.moved(self.region.start_zyx))

    def binned(self, bin_zyx: Zyx, method: Binning) -> Volume:
        """This volume with coarser voxels, computed when they are read.

        Args:
          bin_zyx: voxels per coarser voxel along each axis; at the far end it may be fewer.
          method: `mean` for intensities, `mode` (the most frequent) for labels.
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
    """The tensorstore context of this process with a cache of this size, in bytes.

    Open all volumes in the same context: they then share its cache and threads.
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

    Opens the first scale of a multi-scale image. Axes are transposed to z y x by their names;
    without names, zarr is z y x, and N5 is x y z as in other readers. Axes such as time and channel
    must have size 1, and are dropped. Voxels count from 0; `Volume.start_nm` is where the metadata
    place the first.

    Args:
      path: a folder, or a URL that tensorstore knows (`gs://`, `s3://`, `http://`, `file://`, also
        `...|zip:` and `...|zarr3:`).
      voxel_size_nm: z y x; needed only where the metadata have none.
      region: parsed by `Box.parse`, in voxels of the whole array; empty is all.
      context: from `shared_context`; without it, nothing is cached.

    Raises:
      FileNotFoundError: if there is nothing at the path.
      ValueError: if there is no volume, or an unfinished one; if its rank or dtype is not
        supported; if its voxel size is unknown or contradicts the given one; if the region is
        malformed.
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
    """The command that converts a file which cannot be opened in place."""
    return f"python -m maemem.data.convert {path} OUTPUT.zarr --voxel_size_nm=z,y,x"


def check_voxel_size(size: tuple[float, ...]) -> VoxelSize:
    """A voxel size in nm, as three floats.

    Raises:
      ValueError: if there are not three numbers, or one is not positive and finite.
    """
    if len(size) != 3 or not all(math.isfinite(s) and s > 0 for s in size):
        raise ValueError(
            f"voxel_size_nm is {tuple(size)}, expected three positive lengths in nm, in z, y, x, "
            f"like 30,6,6"
        )
    z, y, x = (float(s) for s in size)
    return z, y, x


def _locate(path: str, context: ts.Context | None) -> ts.KvStore:
    """The storage of a path, which is resolved, or of a URL."""
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
    """The storage of a URL, as a folder, which need not exist.

    `s3://` is Amazon's, unless the environment variable `AWS_ENDPOINT_URL` names another.

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
    # Amazon's own tools read these variables; tensorstore does not.
    if inner["driver"] == "s3" and (endpoint := os.environ.get("AWS_ENDPOINT_URL")):
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        inner |= {"endpoint": endpoint, "aws_region": region or "us-east-1"}
    return ts.KvStore.Spec(spec)


def _without_format(url: str) -> str | dict:
    """A URL without a last part such as `|zarr3:`, since the metadata tell the format."""
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
        # Else every crop would ask for the state of its files again.
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
    try:  # tensorstore ends the process silently if it cannot allocate a chunk.
        np.empty(store.chunk_layout.read_chunk_template.shape, store.dtype.numpy_dtype)
    except (MemoryError, ValueError) as error:
        raise ValueError(
            f"{path} says that it has chunks which are too large for this machine's memory: "
            f"{error}; correct its metadata, or store it in smaller chunks"
        ) from None
    return store


def _turn(store: ts.TensorStore, layout: formats.Layout, path: str) -> ts.TensorStore:
    """Drops axes other than z, y and x, of size 1, and transposes these to z y x, with origin 0."""
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
    # Dropped axes may begin elsewhere than at 0, hence the translation first.
    index = tuple(slice(None) if name in ("z", "y", "x") else 0 for name in axes)
    store = store[ts.d[:].translate_to[0]][ts.d[:].label[[""] * store.rank]]
    kept = sorted(order)
    # [stored axes] -> [z y x]
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
