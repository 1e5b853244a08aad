"""What an export writes, read back and compared with numpy, and how it goes on when killed."""

import itertools
import json
import logging
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
from hypothesis import strategies as st

from maemem.data.export import _read_source, export
from maemem.data.stores import ledger, omezarr
from maemem.data.stores.pyramid import chunk_shape, coarser, pyramid
from maemem.data.stores.volumes import open_volume
from maemem.geometry import Box
from tests import runs

SIZE = (30.0, 6.0, 5.0)
SHAPE = (11, 300, 261)
START = (3, 5, 2)
SIZES = st.tuples(*[st.floats(1, 100)] * 3)


def write(path: Path, array: np.ndarray, start=(0, 0, 0), size=SIZE) -> str:
    chunk = omezarr.chunk_shape(array.shape, size)
    layout = {"chunk_zyx": chunk, "shard_zyx": chunk}
    omezarr.open_array(path, array.shape, array.dtype.name, **layout).write(array).result()
    group = omezarr.group_metadata("a", size, start_zyx=start)
    (path / "zarr.json").write_text(json.dumps(group))
    return str(path)


def grey(shape=SHAPE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def ids(shape=SHAPE, dtype=np.uint32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4, shape).astype(dtype)


def scales(target) -> list[tuple[np.ndarray, list[int], list[float]]]:
    """Each scale as `[z y x]`, where it begins, and its voxel size."""
    found = []
    spec = {"driver": "neuroglancer_precomputed", "kvstore": f"file://{target}/"}
    for index in range(len(info(target)["scales"])):
        store = ts.open({**spec, "scale_index": index}).result()
        size = [unit.multiplier for unit in store.dimension_units[2::-1]]
        start = store.domain.inclusive_min[2::-1]
        found.append((store.read().result()[..., 0].T, list(start), size))
    return found


def info(target) -> dict:
    return json.loads((Path(target) / "info").read_text())


def sums(array, start, factors) -> np.ndarray:
    """Sums over windows that begin at multiples of the factors in the space of the volume."""
    array = array.astype(np.int64)
    for axis, (at, factor) in enumerate(zip(start, factors, strict=True)):
        places = np.arange(at, at + array.shape[axis]) // factor
        begins = np.flatnonzero(np.diff(places, prepend=places[0] - 1))
        array = np.add.reduceat(array, begins, axis)
    return array


def check_image(target, array, start=(0, 0, 0)) -> None:
    """Every scale holds the means of the one before it."""
    (first, begin, size), *rest = scales(target)
    np.testing.assert_array_equal(first, array)
    assert begin == list(start)
    assert first.dtype == array.dtype
    for values, at, voxel in rest:
        factors = coarser(tuple(size))
        assert voxel == [n * f for n, f in zip(size, factors, strict=True)]
        assert at == [n // f for n, f in zip(begin, factors, strict=True)]
        counts = sums(np.ones_like(first), begin, factors)
        np.testing.assert_array_equal(values, np.rint(sums(first, begin, factors) / counts))
        first, begin, size = values, at, voxel


def check_labels(target, array) -> None:
    """Every scale holds ids that no other id of the one before it is more frequent than."""
    (first, begin, size), *rest = scales(target)
    np.testing.assert_array_equal(first, array)
    for values, at, voxel in rest:
        factors = coarser(tuple(size))
        counts = np.stack([sums(first == n, begin, factors) for n in range(4)])
        chosen = np.take_along_axis(counts, values[None].astype(int), 0)[0]
        np.testing.assert_array_equal(chosen, counts.max(0))
        first, begin, size = values, at, voxel


def test_intensities_are_averaged_first_in_plane_then_everywhere(tmp_path):
    source = write(tmp_path / "a.zarr", grey(), START)
    export(source, str(tmp_path / "out"), memory_bytes=16 << 20)
    check_image(tmp_path / "out", grey(), START)
    sizes = [size for _, _, size in scales(tmp_path / "out")]
    assert sizes == [[30, 6, 5], [30, 12, 10], [30, 24, 20], [60, 48, 40]]
    described = info(tmp_path / "out")
    assert (described["type"], described["data_type"]) == ("image", "uint8")
    assert not (tmp_path / "out/.conversion").exists()
    volume = open_volume(str(tmp_path / "out"))
    assert volume.voxel_size_nm == SIZE
    assert volume.start_nm == (90, 30, 10)
    np.testing.assert_array_equal(volume.store.read().result(), grey())


@pytest.mark.parametrize(
    ("dtype", "stored"), [("uint32", "uint32"), ("int64", "uint64"), ("uint8", "uint32")]
)
def test_labels_are_the_most_frequent(tmp_path, dtype, stored):
    source = write(tmp_path / "a.zarr", ids(dtype=dtype))
    kind = "segmentation" if dtype == "uint8" else None
    export(source, str(tmp_path / "out"), kind=kind)
    check_labels(tmp_path / "out", ids())
    described = info(tmp_path / "out")
    assert (described["type"], described["data_type"]) == ("segmentation", stored)
    assert {s["encoding"] for s in described["scales"]} == {"compressed_segmentation"}


def test_what_nobody_labelled_is_background(tmp_path):
    labels = ids(dtype=np.int32) - 2
    export(write(tmp_path / "a.zarr", labels), str(tmp_path / "out"))
    np.testing.assert_array_equal(scales(tmp_path / "out")[0][0], np.maximum(labels, 0))


@hypothesis.settings(max_examples=8, deadline=None)
@hypothesis.given(
    shape=st.tuples(*[st.integers(1, 140)] * 3),
    start=st.tuples(*[st.integers(-9, 9)] * 3),
    size=SIZES,
    memory_bytes=st.integers(1, 1 << 25),
)
def test_any_shape_place_and_voxel_size(tmp_path_factory, shape, start, size, memory_bytes):
    folder = tmp_path_factory.mktemp("any")
    source = write(folder / "a.zarr", grey(shape), start, size)
    export(source, str(folder / "out"), memory_bytes=memory_bytes)
    check_image(folder / "out", grey(shape), start)


@hypothesis.settings(deadline=None)
@hypothesis.given(
    shape=st.tuples(*[st.integers(1, 1_000_000)] * 3),
    start=st.tuples(*[st.integers(-1000, 1000)] * 3),
    size=SIZES,
)
def test_pyramids_become_isotropic_and_end(shape, start, size):
    found = list(pyramid(size, Box((0, 0, 0), shape).moved(start)))
    assert found[0][:2] == (size, Box((0, 0, 0), shape).moved(start))
    for (fine, _, factors), (coarse, _, _) in itertools.pairwise(found):
        assert {2} <= set(factors) <= {1, 2}
        assert coarse == tuple(n * f for n, f in zip(fine, factors, strict=True))
        unlike = [max(sizes) / min(sizes) for sizes in (fine, coarse)]
        assert unlike[1] < unlike[0] or (unlike[0] <= 2 and set(factors) == {2})
    fits = [
        all(n <= c for n, c in zip(box.shape_zyx, chunk_shape(size), strict=True))
        for size, box, _ in found
    ]
    assert fits == [False] * (len(found) - 1) + [True]


def command(source, target, *options: str) -> list[str]:
    return [sys.executable, "-m", "maemem.data.export", str(source), str(target), *options]


def recorded(target: Path) -> list[Path]:
    return [p for p in target.glob(".conversion/*/*/*") if not p.name.endswith("__lock")]


def test_killed_export_is_no_volume_and_goes_on(tmp_path, monkeypatch, caplog):
    array = grey((64, 256, 256))
    source, target = write(tmp_path / "a.zarr", array), tmp_path / "out"
    process = subprocess.Popen(
        command(source, target, f"--memory_bytes={1 << 22}"), stderr=subprocess.PIPE
    )
    while process.poll() is None:
        if len(recorded(target)) >= 2:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL, said
    with pytest.raises(ValueError, match="unfinished conversion"):
        open_volume(str(target))
    with pytest.raises(ValueError, match=r"begun from another input or with other options: info"):
        export(source, str(target))
    metadata = tmp_path / "a.zarr/zarr.json"
    written = metadata.stat().st_mtime_ns
    write(tmp_path / "a.zarr", array)
    with pytest.raises(ValueError, match=r"another input .*: stamp was \w{16} and is \w{16}\."):
        export(source, str(target), memory_bytes=1 << 22)
    os.utime(metadata, ns=(written, written))
    finished = {path.name for path in recorded(target) if path.parent.name == "0"}
    again = set()

    def read(store, dtype, box, read=_read_source):
        again.add(ledger.block_name(box))
        return read(store, dtype, box)

    monkeypatch.setattr("maemem.data.export._read_source", read)
    with caplog.at_level(logging.INFO, logger="maemem.data"):
        export(source, str(target), memory_bytes=1 << 22)
    assert "going on: " in caplog.text
    assert finished
    assert again
    assert not finished & again
    check_image(target, array)


@pytest.mark.parametrize("address", ["{}", "file://{}"])
def test_second_export_to_the_same_folder_is_refused(tmp_path, address):
    """And the first goes on; it is halted in its midst meanwhile."""
    array = grey((64, 256, 256))
    source, target = write(tmp_path / "a.zarr", array), tmp_path / "out"
    first = subprocess.Popen(
        command(source, target, f"--memory_bytes={1 << 22}"), stderr=subprocess.PIPE
    )
    try:
        while len(recorded(target)) < 2:
            assert first.poll() is None
            time.sleep(0.002)
        first.send_signal(signal.SIGSTOP)
        done = recorded(target)
        with pytest.raises(ValueError, match=f"another process is writing {target} now"):
            export(source, address.format(target), memory_bytes=1 << 22)
        assert recorded(target) == done
        first.send_signal(signal.SIGCONT)
        _, log = first.communicate()
    finally:
        first.kill()
    assert first.returncode == 0, log
    check_image(target, array)
    with pytest.raises(FileExistsError, match="not overwritten"):
        export(source, address.format(target), memory_bytes=1 << 22)
    assert not (target / ".conversion").exists()


def test_unicode_and_spaces_in_paths(tmp_path):
    folder = tmp_path / "Gewebe für später — 脑 #1%"
    folder.mkdir()
    source = write(folder / "ä b.zarr", grey((4, 5, 6)))
    export(source, str(folder / "ö c"))
    np.testing.assert_array_equal(
        open_volume(str(folder / "ö c")).store.read().result(), grey((4, 5, 6))
    )


def test_memory_is_bounded(tmp_path):
    volume = np.broadcast_to(ids((1, 1024, 1024)), (24, 1024, 1024))  # 101 MB
    source = write(tmp_path / "a.zarr", volume)
    command = runs.program("peak_memory", "export", source, tmp_path / "out", 32_000_000)
    run = subprocess.run(command, cwd=runs.REPOSITORY, capture_output=True, text=True, check=True)
    assert int(run.stdout.split()[-1]) < 32_000_000 + 40_000_000  # allocator, threads


def test_targets_and_sources_that_are_refused(tmp_path):
    source = write(tmp_path / "a.zarr", grey((4, 5, 6)))
    export(source, str(tmp_path / "out"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter").touch()
    floats = write(tmp_path / "f.zarr", np.zeros((4, 5, 6), np.float32))
    for given, target, error, message in [
        (source, tmp_path / "out", FileExistsError, "not overwritten"),
        (source, source, FileExistsError, "not overwritten"),
        (source, tmp_path / "mine", ValueError, "holds letter"),
        (source, tmp_path / "no/where", FileNotFoundError, "make it first"),
        (source, "ftp://host/a", ValueError, "not a URL that tensorstore can open"),
        (tmp_path / "none", tmp_path / "b", FileNotFoundError, "no volume"),
        (floats, tmp_path / "b", ValueError, "float32, which is no segmentation"),
    ]:
        kind = "segmentation" if given == floats else None
        with pytest.raises(error, match=message):
            export(str(given), str(target), kind=kind)
    assert not (tmp_path / "b").exists()


def test_command_reports_a_mistake_in_one_line(tmp_path):
    run = subprocess.run(command(tmp_path / "no", "b"), capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.startswith("error: there is no volume at")
    assert run.stderr.count("\n") == 1
