"""Opens the volumes of a config: stores, files to convert, or synthetic tissue."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import pathlib
import tempfile
import urllib.parse

import numpy as np
import tensorstore as ts

from maemem.data.convert import convert, converted
from maemem.data.sets.synthetic import make_tissue
from maemem.data.stores.formats import VoxelSize
from maemem.data.stores.readers import identify, is_foreign
from maemem.data.stores.volumes import Volume, open_volume

log = logging.getLogger(__name__)

_SYNTHETIC = "synthetic:"
_FIELDS = {"shape_zyx", "voxel_size_nm", "seed", "artefacts"}
_SHOWN = ("image", "neurites", "mitochondria")


def open_dataset(
    path: str,
    *,
    root: str = "",
    cache: pathlib.Path,
    voxel_size_nm: VoxelSize | None = None,
    region: str = "",
    context: ts.Context | None = None,
) -> Volume:
    """Opens a volume; files that tensorstore cannot read are converted once, into `cache`.

    Args:
      path: a folder or URL of a zarr 2, zarr 3, N5 or precomputed volume; a TIFF, npy, folder of
        sections or `file.h5:/dataset`; or `synthetic:?shape_zyx=64,256,256&voxel_size_nm=30,6,6
        &seed=0&artefacts=1`, tissue from `synthetic.make_tissue`, or with `&show=neurites` or
        `&show=mitochondria` its labels.
      root: the folder that a relative path starts from.
      cache: the folder of converted and synthetic volumes.
      voxel_size_nm: z, y, x; needed where the volume has none.
      region: such as `"0:120, :, :"`; empty is all.
      context: tensorstore's, with the cache pool.

    Raises:
      FileNotFoundError: if there is no such volume.
      ValueError: as `open_volume` and `convert`.
    """
    if not path:
        raise ValueError("a volume of the config has no path; name a store, a file or synthetic:")
    if path.startswith(_SYNTHETIC):
        store = _synthetic(path, cache)
        volume = open_volume(store, voxel_size_nm=voxel_size_nm, region=region, context=context)
        # The recipe identifies it, not its place or time: a workdir may be moved.
        return dataclasses.replace(volume, source=path, stamp="")
    path = located(path, root)
    if not is_foreign(path):
        return open_volume(path, voxel_size_nm=voxel_size_nm, region=region, context=context)
    copy = converted(path, str(cache), voxel_size_nm=voxel_size_nm)
    volume = open_volume(copy, voxel_size_nm=voxel_size_nm, region=region, context=context)
    # The original identifies the data, not the copy.
    source, stamp = identify(path)
    return dataclasses.replace(volume, source=source, stamp=stamp)


def located(path: str, root: str) -> str:
    """The full path of a volume of a config; URLs stay, relative paths start from `root`.

    Data sets that `maemem.data.fetch` did not make are often TIFF stacks: `NAME.tif` is taken where
    `NAME.zarr` is missing.
    """
    if "://" in path:
        return path
    there = os.path.join(os.path.expanduser(root), os.path.expanduser(path))
    stack = there.removesuffix(".zarr") + ".tif"
    named = there.endswith(".zarr") and not os.path.exists(there)
    return stack if named and os.path.isfile(stack) else there


def _synthetic(path: str, cache: pathlib.Path) -> str:
    """The store of synthetic tissue or its labels, made on first use."""
    fields = dict(urllib.parse.parse_qsl(path.removeprefix(_SYNTHETIC).removeprefix("?")))
    show = fields.pop("show", "image")
    if "shape_zyx" not in fields or fields.keys() - _FIELDS or show not in _SHOWN:
        raise ValueError(
            f"synthetic volume {path!r} has fields {sorted(fields)} and shows {show!r}; expected "
            f"shape_zyx and, if wanted, {sorted(_FIELDS - {'shape_zyx'})} and show (one of "
            f"{', '.join(_SHOWN)}), as in "
            f"'synthetic:?shape_zyx=64,256,256&voxel_size_nm=30,6,6&seed=0'"
        )
    try:
        z, y, x = (int(n) for n in fields["shape_zyx"].split(","))
        dz, dy, dx = (float(n) for n in fields.get("voxel_size_nm", "30,6,6").split(","))
        seed, artefacts = int(fields.get("seed", 0)), bool(int(fields.get("artefacts", 0)))
    except ValueError as error:
        raise ValueError(f"synthetic volume {path!r} cannot be read: {error}") from None
    key = json.dumps([(z, y, x), (dz, dy, dx), seed, artefacts])
    stem = cache / f"synthetic-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    target = stem.with_name(f"{stem.name}-{show}.zarr")
    if target.exists():
        return str(target)
    arrays = {name: stem.with_name(f"{stem.name}-{name}.npy") for name in _SHOWN}
    if not arrays[show].exists():
        log.info("making synthetic tissue %s, once; later runs open %s", path, target)
        tissue = make_tissue((z, y, x), (dz, dy, dx), seed=seed, artefacts=artefacts)
        cache.mkdir(parents=True, exist_ok=True)
        for name, array in arrays.items():
            _save_whole(array, getattr(tissue, name))
    try:
        convert(
            str(arrays[show]), str(target), voxel_size_nm=(dz, dy, dx), progress=False, wait=True
        )
    except (FileExistsError, FileNotFoundError):  # Another process of this run was faster.
        if not target.exists():
            raise
    arrays[show].unlink(missing_ok=True)
    return str(target)


def _save_whole(path: pathlib.Path, array: np.ndarray) -> None:
    """Writes an npy file atomically."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        np.save(file, array)
    unfinished = pathlib.Path(file.name)
    # A killed conversion compares times, and may go on from the same file made again.
    os.utime(unfinished, (0, 0))
    unfinished.replace(path)
