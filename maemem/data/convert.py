"""Converts a volume of any size to OME-Zarr 0.5, the fastest format for random crops.

    python -m maemem.data.convert INPUT OUTPUT.zarr --voxel_size_nm=30,6,6

INPUT: a multi-page TIFF, a folder of TIFF or PNG sections, an HDF5 dataset (file.h5:/dataset), an
npy file, or a volume that needs no conversion: zarr, N5, Neuroglancer precomputed.

After a kill there is no OUTPUT.zarr; the same command goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import app, flags

from maemem.data.stores import ledger, omezarr, volumes
from maemem.data.stores.formats import VoxelSize
from maemem.data.stores.readers import MEND, Source, identify, open_source
from maemem.durable import write_durably
from maemem.geometry import Zyx, blocks, format_zyx
from maemem.logs import log_to_terminal, showing_progress

# Not __name__: as a command, this module is called __main__.
log = logging.getLogger("maemem.data.convert")

_MAX_SHARD_BYTES = 64 << 20
_MAX_BLOCKS = 10_000_000  # 640 TB of the largest shards; they are listed, and each is a file


def convert(
    source: str,
    output: str,
    *,
    voxel_size_nm: VoxelSize | None = None,
    memory_bytes: int = 1 << 30,
    chunk_zyx: Zyx | None = None,
    shard_zyx: Zyx | None = None,
    progress: bool = True,
    wait: bool = False,
) -> None:
    """Writes a volume as a sharded zarr 3 array `output/0` in an OME-Zarr 0.5 group.

    Shards are written to `output` + `.partial` and recorded; at the end the folder is renamed. A
    killed conversion goes on from its record.

    Args:
      source: as `readers.open_source` takes it.
      output: a local folder ending in `.zarr`, that does not exist.
      voxel_size_nm: z y x; needed where the source has none.
      memory_bytes: about how much memory to use, whatever the size of the volume; a section of a
        TIFF or PNG that is larger comes on top.
      chunk_zyx: the unit of reading, in voxels; None: see `omezarr.chunk_shape`.
      shard_zyx: the shape of a file, a multiple of chunk_zyx; None: see `omezarr.shard_shape`.
      progress: whether to show a progress bar on a terminal, and lines in the log elsewhere.
      wait: whether to wait for another process that writes the same output, or to refuse.

    Raises:
      FileNotFoundError: if there is no source.
      FileExistsError: if there is an output.
      ValueError: if the source is no volume, its voxel size is unknown, or an option is wrong; if
        an unfinished conversion there has other options, or another process writes the output.
    """
    target = _check_output(output)
    # A block is held three times: as read, as copied by tensorstore, and encoded.
    shard_bytes = min(_MAX_SHARD_BYTES, memory_bytes // 8)
    cache_bytes = memory_bytes - 3 * shard_bytes
    with open_source(source, voxel_size_nm=voxel_size_nm, cache_bytes=cache_bytes) as opened:
        plan = _plan(opened, voxel_size_nm, shard_bytes, cache_bytes, chunk_zyx, shard_zyx)
        partial = target.with_name(target.name + volumes.UNFINISHED_SUFFIX)
        with ledger.held(partial, target, wait=wait):
            finished = ledger.claim(partial, plan.to_json())
            _write_blocks(opened, plan, partial, finished, progress)
            _finish(partial, target, plan)


def converted(source: str, cache_folder: str, *, voxel_size_nm: VoxelSize | None) -> str:
    """The path of the converted copy of a foreign volume, which is made on first use.

    Args:
      source: a volume for which `is_foreign` is true.
      cache_folder: where copies are kept; made if need be.
      voxel_size_nm: z y x.

    Raises:
      FileNotFoundError, ValueError: as `convert` does.
    """
    output = copy_path(source, cache_folder, voxel_size_nm=voxel_size_nm)
    if output.exists():
        ledger.tidy(output)
        return str(output)
    log.info("converting %s to %s, once; later runs open the copy", source, output)
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        convert(source, str(output), voxel_size_nm=voxel_size_nm, wait=True)
    except (FileExistsError, FileNotFoundError):
        if not output.exists():  # Else another process has finished it meanwhile.
            raise
    return str(output)


def copy_path(source: str, cache_folder: str, *, voxel_size_nm: VoxelSize | None) -> Path:
    """Where `converted` keeps the copy of a volume, made or not.

    The name is a hash of the path, size, modification time and voxel size of the source, so a
    changed source is converted again.

    Raises:
      FileNotFoundError: if there is no source.
    """
    path, stamp = identify(source)
    voxel_size_nm = _floats(voxel_size_nm)
    key = hashlib.sha256(json.dumps([path, stamp, voxel_size_nm]).encode()).hexdigest()[:12]
    return Path(cache_folder).resolve() / f"{Path(path.split(':')[0]).stem}-{key}.zarr"


def _floats(voxel_size_nm: VoxelSize | None) -> VoxelSize | None:
    """A voxel size as floats, so that 4 and 4.0 are the same."""
    if voxel_size_nm is None:
        return None
    z, y, x = voxel_size_nm
    return float(z), float(y), float(x)


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Everything that decides the output; a conversion goes on only with the same plan."""

    source: str
    stamp: str
    shape_zyx: Zyx
    dtype: str
    voxel_size_nm: VoxelSize
    chunk_zyx: Zyx
    shard_zyx: Zyx

    def to_json(self) -> dict:
        """The plan with values as JSON has them."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


def _check_output(output: str) -> Path:
    if "://" in output:
        raise ValueError(
            f"OUTPUT is the URL {output}, expected a local folder: convert to one, and copy it"
        )
    target = Path(output).expanduser().resolve()
    if target.suffix != ".zarr":
        raise ValueError(f"OUTPUT is {output}, expected a name that ends in .zarr")
    ledger.refuse_existing(target)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {target.parent} for OUTPUT; make it first")
    return target


def _plan(
    source: Source,
    voxel_size_nm: VoxelSize | None,
    shard_bytes: int,
    cache_bytes: int,
    chunk_zyx: Zyx | None,
    shard_zyx: Zyx | None,
) -> _Plan:
    size = source.voxel_size_nm or voxel_size_nm
    if size is None:
        raise ValueError(
            f"{source.path} does not say its voxel size; give it in nm as z, y, x: "
            f"--voxel_size_nm=30,6,6"
        )
    size = volumes.check_voxel_size(size)
    chunk = chunk_zyx or omezarr.chunk_shape(source.shape_zyx, size)
    # Decoded sections are cached for the next block, so a slab of them should fit the cache.
    slab_bytes = cache_bytes if source.whole_sections else sys.maxsize
    shard = shard_zyx or omezarr.shard_shape(
        source.shape_zyx, chunk, source.dtype.itemsize, shard_bytes, slab_bytes
    )
    if min(chunk) < 1 or any(s < 1 or s % c for s, c in zip(shard, chunk, strict=True)):
        raise ValueError(
            f"shard {format_zyx(shard)} is not a multiple of chunk {format_zyx(chunk)} along each "
            f"axis; give both, or leave both out"
        )
    count = math.prod(math.ceil(n / s) for n, s in zip(source.shape_zyx, shard, strict=True))
    if count > _MAX_BLOCKS:
        raise ValueError(
            f"{source.path} says that it is {format_zyx(source.shape_zyx)} voxels of "
            f"{source.dtype.name}, which would be {count} files of {format_zyx(shard)}; at most "
            f"{_MAX_BLOCKS} are made. If the size is right, give a larger shard_zyx (and "
            f"memory_bytes); else {MEND}"
        )
    slab = shard[0] * source.shape_zyx[1] * source.shape_zyx[2] * source.dtype.itemsize
    one_block = all(s >= n for s, n in zip(shard[1:], source.shape_zyx[1:], strict=True))
    if slab > slab_bytes and not one_block:
        log.warning(
            "Sections are decoded several times over, since %d of them (%.0f MB) do not fit the "
            "%.0f MB kept for them; raise memory_bytes by the difference.",
            shard[0],
            slab / 1e6,
            slab_bytes / 1e6,
        )
    shape, dtype = source.shape_zyx, source.dtype.name
    return _Plan(source.path, source.stamp, shape, dtype, size, chunk, shard)


def _write_blocks(
    source: Source, plan: _Plan, partial: Path, finished: ledger.Finished, progress: bool
) -> None:
    store = omezarr.open_array(
        partial, plan.shape_zyx, plan.dtype, chunk_zyx=plan.chunk_zyx, shard_zyx=plan.shard_zyx
    )
    every = list(blocks(plan.shape_zyx, plan.shard_zyx))
    missing = finished.missing(every)
    with showing_progress(
        log, "converted", total=len(every), missing=len(missing), shown=progress
    ) as advance:
        for block in missing:
            store[block.slices].write(source.read(block)).result()
            finished.add(block)
            advance()


def _finish(partial: Path, target: Path, plan: _Plan) -> None:
    """Writes the metadata, renames the folder, and deletes the record."""
    group = json.dumps(omezarr.group_metadata(target.stem, plan.voxel_size_nm), indent=1)
    write_durably(partial / "zarr.json", group)
    ledger.publish(partial, target)
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    voxel = ", ".join(f"{s:g}" for s in plan.voxel_size_nm)
    log.info(
        "wrote %s: %s %s, voxels of %s nm (z, y, x), %.1f MB on disk",
        *(target, format_zyx(plan.shape_zyx), plan.dtype, voxel, size / 1e6),
    )


def define_flags() -> None:
    """Defines the flags of the command; importing this module defines none."""
    flags.DEFINE_list("voxel_size_nm", None, "z,y,x in nm; needed unless INPUT says it.")
    flags.DEFINE_integer("memory_bytes", 1 << 30, "About how much memory to use.", lower_bound=1)
    flags.DEFINE_list("chunk_zyx", None, "What is read at once, z,y,x in voxels.")
    flags.DEFINE_list("shard_zyx", None, "What is one file, z,y,x in voxels; whole chunks.")
    flags.DEFINE_bool("progress", True, "Show the progress.")


def main(argv: list[str]) -> None:
    """The command: two paths, and the flags."""
    if len(argv) != 3:
        raise app.UsageError(f"expected INPUT and OUTPUT.zarr, got {len(argv) - 1} paths")
    log_to_terminal()
    given = flags.FLAGS
    try:
        convert(
            argv[1],
            argv[2],
            voxel_size_nm=triple("voxel_size_nm", given.voxel_size_nm, float),
            memory_bytes=given.memory_bytes,
            chunk_zyx=triple("chunk_zyx", given.chunk_zyx, int),
            shard_zyx=triple("shard_zyx", given.shard_zyx, int),
            progress=given.progress,
        )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def triple(name: str, words: list[str] | None, kind: Callable[[str], Any]) -> Any:
    """The value of a flag z,y,x as three numbers; None where it is not given.

    Raises:
      ValueError: if there are not three numbers.
    """
    if words is None:
        return None
    try:
        z, y, x = (kind(word) for word in words)
    except ValueError:
        raise ValueError(f"--{name} is {','.join(words)!r}, expected three numbers z,y,x") from None
    return z, y, x


if __name__ == "__main__":
    define_flags()
    app.run(main)
