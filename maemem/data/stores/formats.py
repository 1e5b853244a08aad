"""What the metadata of a stored volume say: which array to open, its axes, its voxel size.

Nothing here opens an array. All of it is read through `ts.KvStore`, so that a folder and a bucket
are the same thing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorstore as ts

VoxelSize = tuple[float, float, float]

# Wherever there is a volume, there is one of these.
METADATA_KEYS = ("zarr.json", ".zarray", ".zgroup", ".zattrs", "attributes.json", "info")
# A conversion keeps its record here, inside the volume that it writes, until the volume is whole.
CONVERSION_RECORD = ".conversion/identity.json"

TIMEOUT_SECONDS = 60  # Of a request for metadata or for the record.
# When there was a volume at a URL: not asked again for every crop of one value.
_last_seen: dict[str, float] = {}
_UNITS_NM = {
    **dict.fromkeys(("m", "meter", "metre"), 1e9),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e6),
    **dict.fromkeys(("um", "µm", "μm", "micrometer", "micrometre", "micron"), 1e3),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1.0),
    **dict.fromkeys(("å", "ångström", "angstrom", "ångstrom"), 0.1),
    **dict.fromkeys(("pm", "picometer", "picometre"), 1e-3),
}
# OME-Zarr 0.1 and 0.2 had no axes: all of their images were of this kind.
_OME_DEFAULT_AXES = ("t", "c", "z", "y", "x")
_N5_DEFAULT_AXES = ("x", "y", "z", "t", "c")


@dataclasses.dataclass(frozen=True)
class Layout:
    """How to open one array and what its dimensions are."""

    driver: str  # tensorstore's name of the format
    kvstore: ts.KvStore  # where the array is
    axes: tuple[str, ...] | None  # the name of each dimension as stored; None: they have no names
    voxel_size_nm: VoxelSize | None  # z y x; None: the metadata have none
    start_nm: VoxelSize = (0.0, 0.0, 0.0)  # z y x, of voxel 0 in the space that the metadata mean


@dataclasses.dataclass(frozen=True)
class _Node:
    """An array, or a group of arrays, with its attributes."""

    driver: str
    is_array: bool
    attributes: Mapping[str, Any]
    axes: tuple[str, ...] | None


def at(kvstore: ts.KvStore, path: str) -> ts.KvStore:
    """The same storage, at another path: a folder, so it ends in a slash unless it is the root."""
    moved = kvstore.copy()
    moved.path = path.rstrip("/") + "/" if path else ""
    return moved


def folder(path: Path) -> ts.KvStore:
    """The storage of a folder of this machine."""
    return ts.KvStore.open({"driver": "file", "path": f"{path}/"}).result()


def address(kvstore: ts.KvStore) -> str:
    """The URL of a place, for messages, and to tell it from others."""
    try:
        return kvstore.url
    except NotImplementedError:  # S3 elsewhere than at Amazon.
        spec = kvstore.spec().to_json()
        inner = spec.get("base", spec)
        where = f"{inner['endpoint'].rstrip('/')}/{inner['bucket']}/{inner.get('path', '')}"
        return f"{where}|{spec['driver']}:{kvstore.path}" if "base" in spec else where


class PlaceError(ValueError):
    """What is wrong with a storage or its metadata; its message names the place."""


@contextlib.contextmanager
def reaching(kvstore: ts.KvStore) -> Iterator[None]:
    """Says in one line what keeps a storage from being reached.

    Raises:
      ValueError: if it gives no answer in time, or none but an error.
    """
    try:
        yield
    except TimeoutError:
        raise PlaceError(
            f"no answer from {address(kvstore)} in {TIMEOUT_SECONDS} s; check the address and the "
            f"network"
        ) from None
    except ValueError as error:
        reason = str(error).split(" [")[0]  # Without the request and the answer, both in full.
        raise PlaceError(
            f"{address(kvstore)} cannot be reached: {reason}; check the address and the "
            f"credentials, which are those that the tools of AWS and gcloud take"
        ) from None


def read_layout(kvstore: ts.KvStore) -> Layout | None:
    """Finds the array at a place, or the first array of the multi-scale image there.

    Zarr 2 and 3, OME-Zarr 0.1 to 0.5, N5 (with the attributes of Neuroglancer, n5-viewer and
    COSEM), and Neuroglancer's precomputed are told apart by the metadata files that are present.

    Args:
      kvstore: the folder; its path ends in a slash.

    Returns:
      The layout, or None where there are no metadata of a known format.

    Raises:
      ValueError: if the metadata are malformed, not finite, or lead to no array.
    """
    try:
        layout = _read_layout(kvstore)
    except PlaceError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise PlaceError(f"the metadata at {address(kvstore)} are malformed: {error!r}") from error
    # JSON as Python reads it has NaN and Infinity, and 1e999, too.
    if layout and not all(map(math.isfinite, (*(layout.voxel_size_nm or ()), *layout.start_nm))):
        raise PlaceError(
            f"the metadata at {address(kvstore)} say that voxels are {layout.voxel_size_nm} and "
            f"begin at {layout.start_nm} (z, y, x, in nm), expected finite numbers; correct them"
        )
    return layout


def _read_layout(kvstore: ts.KvStore) -> Layout | None:
    info = _read_json(kvstore, "info")
    if info and "scales" in info:
        scale = info["scales"][0]
        x, y, z = scale["resolution"]
        x0, y0, z0 = scale.get("voxel_offset", (0, 0, 0))
        axes = ("x", "y", "z", "channel")
        size, start = (float(z), float(y), float(x)), (float(z0 * z), float(y0 * y), float(x0 * x))
        return Layout("neuroglancer_precomputed", kvstore, axes, size, start)
    node = _read_node(kvstore)
    if node is None:
        return None
    place = kvstore
    if not node.is_array:
        place = at(kvstore, kvstore.path + _first_dataset(node, address(kvstore)))
        node = _read_node(place)
        if node is None or not node.is_array:
            raise PlaceError(
                f"the group {address(kvstore)} lists {address(place)} as its first scale, and no "
                f"array is there; the volume is incomplete, or name one of its arrays"
            )
    return _n5_layout(node, place) if node.driver == "n5" else _zarr_layout(node, place)


def is_volume(kvstore: ts.KvStore) -> bool:
    """Whether there are metadata of a known format at a place, or were a second ago."""
    now = time.monotonic()
    if now - _last_seen.get(kvstore.url, -math.inf) < 1:
        return True
    found = any(_read_json(kvstore, key) is not None for key in METADATA_KEYS)
    if found:
        _last_seen[kvstore.url] = now
    return found


def is_unfinished(kvstore: ts.KvStore) -> bool:
    """Whether a conversion is still to finish the volume at this place, or the one around it."""
    for folder in (kvstore, *(parent for parent, _ in ancestors(kvstore, 1))):
        # The metadata of the whole are the last thing that a conversion or an export writes.
        if _read_json(folder, CONVERSION_RECORD) and not (
            _read_json(folder, "zarr.json") or _read_json(folder, "info")
        ):
            return True
    return False


def _read_json(kvstore: ts.KvStore, key: str) -> dict[str, Any] | None:
    with reaching(kvstore):
        found = kvstore.read(key).result(timeout=TIMEOUT_SECONDS)
    if found.state != "value":
        return None
    try:
        content = json.loads(found.value)
    except (ValueError, RecursionError) as error:
        raise PlaceError(f"{address(kvstore)}{key} is not valid JSON: {error}") from None
    return content if isinstance(content, dict) else None


def ancestors(kvstore: ts.KvStore, depth: int) -> Iterator[tuple[ts.KvStore, str]]:
    """The folders around a place, nearest first, each with the place's path inside it."""
    root = "/" if kvstore.path.startswith("/") else ""
    parts = [part for part in kvstore.path.split("/") if part]
    for n in range(1, min(depth, len(parts)) + 1):
        yield at(kvstore, root + "/".join(parts[:-n])), "/".join(parts[-n:])


