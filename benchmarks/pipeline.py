"""How many crops a second the input pipeline gives, beside what the store itself can give.

    python -m benchmarks.pipeline --crop_zyx=6,96,96
    python -m benchmarks.pipeline --volume=/path/to/volume.zarr --cache_mb=1000
    python -m benchmarks.pipeline --sweep

Without --volume it writes sharded zarr 3 into a temporary folder: noisy EM-like tissue that hardly
compresses, once smaller and once larger than the cache pool. The files stay in the system's page
cache, as they do in a training on a volume that fits in memory. Each figure is the median and the
best of --repeats runs, with the CPU time of a crop, which a busy machine disturbs less.
"""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorstore as ts
import tifffile
from absl import app, flags

from maemem.data.samples import crops, pipeline
from maemem.data.stores.volumes import Volume, open_volume, shared_context
from maemem.geometry import Box, Zyx, format_zyx

_CROP = flags.DEFINE_list("crop_zyx", ["6", "96", "96"], "Shape of a crop, in voxels.")
_VOLUME = flags.DEFINE_string("volume", "", "Measure this volume instead of a made one.")
_TISSUE = flags.DEFINE_string(
    "tissue", "../shared/data/vnc/unlabeled.tif", "uint8 TIFF stack to fill made volumes with."
)
_BATCH = flags.DEFINE_integer("batch_size", 128, "Crops in a batch.")
_CACHE = flags.DEFINE_integer("cache_mb", 256, "Cache pool, in MB.")
_CHUNK = flags.DEFINE_list("chunk_zyx", ["8", "64", "64"], "Inner chunk of made volumes.")
_SHARD = flags.DEFINE_list("shard_zyx", ["128", "512", "512"], "Shard of made volumes.")
_CODEC = flags.DEFINE_string(
    "codec", "raw", "Of made volumes: raw (as conversion), crc32c, lz4, blosc_zstd or zstd."
)
_THREADS = flags.DEFINE_multi_integer("read_threads", [2], "Batches read at once; repeatable.")
_SECONDS = flags.DEFINE_float("seconds", 1.5, "Duration of one run.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "Runs of one measurement.")
_SWEEP = flags.DEFINE_bool("sweep", False, "Compare chunks and codecs instead.")

SHAPES = {"fits the cache": (96, 1024, 1024), "4 times the cache": (256, 2048, 2048)}
CHUNKS = [(8, 64, 64), (16, 64, 64), (16, 128, 128), (32, 32, 32), (32, 64, 64), (64, 64, 64)]
BLOSC = {"name": "blosc", "configuration": {"clevel": 5, "shuffle": "noshuffle", "typesize": 1}}
CODECS = {
    "raw": [],
    "crc32c": [{"name": "crc32c"}],
    "lz4": [BLOSC | {"configuration": BLOSC["configuration"] | {"cname": "lz4"}}],
    "blosc_zstd": [BLOSC | {"configuration": BLOSC["configuration"] | {"cname": "zstd"}}],
    "zstd": [{"name": "zstd", "configuration": {"level": 1}}],
}


def main(argv: list[str]) -> None:
    crop = _zyx(_CROP.value)
    print(f"memory copy: {copy_bandwidth() / 1e9:.1f} GB/s; load average {os.getloadavg()[0]:.1f}")
    if _VOLUME.value:
        volume = open_volume(_VOLUME.value, context=shared_context(_CACHE.value * 10**6))
        return report(volume, crop)
    with tempfile.TemporaryDirectory() as folder:
        if _SWEEP.value:
            return sweep(Path(folder), crop)
        for i, (name, shape) in enumerate(SHAPES.items()):
            path = Path(folder) / f"{i}.zarr"
            shard, tissue = _zyx(_SHARD.value), load_tissue()
            write_volume(path, shape, _zyx(_CHUNK.value), shard, _CODEC.value, tissue)
            cache_mb = _CACHE.value * (4 if i == 0 else 1)
            print(f"\n{name}: {format_zyx(shape)} uint8, cache {cache_mb} MB, {_CODEC.value}")
            report(open_bare(path, cache_mb), crop)


def report(volume: Volume, crop: Zyx) -> None:
    """Prints the crops a second of the bare store and of the pipeline, and the mixing."""
    show("tensorstore alone", lambda: raw_run(volume, crop, _BATCH.value))
    for threads in _THREADS.value:
        show(f"pipeline, {threads} threads", lambda n=threads: pipeline_run(volume, crop, n))
    overlap, neighbours = mixing(volume, crop, _BATCH.value)
    print(f"  pairs of one batch that overlap: {overlap:.3%}; of neighbours: {neighbours:.3%}")


def sweep(folder: Path, crop: Zyx) -> None:
    """Prints one line for each inner chunk and codec: size on disk, and crops a second."""
    shape, shard = SHAPES["fits the cache"], _zyx(_SHARD.value)
    voxels = int(np.prod(shape))
    for chunk, codec in itertools.product(CHUNKS, CODECS):
        path = folder / f"{format_zyx(chunk)}.{codec}.zarr"
        write_volume(path, shape, chunk, shard, codec, load_tissue())
        size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) / voxels
        print(f"{format_zyx(chunk)} {codec}: {size:.2f} bytes a voxel")
        for cache_mb in (1000, voxels // 4 // 10**6):
            volume = open_bare(path, cache_mb)
            show(f"cache {cache_mb} MB", lambda v=volume: raw_run(v, crop, _BATCH.value))


def show(name: str, run: Callable[[], int]) -> None:
    """Prints the rate of a run, which returns how many crops it read; the first is a warm-up."""
    run()
    rates, costs = [], []
    for _ in range(_REPEATS.value):
        wall, cpu = time.perf_counter(), time.process_time()
        count = run()
        rates.append(count / (time.perf_counter() - wall))
        costs.append((time.process_time() - cpu) / count)
    print(
        f"  {name:22} {statistics.median(rates):7.0f} crops/s, best {max(rates):7.0f}; "
        f"CPU {min(costs) * 1e6:4.0f} µs a crop",
        flush=True,
    )


def raw_run(volume: Volume, crop: Zyx, batch_size: int) -> int:
    """Reads uniform crops with tensorstore and nothing else for a while; returns their number."""
    generator = np.random.default_rng()
    positions = np.subtract(volume.shape_zyx, crop) + 1
    stop = time.perf_counter() + _SECONDS.value
    for count in itertools.count(batch_size, batch_size):
        with ts.Batch() as batch:
            reads = [
                volume.store[z : z + crop[0], y : y + crop[1], x : x + crop[2]].read(batch=batch)
                for z, y, x in generator.integers(positions, size=(batch_size, 3)).tolist()
            ]
        for read in reads:
            read.result()
        if time.perf_counter() > stop:
            return count
    raise AssertionError("unreachable")


def pipeline_run(volume: Volume, crop: Zyx, threads: int) -> int:
    """Reads batches from the pipeline for a while, from its start; returns the crops' number."""
    stop = time.perf_counter() + _SECONDS.value
    batches = pipeline.batches(
        pipeline.reader([volume], [1.0], crop, seed=time.time_ns()),
        batch_size=_BATCH.value,
        first_step=0,
        last_step=10**9,
        read_threads=threads,
    )
    for count in itertools.count(_BATCH.value, _BATCH.value):
        next(batches)
        if time.perf_counter() > stop:
            return count
    raise AssertionError("unreachable")


def mixing(volume: Volume, crop: Zyx, batch_size: int) -> tuple[float, float]:
    """The shares of overlapping pairs: of all within a batch, and of consecutive samples.

    Independent samples have the same of both, up to chance.
    """
    _, starts = crops.draw_crops(0, range(200 * batch_size), [volume.shape_zyx], [1.0], crop)
    starts = starts.reshape(200, batch_size, 3)
    a, b = np.triu_indices(batch_size, k=1)
    within = np.all(np.abs(starts[:, a] - starts[:, b]) < crop, axis=-1)
    following = np.all(np.abs(np.diff(starts, axis=1)) < crop, axis=-1)
    return float(within.mean()), float(following.mean())


def write_volume(
    path: Path, shape: Zyx, chunk: Zyx, shard: Zyx, codec: str, tissue: np.ndarray
) -> None:
    """Writes tissue as sharded zarr 3; repeats are shifted, or zstd would find them."""
    sharding = {"chunk_shape": chunk, "codecs": [{"name": "bytes"}, *CODECS[codec]]}
    metadata = {
        "shape": shape,
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shard}},
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
    }
    kvstore = {"driver": "file", "path": str(path)}
    spec = {"driver": "zarr3", "kvstore": kvstore, "metadata": metadata, "create": True}
    store = ts.open(spec).result()
    repeats_yx = [-(-n // m) for n, m in zip(shape[1:], tissue.shape[1:], strict=True)]
    for z in range(0, shape[0], shard[0]):
        sections = [
            np.tile(np.roll(tissue[i % len(tissue)], 211 * (i // len(tissue))), repeats_yx)
            for i in range(z, min(z + shard[0], shape[0]))
        ]
        store[z : z + len(sections)].write(np.stack(sections)[:, : shape[1], : shape[2]]).result()


def load_tissue() -> np.ndarray:
    """The stack that --tissue names, or blurred noise with a grain where there is none."""
    return tifffile.imread(_TISSUE.value) if Path(_TISSUE.value).exists() else made_tissue()


def made_tissue() -> np.ndarray:
    """Blurred noise with a grain."""
    generator = np.random.default_rng(0)

    def section() -> np.ndarray:
        blurred = generator.normal(128, 40, (64, 64)).repeat(16, axis=0).repeat(16, axis=1)
        return (blurred + generator.normal(0, 12, blurred.shape)).clip(0, 255).astype(np.uint8)

    # One by one: the memory that floats of all take would count as that of what is measured.
    return np.stack([section() for _ in range(40)])


def open_bare(path: Path, cache_mb: int) -> Volume:
    """A made volume, in a cache of its own."""
    context = ts.Context({"cache_pool": {"total_bytes_limit": cache_mb * 10**6}})
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
    store = ts.open(
        spec, recheck_cached_data="open", recheck_cached_metadata="open", context=context
    ).result()
    z, y, x = store.shape
    return Volume(store, (40.0, 4.0, 4.0), str(path), Box((0, 0, 0), (z, y, x)))


def copy_bandwidth() -> float:
    """Bytes a second that one thread copies in memory: the best of five copies of 256 MB."""
    source, target = np.ones(2**28, np.uint8), np.zeros(2**28, np.uint8)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        np.copyto(target, source)
        seconds.append(time.perf_counter() - start)
    return source.nbytes / min(seconds)


def _zyx(numbers: list[str]) -> Zyx:
    z, y, x = (int(n) for n in numbers)
    return z, y, x


if __name__ == "__main__":
    app.run(main)
