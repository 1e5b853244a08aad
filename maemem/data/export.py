"""Exports a volume of any size to Neuroglancer's precomputed format, with a downsampled pyramid.

    python -m maemem.data.export SOURCE TARGET

SOURCE: a zarr (also labels of maemem), N5 or precomputed volume; a folder or a URL. TARGET: a
folder, or a URL such as `gs://bucket/mine` or `s3://bucket/mine`.

After a kill, TARGET is no volume yet; the same command goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import numpy as np
import tensorstore as ts
from absl import app, flags

from maemem.data.convert import triple
from maemem.data.stores import formats, ledger
from maemem.data.stores.formats import VoxelSize
from maemem.data.stores.pyramid import chunk_shape, coarser, pyramid
from maemem.data.stores.volumes import Binning, Volume, open_url, open_volume
from maemem.geometry import Box, Zyx, blocks, format_zyx
from maemem.logs import log_to_terminal, showing_progress

# Not __name__: as a command, this module is called __main__.
log = logging.getLogger("maemem.data.export")

# Neuroglancer's two types of volumes: intensities, and ids of objects.
Kind: TypeAlias = Literal["image", "segmentation"]

_DOWNSAMPLING: dict[str, Binning] = {"image": "mean", "segmentation": "mode"}
_MAX_SHARD_BYTES = 64 << 20


def export(
    source: str,
    target: str,
    *,
    kind: Kind | None = None,
    voxel_size_nm: VoxelSize | None = None,
    memory_bytes: int = 1 << 30,
    progress: bool = True,
) -> None:
    """Writes a volume and its coarser scales, shard by shard; each stored shard is recorded.

    Each scale is computed from the one before: the mean of intensities, the most frequent label.
    Labels are stored as compressed segmentation, uint32 or uint64; negative ones (unlabelled) as 0.
    The position in a larger volume, if the metadata have one, is kept. The file `info`, which makes
    it a volume, is written last.

    Args:
      source: as `open_volume` takes it.
      target: a folder or a URL without a volume.
      kind: None: segmentation for integers of 32 bits or more, else image.
      voxel_size_nm: z y x; needed where the source has none.
      memory_bytes: about how much memory to use, whatever the size of the volume.
      progress: whether to show a progress bar on a terminal, and lines in the log elsewhere.

    Raises:
      FileNotFoundError: if there is no source.
      FileExistsError: if there is a volume at the target.
      ValueError: if the source cannot be opened or is not of this kind, or the target cannot be
        written; if an unfinished export at the target has another source or other options, or, in a
        folder, another process writes it.
    """
    volume = open_volume(source, voxel_size_nm=voxel_size_nm)
    info = describe(volume, kind or _guess(volume.dtype), memory_bytes)
    place, folder = _place(target)
    with _held(place, folder, target):
        identity = {"source": volume.source, "stamp": volume.stamp, "info": info}
        finished = ledger.claim_place(place, identity)
        log.info(
            "exporting %s as %s of %s, in %d scales",
            *(volume.source, info["type"], info["data_type"], len(info["scales"])),
        )
        _write(list(_steps(volume, place, info, finished, memory_bytes)), progress)
        _finish(place, info)


def describe(volume: Volume, kind: Kind, memory_bytes: int) -> dict[str, Any]:
    """The content of the file `info`, which decides the output.

    Raises:
      ValueError: if the format does not have this dtype.
    """
    dtype = _stored_dtype(volume, kind)
    # A block of a coarser scale is computed from eight times as much.
    shard_bytes = min(_MAX_SHARD_BYTES, memory_bytes // 16)
    spec: dict[str, Any] = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "memory"},
        "multiscale_metadata": {"type": kind, "data_type": dtype.name, "num_channels": 1},
        "schema": {
            "chunk_layout": {"write_chunk": {"elements": max(1, shard_bytes // dtype.itemsize)}}
        },
    }
    encoding: dict[str, Any] = {"encoding": "raw"}
    if kind == "segmentation":
        block = {"compressed_segmentation_block_size": [8, 8, 8]}
        encoding = {"encoding": "compressed_segmentation", **block}
    start = [
        round(nm / size) for nm, size in zip(volume.start_nm, volume.voxel_size_nm, strict=True)
    ]
    whole = volume.region.moved((start[0], start[1], start[2]))
    # tensorstore decides the sharding, so it writes a draft in memory.
    context = ts.Context()
    for size, box, _ in pyramid(volume.voxel_size_nm, whole):
        scale = {
            "size": box.shape_zyx[::-1],
            "resolution": size[::-1],
            "voxel_offset": box.start_zyx[::-1],
            "chunk_size": chunk_shape(size)[::-1],
            **encoding,
        }
        ts.open({**spec, "scale_metadata": scale}, create=True, context=context).result()
    draft = ts.KvStore.open({"driver": "memory"}, context=context).result()
    info = json.loads(draft.read("info").result().value)
    for scale in info["scales"]:
        # Intensities are mostly noise: compression takes long and saves little.
        if kind == "image" and "sharding" in scale:
            scale["sharding"]["data_encoding"] = "raw"
    return info


def _guess(dtype: np.dtype) -> Kind:
    return "segmentation" if dtype.kind in "iu" and dtype.itemsize >= 4 else "image"


def _stored_dtype(volume: Volume, kind: Kind) -> np.dtype:
    dtype = volume.dtype
    if kind == "segmentation" and dtype.kind in "iu":
        return np.dtype("uint32" if dtype.itemsize <= 4 else "uint64")
    if kind == "segmentation" or dtype == np.int64:
        raise ValueError(
            f"{volume.source} holds {dtype}, which is no {kind} in this format; expected integers "
            f"of a segmentation, and of an image no int64"
        )
    return dtype


class _Step(NamedTuple):
    """One scale to write."""

    scale: ts.TensorStore  # [z y x], its origin at 0
    blocks: list[Box]  # the shards
    read: Callable[[Box], np.ndarray]  # the values of a block, [z y x]
    finished: ledger.Finished


def _steps(
    volume: Volume,
    place: ts.KvStore,
    info: dict[str, Any],
    finished: ledger.Finished,
    memory_bytes: int,
) -> Iterator[_Step]:
    """The scales, finest first: each is computed by reading the one before."""
    # Caches the index of shards; voxels are read once.
    context = ts.Context({"cache_pool": {"total_bytes_limit": memory_bytes // 16}})
    read = functools.partial(_read_source, volume.store, np.dtype(info["data_type"]))
    for index, scale in enumerate(info["scales"]):
        store = _open_scale(place, info, scale, context)
        shard = cast(Zyx, store.chunk_layout.write_chunk.shape)
        every = list(blocks(cast(Zyx, store.shape), shard))
        origin = ts.d[:].translate_to[0]
        yield _Step(store[origin], every, read, finished.step(str(index)))
        factors = coarser(scale["resolution"][::-1])
        coarse = ts.downsample(store, factors, _DOWNSAMPLING[info["type"]])[origin]
        read = functools.partial(_read_box, coarse)


def _open_scale(
    place: ts.KvStore, info: dict[str, Any], scale: dict[str, Any], context: ts.Context
) -> ts.TensorStore:
    """A scale as `[z y x]` with its origin, opened before `info` exists."""
    (chunk,) = scale["chunk_sizes"]
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": place.spec().to_json(),
        "multiscale_metadata": {key: info[key] for key in ("type", "data_type", "num_channels")},
        "scale_metadata": {
            "chunk_size": chunk,
            **{key: value for key, value in scale.items() if key != "chunk_sizes"},
        },
    }
    store = ts.open(spec, open=True, assume_metadata=True, context=context).result()
    return store[ts.d["channel"][0]][ts.d["z", "y", "x"].transpose[:]]  # [x y z c] -> [z y x]


def _read_source(store: ts.TensorStore, dtype: np.dtype, box: Box) -> np.ndarray:
    values = _read_box(store, box)
    if values.dtype != dtype and values.dtype.kind == "i":
        values = np.maximum(values, 0)
    return values.astype(dtype, copy=False)


def _read_box(store: ts.TensorStore, box: Box) -> np.ndarray:
    return store[box.slices].read().result()


def _write(steps: list[_Step], progress: bool) -> None:
    every = [(step, block) for step in steps for block in step.blocks]
    missing = [(step, block) for step in steps for block in step.finished.missing(step.blocks)]
    with showing_progress(
        log, "exported", total=len(every), missing=len(missing), shown=progress
    ) as advance:
        for step, block in missing:
            step.scale[block.slices].write(step.read(block)).result()
            step.finished.add(block)
            advance()


def _place(target: str) -> tuple[ts.KvStore, Path | None]:
    """The storage to write to; also as a folder, if it is local.

    Raises:
      FileNotFoundError: if the target's parent folder does not exist.
      ValueError: if it cannot be written to.
    """
    local = "://" not in target
    place = formats.folder(Path(target).expanduser().resolve()) if local else open_url(target)
    if place.spec().to_json()["driver"] != "file":
        return place, None
    folder = Path(place.path)
    if not folder.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {folder.parent} for TARGET; make it first")
    return place, folder


@contextlib.contextmanager
def _held(place: ts.KvStore, folder: Path | None, target: str) -> Iterator[None]:
    """Locks a target that is no volume yet; a bucket cannot be locked.

    Two exports to one place in a bucket write the same bytes, because the record refuses any other
    identity; they only do the work twice.
    """
    _refuse_volume(place, target)
    if folder is None:
        yield
        return
    with ledger.held(folder, folder, wait=False):
        _refuse_volume(place, target)  # Another process may have just finished it.
        yield


def _refuse_volume(place: ts.KvStore, target: str) -> None:
    if formats.read_layout(place):
        raise FileExistsError(
            f"there is a volume at {target}, which is not overwritten; delete it, or choose "
            f"another TARGET"
        )


def _finish(place: ts.KvStore, info: dict[str, Any]) -> None:
    """Writes `info`, which makes the target a volume, and deletes the record."""
    place.write("info", json.dumps(info).encode()).result()
    ledger.drop(place)
    shapes = [format_zyx(scale["size"][::-1]) for scale in info["scales"]]
    log.info("wrote %s: %s", formats.address(place), ", ".join(shapes))


def define_flags() -> None:
    """Defines the flags of the command; importing this module defines none."""
    flags.DEFINE_enum("type", None, ["image", "segmentation"], "If its dtype does not tell.")
    flags.DEFINE_list("voxel_size_nm", None, "z,y,x in nm; needed unless SOURCE says it.")
    flags.DEFINE_integer("memory_bytes", 1 << 30, "About how much memory to use.", lower_bound=1)
    flags.DEFINE_bool("progress", True, "Show the progress.")


def main(argv: list[str]) -> None:
    """The command: two paths, and the flags."""
    if len(argv) != 3:
        raise app.UsageError(f"expected SOURCE and TARGET, got {len(argv) - 1} paths")
    log_to_terminal()
    given = flags.FLAGS
    try:
        export(
            argv[1],
            argv[2],
            kind=given.type,
            voxel_size_nm=triple("voxel_size_nm", given.voxel_size_nm, float),
            memory_bytes=given.memory_bytes,
            progress=given.progress,
        )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    define_flags()
    app.run(main)