def _read_node(kvstore: ts.KvStore) -> _Node | None:
    if meta := _read_json(kvstore, "zarr.json"):
        is_array = meta.get("node_type") == "array"
        axes = _axis_names(meta.get("dimension_names"))
        return _Node("zarr3", is_array, meta.get("attributes", {}), axes)
    is_array = _read_json(kvstore, ".zarray") is not None
    attributes = _read_json(kvstore, ".zattrs")
    if is_array or attributes is not None or _read_json(kvstore, ".zgroup") is not None:
        attributes = attributes or {}
        axes = _axis_names(attributes.get("_ARRAY_DIMENSIONS"))
        return _Node("zarr", is_array, attributes, axes)
    if attributes := _read_json(kvstore, "attributes.json"):
        axes = _axis_names(attributes.get("axes"))
        return _Node("n5", "dimensions" in attributes, attributes, axes)
    return None


def _axis_names(axes: Sequence[Any] | None) -> tuple[str, ...] | None:
    """Names in lower case, from a list of names or of objects with a name; None if any lacks it."""
    listed = [axis.get("name") if isinstance(axis, dict) else axis for axis in axes or ()]
    names = tuple(name.lower() for name in listed if isinstance(name, str) and name)
    return names if names and len(names) == len(listed) else None


def _first_dataset(group: _Node, url: str) -> str:
    if multiscales := _multiscales(group.attributes):
        return str(multiscales[0]["datasets"][0]["path"])
    if group.driver == "n5" and {"downsamplingFactors", "scales"} & set(group.attributes):
        return "s0"
    raise PlaceError(
        f"{url} is a group without multi-scale metadata, so the array is not known; name it: "
        f"{url}NAME"
    )


