"""Metadata of stored volumes: which array to open, its axes, its voxel size.

Nothing here opens an array. Everything is read through `ts.KvStore`, so folders and buckets work
alike.
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

# Every volume has one of these.
METADATA_KEYS = ("zarr.json", ".zarray", ".zgroup", ".zattrs", "attributes.json", "info")
# The record of an unfinished conversion, inside the volume that it writes.
CONVERSION_RECORD = ".conversion/identity.json"

TIMEOUT_SECONDS = 60  # For a request of metadata or of the record.
# When a volume was last found at a URL, so that not every crop of one value asks again.
_last_seen: dict[str, float] = {}
_UNITS_NM = {
    **dict.fromkeys(("m", "meter", "metre"), 1e9),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e6),
    **dict.fromkeys(("um", "µm", "μm", "micrometer", "micrometre", "micron"), 1e3),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1.0),
    **dict.fromkeys(("å", "ångström", "angstrom", "ångstrom"), 0.1),
    **dict.fromkeys(("pm", "picometer", "picometre"), 1e-3),
}
# OME-Zarr 0.1 and 0.2 did not name axes; all of their images had these.
_OME_DEFAULT_AXES = ("t", "c", "z", "y", "x")
_N5_DEFAULT_AXES = ("x", "y", "z", "t", "c")


@dataclasses.dataclass(frozen=True)
class Layout:
    """How to open an array, and its dimensions."""

    driver: str  # tensorstore's name of the format
    kvstore: ts.KvStore  # where the array is
    axes: tuple[str, ...] | None  # names of the stored dimensions; None: they have none
    voxel_size_nm: VoxelSize | None  # z y x; None: the metadata have none
    start_nm: VoxelSize = (0.0, 0.0, 0.0)  # z y x, position of voxel 0


@dataclasses.dataclass(frozen=True)
class _Node:
    """An array, or a group of arrays, with its attributes."""

    driver: str
    is_array: bool
    attributes: Mapping[str, Any]
    axes: tuple[str, ...] | None


def at(kvstore: ts.KvStore, path: str) -> ts.KvStore:
    """The same storage at another folder, whose path ends in a slash unless it is the root."""
    moved = kvstore.copy()
    moved.path = path.rstrip("/") + "/" if path else ""
    return moved


def folder(path: Path) -> ts.KvStore:
    """The storage of a local folder."""
    return ts.KvStore.open({"driver": "file", "path": f"{path}/"}).result()


def address(kvstore: ts.KvStore) -> str:
    """The URL of a place, for messages and for comparing places."""
    try:
        return kvstore.url
    except NotImplementedError:  # An S3 other than Amazon's.
        spec = kvstore.spec().to_json()
        inner = spec.get("base", spec)
        where = f"{inner['endpoint'].rstrip('/')}/{inner['bucket']}/{inner.get('path', '')}"
        return f"{where}|{spec['driver']}:{kvstore.path}" if "base" in spec else where


class PlaceError(ValueError):
    """A fault of a storage or its metadata; the message names the place."""


@contextlib.contextmanager
def reaching(kvstore: ts.KvStore) -> Iterator[None]:
    """Turns errors of a storage that cannot be reached into one line.

    Raises:
      ValueError: if it does not answer in time, or with an error.
    """
    try:
        yield
    except TimeoutError:
        raise PlaceError(
            f"no answer from {address(kvstore)} in {TIMEOUT_SECONDS} s; check the address and the "
            f"network"
        ) from None
    except ValueError as error:
        reason = str(error).split(" [")[0]  # Without the full request and answer.
        raise PlaceError(
            f"{address(kvstore)} cannot be reached: {reason}; check the address and the "
            f"credentials, which are those that the tools of AWS and gcloud take"
        ) from None


def read_layout(kvstore: ts.KvStore) -> Layout | None:
    """Reads the layout of the array at a place, or of the first array of a multi-scale image.

    Knows zarr 2 and 3, OME-Zarr 0.1 to 0.5, N5 (with attributes of Neuroglancer, n5-viewer and
    COSEM) and Neuroglancer's precomputed, by the metadata files that exist.

    Args:
      kvstore: the folder; its path ends in a slash.

    Returns:
      The layout, or None where there are no metadata of a known format.

    Raises:
      ValueError: if the metadata are malformed, not finite, or name no array.
    """
    try:
        layout = _read_layout(kvstore)
    except PlaceError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise PlaceError(f"the metadata at {address(kvstore)} are malformed: {error!r}") from error
    # Python's JSON accepts NaN, Infinity and 1e999.
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
    """Whether there are metadata of a known format at a place; answers are kept for a second."""
    now = time.monotonic()
    if now - _last_seen.get(kvstore.url, -math.inf) < 1:
        return True
    found = any(_read_json(kvstore, key) is not None for key in METADATA_KEYS)
    if found:
        _last_seen[kvstore.url] = now
    return found


def is_unfinished(kvstore: ts.KvStore) -> bool:
    """Whether the volume at a place, or in the folder around it, is an unfinished conversion."""
    for folder in (kvstore, *(parent for parent, _ in ancestors(kvstore, 1))):
        # Conversions and exports write the metadata of the whole last.
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
    """The folders around a place, nearest first, each with the path of the place in it."""
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
    """Axis names in lower case, from names or objects with names; None if one is missing."""
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
    """The OME (or COSEM) multi-scale images of a group; version 0.5 nests them in `ome`."""
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
    """The voxel size, None if unknown, and the position of the first voxel; both in nm, z y x."""
    transforms = (
        *dataset.get("coordinateTransformations", ()),
        *image.get("coordinateTransformations", ()),
    )
    if not any(transform.get("type") == "scale" for transform in transforms):
        return None, (0.0, 0.0, 0.0)
    size, start = [1.0] * len(axes), [0.0] * len(axes)
    for transform in transforms:  # Each applies to the result of those before it.
        if transform.get("type") == "scale":
            size = [a * b for a, b in zip(size, transform["scale"], strict=True)]
            start = [a * b for a, b in zip(start, transform["scale"], strict=True)]
        elif transform.get("type") == "translation":
            start = [a + b for a, b in zip(start, transform["translation"], strict=True)]
    units = [a.get("unit") if isinstance(a, dict) else None for a in image.get("axes", ())]
    return _by_name(axes, size, units), _by_name(axes, start, units) or (0.0, 0.0, 0.0)


def _n5_layout(array: _Node, place: ts.KvStore) -> Layout:
    """The layout of an N5 array, whose first axis is x. It inherits its groups' attributes.

    `resolution` (in nm unless `units` differs) and `pixelResolution` describe the full scale, as in
    Neuroglancer and n5-viewer. COSEM's `transform` describes the array itself, with axes in numpy's
    order, which is not the order of `dimensions`.
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
    """Downsampling factors of an array against the full scale, along each dimension."""
    factors: list[Any] = (
        attributes.get("downsamplingFactors") or attributes.get("scales") or [1] * rank
    )
    if not isinstance(factors[0], list):
        return factors
    name = place.path.rstrip("/").rsplit("/", 1)[-1]
    level = int(name[1:]) if name[:1] == "s" and name[1:].isdigit() else 0
    return factors[level] if level < len(factors) else [1] * rank


def _by_name(axes: Sequence[str], sizes: Sequence[float], units: Sequence[Any]) -> VoxelSize | None:
    """Lengths with units, listed by axis, as nm in z y x; None if one is missing or unknown."""
    found = {}
    for name, size, unit in zip(axes, sizes, units, strict=False):
        unit = str(unit or "").lower()
        factor = _UNITS_NM.get(unit) or _UNITS_NM.get(unit.removesuffix("s"))
        if factor:
            found[name] = float(size) * factor
    if not {"z", "y", "x"} <= set(found):
        return None
    return found["z"], found["y"], found["x"]
