"""What a conversion writes, what it takes for it, and what happens when it is interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import tensorstore as ts
import tifffile
import zarr
from hypothesis import strategies as st

from maemem.data.convert import convert, converted
from maemem.data.stores import omezarr
from maemem.data.stores.volumes import open_volume
from tests import runs

SIZE = (30.0, 6.0, 5.0)
SHAPE = (11, 70, 45)
DATA = Path(os.environ.get("MAEMEM_DATA", Path(__file__).parents[3] / "shared/data"))


def values(shape, dtype=np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 250, shape).astype(dtype)


def check(source, output, array, **options) -> None:
    options = {"voxel_size_nm": SIZE, **options}
    convert(str(source), str(output), **options)
    volume = open_volume(str(output))
    np.testing.assert_array_equal(volume.store.read().result(), array)
    assert volume.dtype == array.dtype
    assert volume.voxel_size_nm == SIZE
    assert not output.with_name(output.name + ".partial").exists()
    assert {path.name for path in output.iterdir()} == {"0", "zarr.json"}


def command(source, output, *options: str) -> list[str]:
    arguments = [str(source), str(output), f"--voxel_size_nm={','.join(map(str, SIZE))}"]
    return [sys.executable, "-m", "maemem.data.convert", *arguments, *options]


def test_store_gives_its_voxel_size(tmp_path):
    array = values(SHAPE)
    np.save(tmp_path / "a.npy", array)
    check(tmp_path / "a.npy", tmp_path / "a.zarr", array)
    check(tmp_path / "a.zarr", tmp_path / "b.zarr", array, voxel_size_nm=None)
    with pytest.raises(ValueError, match="leave voxel_size_nm out"):
        convert(str(tmp_path / "b.zarr"), str(tmp_path / "c.zarr"), voxel_size_nm=(1, 1, 1))


@hypothesis.settings(max_examples=15, deadline=None)
@hypothesis.given(
    shape=st.tuples(*[st.integers(1, 12)] * 3),
    chunk=st.tuples(*[st.integers(3, 9)] * 3),
    times=st.tuples(*[st.integers(1, 3)] * 3),
)
def test_any_shape_and_chunks(tmp_path_factory, shape, chunk, times):
    folder = tmp_path_factory.mktemp("any")
    array = values(shape)
    with tifffile.TiffWriter(folder / "a.tif") as tiff:
        for section in array:
            tiff.write(section, compression="zlib", contiguous=False)
    shard = tuple(c * n for c, n in zip(chunk, times, strict=True))
    check(folder / "a.tif", folder / "a.zarr", array, chunk_zyx=chunk, shard_zyx=shard)


@hypothesis.given(
    shape=st.tuples(*[st.integers(1, 100_000)] * 3),
    anisotropy=st.floats(0.5, 12),
    itemsize=st.sampled_from([1, 2, 4, 8]),
    shard_bytes=st.integers(1, 1 << 27),
    slab_bytes=st.integers(1, 1 << 30),
)
def test_shapes_keep_their_bounds(shape, anisotropy, itemsize, shard_bytes, slab_bytes):
    chunk = omezarr.chunk_shape(shape, (4 * anisotropy, 4, 4))
    assert all(1 <= c <= n for c, n in zip(chunk, shape, strict=True))
    shard = omezarr.shard_shape(shape, chunk, itemsize, shard_bytes, slab_bytes)
    assert all(s % c == 0 and s < n + c for s, c, n in zip(shard, chunk, shape, strict=True))
    assert np.prod(shard) * itemsize <= shard_bytes or shard == chunk
    assert shard[0] * shape[1] * shape[2] * itemsize <= slab_bytes or shard[0] == chunk[0]


def test_shapes_of_known_volumes():
    chunk = omezarr.chunk_shape((1000, 4096, 4096), (30, 8, 8))
    assert chunk == (8, 64, 64)
    shard = omezarr.shard_shape((1000, 4096, 4096), chunk, 1, 64 << 20, 1 << 29)
    assert shard == (32, 1024, 2048)
    assert omezarr.chunk_shape((520, 520, 520), (10, 10, 10)) == (32, 32, 32)


def test_metadata_as_zarr_python_reads_them(tmp_path):
    array = values(SHAPE)
    np.save(tmp_path / "a.npy", array)
    check(tmp_path / "a.npy", tmp_path / "a.zarr", array, chunk_zyx=(4, 16, 16))
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    ome = group.attrs["ome"]
    assert ome["version"] == "0.5"
    (image,) = ome["multiscales"]
    assert [axis["name"] for axis in image["axes"]] == ["z", "y", "x"]
    assert {(axis["type"], axis["unit"]) for axis in image["axes"]} == {("space", "nanometer")}
    (dataset,) = image["datasets"]
    assert dataset["coordinateTransformations"] == [{"type": "scale", "scale": list(SIZE)}]
    stored = group[dataset["path"]]
    assert isinstance(stored, zarr.Array)
    assert stored.metadata.dimension_names == ("z", "y", "x")
    assert stored.chunks == (4, 16, 16)
    assert stored.shards is not None
    np.testing.assert_array_equal(stored[:], array)


@pytest.mark.parametrize("kind", ["npy", "tif"])
def test_memory_is_bounded(tmp_path, kind):
    shape = (150, 2048, 2048)  # 629 MB
    if kind == "npy":
        mapped = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint8, shape)
        mapped[:, ::64] = 7
        del mapped
    else:
        section = np.broadcast_to(values((shape[1], 1)), shape[1:])
        with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
            for _ in range(shape[0]):
                tiff.write(section, compression="zstd", contiguous=False, rowsperstrip=512)
    command = runs.program(
        "peak_memory", "convert", tmp_path / f"a.{kind}", tmp_path / "a.zarr", 64_000_000
    )
    run = subprocess.run(command, cwd=runs.REPOSITORY, capture_output=True, text=True, check=True)
    grown = int(run.stdout.split()[-1])
    assert grown < 64_000_000 + 2 * 2048 * 2048 + 40_000_000  # allocator, threads, codecs


def finished(partial: Path) -> list[str]:
    """The names of the blocks that are recorded."""
    return sorted(path.name for path in partial.glob(".conversion/*/*"))


def killed_midway(source: Path, output: Path, *options: str) -> Path:
    """Kills a conversion once it has recorded a block; returns the partial folder."""
    partial = output.with_name(output.name + ".partial")
    process = subprocess.Popen(command(source, output, *options), stderr=subprocess.PIPE)
    while process.poll() is None:
        if len(finished(partial)) >= 2:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    _, log = process.communicate()
    assert process.returncode == -signal.SIGKILL, log
    return partial


def test_killed_conversion_goes_on(tmp_path):
    array = values((24, 256, 256))
    source, output = tmp_path / "a.npy", tmp_path / "a.zarr"
    np.save(source, array)
    options = ("--chunk_zyx=4,16,16", "--shard_zyx=4,32,32")  # 384 blocks
    partial = killed_midway(source, output, *options)
    assert not output.exists()
    for path in (partial, partial / "0"):
        with pytest.raises(ValueError, match="unfinished conversion"):
            open_volume(str(path), voxel_size_nm=SIZE)
    renamed = partial.rename(tmp_path / "b.zarr")
    for path in (renamed, renamed / "0"):
        with pytest.raises(ValueError, match="unfinished conversion"):
            open_volume(str(path), voxel_size_nm=SIZE)
    renamed.rename(partial)

    first = finished(partial)[0]
    with pytest.raises(ValueError, match=r"chunk_zyx was \[4, 16, 16\] and is .*delete it"):
        convert(str(source), str(output), voxel_size_nm=SIZE)
    region = tuple(slice(*map(int, part.split("-"))) for part in first.split("_"))
    array[region] = 0  # proves that a finished block is not read again
    stamp = source.stat()
    np.save(source, array)
    os.utime(source, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    run = subprocess.run(command(source, output, *options), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "24x256x256 uint8, voxels of 30, 6, 5 nm" in run.stderr
    np.testing.assert_array_equal(
        open_volume(str(output)).store.read().result(), values((24, 256, 256))
    )
    assert not list(output.rglob("*__lock*"))


def test_partial_of_another_input_is_refused(tmp_path):
    source, output = tmp_path / "a.npy", tmp_path / "a.zarr"
    np.save(source, values((24, 256, 256)))
    killed_midway(source, output, "--chunk_zyx=4,16,16", "--shard_zyx=4,32,32")
    np.save(source, values((24, 256, 255)))
    options = {"chunk_zyx": (4, 16, 16), "shard_zyx": (4, 32, 32), "voxel_size_nm": SIZE}
    with pytest.raises(ValueError, match=r"shape_zyx was \[24, 256, 256\] .*stamp was .* bytes"):
        convert(str(source), str(output), **options)


def test_a_folder_that_is_no_conversion_is_left_alone(tmp_path):
    np.save(tmp_path / "a.npy", values(SHAPE))
    (tmp_path / "a.zarr.partial").mkdir()
    (tmp_path / "a.zarr.partial/mine").touch()
    with pytest.raises(ValueError, match="holds mine, and no record"):
        convert(str(tmp_path / "a.npy"), str(tmp_path / "a.zarr"), voxel_size_nm=SIZE)


def test_second_conversion_to_the_same_output_is_refused(tmp_path):
    """And the first goes on; it is halted in its midst meanwhile."""
    array = values((24, 256, 256))
    source, output = tmp_path / "a.npy", tmp_path / "a.zarr"
    np.save(source, array)
    options = ("--chunk_zyx=4,16,16", "--shard_zyx=4,32,32")  # 384 blocks
    partial = output.with_name("a.zarr.partial")
    first = subprocess.Popen(command(source, output, *options), stderr=subprocess.PIPE)
    try:
        while len(finished(partial)) < 2:
            assert first.poll() is None
            time.sleep(0.002)
        first.send_signal(signal.SIGSTOP)
        done = finished(partial)
        second = subprocess.run(command(source, output, *options), capture_output=True, text=True)
        assert second.returncode == 1
        assert f"another process is writing {output}" in second.stderr
        assert finished(partial) == done
        first.send_signal(signal.SIGCONT)
        _, log = first.communicate()
    finally:
        first.kill()
    assert first.returncode == 0, log
    np.testing.assert_array_equal(open_volume(str(output)).store.read().result(), array)


def test_outputs_that_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", values(SHAPE))
    (tmp_path / "a.zarr").mkdir()
    for output, error, message in [
        (f"{tmp_path}/a.zarr", FileExistsError, "not overwritten"),
        (f"{tmp_path}/a.n5", ValueError, r"ends in \.zarr"),
        ("gs://bucket/a.zarr", ValueError, "expected a local folder"),
        (f"{tmp_path}/nowhere/a.zarr", FileNotFoundError, "make it first"),
    ]:
        with pytest.raises(error, match=message):
            convert(str(tmp_path / "a.npy"), output, voxel_size_nm=SIZE)


def test_converted_once(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", values(SHAPE))
    path = converted(str(tmp_path / "a.tif"), str(tmp_path / "run/cache"), voxel_size_nm=SIZE)
    assert Path(path).parent == tmp_path / "run/cache"
    assert Path(path).name.startswith("a-")
    np.testing.assert_array_equal(open_volume(path).store.read().result(), values(SHAPE))
    made = (Path(path) / "zarr.json").stat().st_mtime_ns
    again = converted(str(tmp_path / "a.tif"), str(tmp_path / "run/cache"), voxel_size_nm=SIZE)
    assert again == path
    assert (Path(path) / "zarr.json").stat().st_mtime_ns == made
    other = converted(str(tmp_path / "a.tif"), str(tmp_path / "run/cache"), voxel_size_nm=(9, 9, 9))
    os.utime(tmp_path / "a.tif", ns=(1, 1))
    newer = converted(str(tmp_path / "a.tif"), str(tmp_path / "run/cache"), voxel_size_nm=SIZE)
    assert len({path, other, newer}) == 3


def test_command_reports_a_mistake_in_one_line(tmp_path):
    run = subprocess.run(command("no.tif", tmp_path / "a.zarr"), capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.startswith("error: there is no volume at no.tif")
    assert run.stderr.count("\n") == 1


def test_writes_never_read_what_is_written(tmp_path):
    np.save(tmp_path / "a.npy", values((16, 96, 96)))
    prefix = "/tensorstore/kvstore/file/bytes_read"
    before = ts.experimental_collect_matching_metrics(prefix)
    options = {"chunk_zyx": (4, 16, 16), "shard_zyx": (8, 64, 64), "voxel_size_nm": SIZE}
    convert(str(tmp_path / "a.npy"), str(tmp_path / "a.zarr"), **options)
    after = ts.experimental_collect_matching_metrics(prefix)
    grown = after[0]["values"][0]["value"] - (before[0]["values"][0]["value"] if before else 0)
    assert grown < 10_000  # the metadata


def test_fib25(tmp_path):
    source = DATA / "fib25/train-input.tif"
    if not source.exists():
        pytest.skip(f"{source} is not there; set MAEMEM_DATA to the folder that holds fib25")
    check(source, tmp_path / "a.zarr", tifffile.imread(source), voxel_size_nm=SIZE)
    meta = json.loads((tmp_path / "a.zarr/0/zarr.json").read_text())
    assert meta["shape"] == [250, 250, 250]