def _multiscales(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The OME (or COSEM) multi-scale images of a group: 0.5 keeps them one level deeper."""
    return attributes.get("ome", attributes).get("multiscales") or []


def _zarr_layout(array: _Node, place: ts.KvStore) -> Layout:
    for group, inside in ancestors(place, 2):
        node = _read_node(group)
        for image in _multiscales(node.attributes) if node else ():
            for dataset in image["datasets"]:
                if dataset["path"].strip("/") == inside:
                    axes = _axis_names(image.get("axes")) or _OME_DEFAULT_AXES
                    return Layout(array.driver, place, axes, *_ome_place(image, dataset, axes))
    own = array.attributes
    size = None
    if array.axes and "resolution" in own and "units" in own:
        size = _by_name(array.axes, own["resolution"], own["units"])
    return Layout(array.driver, place, array.axes, size)


def _ome_place(
    image: Mapping[str, Any], dataset: Mapping[str, Any], axes: Sequence[str]
) -> tuple[VoxelSize | None, VoxelSize]:
    """The voxel size, None if it is not said, and where the first voxel is, both in nm, z y x."""
    transforms = (
        *dataset.get("coordinateTransformations", ()),
        *image.get("coordinateTransformations", ()),
    )
    if not any(transform.get("type") == "scale" for transform in transforms):
        return None, (0.0, 0.0, 0.0)
    size, start = [1.0] * len(axes), [0.0] * len(axes)
    for transform in transforms:  # Each in the space that those before it lead to.
        if transform.get("type") == "scale":
            size = [a * b for a, b in zip(size, transform["scale"], strict=True)]
            start = [a * b for a, b in zip(start, transform["scale"], strict=True)]
        elif transform.get("type") == "translation":
            start = [a + b for a, b in zip(start, transform["translation"], strict=True)]
    units = [a.get("unit") if isinstance(a, dict) else None for a in image.get("axes", ())]
    return _by_name(axes, size, units), _by_name(axes, start, units) or (0.0, 0.0, 0.0)


def _n5_layout(array: _Node, place: ts.KvStore) -> Layout:
    """N5 stores x first. Attributes of a group hold for the arrays inside it, unless they differ.

    `resolution` (in nm unless `units` says otherwise) and `pixelResolution` are those of the full
    scale, as Neuroglancer and n5-viewer read them; COSEM's `transform` is that of the array, its
    own axes beside it in numpy's order, which is not the order of `dimensions`.
    """
    attributes = dict(array.attributes)
    for group, _ in ancestors(place, 2):
        node = _read_node(group)
        attributes = {**(node.attributes if node and node.driver == "n5" else {}), **attributes}
    rank = len(attributes["dimensions"])
    axes = _axis_names(attributes.get("axes")) or _N5_DEFAULT_AXES[:rank]
    transform = array.attributes.get("transform")
    if isinstance(transform, dict) and {"axes", "scale", "units"} <= set(transform):
        names = _axis_names(transform["axes"]) or ()
        return Layout("n5", place, axes, _by_name(names, transform["scale"], transform["units"]))
    resolution, units = attributes.get("resolution"), attributes.get("units")
    pixel = attributes.get("pixelResolution")
    if isinstance(pixel, dict):
        resolution, units = pixel.get("dimensions"), [pixel.get("unit")] * rank
    if not resolution:
        return Layout("n5", place, axes, None)
    factors = _n5_factors(attributes, place, rank)
    size = [a * b for a, b in zip(resolution, factors, strict=True)]
    return Layout("n5", place, axes, _by_name(axes, size, units or ["nm"] * rank))


def _n5_factors(attributes: Mapping[str, Any], place: ts.KvStore, rank: int) -> Sequence[float]:
    """How much coarser than full scale this array is, along each dimension."""
    factors: list[Any] = (
        attributes.get("downsamplingFactors") or attributes.get("scales") or [1] * rank
    )
    if not isinstance(factors[0], list):
        return factors
    name = place.path.rstrip("/").rsplit("/", 1)[-1]
    level = int(name[1:]) if name[:1] == "s" and name[1:].isdigit() else 0
    return factors[level] if level < len(factors) else [1] * rank


def _by_name(axes: Sequence[str], sizes: Sequence[float], units: Sequence[Any]) -> VoxelSize | None:
    """Sizes and units listed by axis, as nm in z, y, x; None where one is missing or not known."""
    found = {}
    for name, size, unit in zip(axes, sizes, units, strict=False):
        unit = str(unit or "").lower()
        factor = _UNITS_NM.get(unit) or _UNITS_NM.get(unit.removesuffix("s"))
        if factor:
            found[name] = float(size) * factor
    if not {"z", "y", "x"} <= set(found):
        return None
    return found["z"], found["y"], found["x"]
