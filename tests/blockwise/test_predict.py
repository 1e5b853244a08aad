"""What a blockwise prediction holds, whatever it is cut into, killed at, or begun again from."""

import gc
import logging
import re
import subprocess
import tracemalloc

import hypothesis
import jax
import numpy as np
import pytest
import zarr
from hypothesis import strategies as st

from maemem.blockwise import predict as prediction
from maemem.blockwise.predict import predict_volume
from maemem.blockwise.store import open_prediction, read_prediction
from maemem.geometry import Box
from tests import runs
from tests.blockwise.predictions import REGION, SHAPE, WINDOW, expected, look_around, run
from tests.blockwise.volumes import SIZE, grey_values, stored_volume


@st.composite
def layouts(draw):
    shape = draw(st.tuples(*[st.integers(1, 20)] * 3))
    starts = [draw(st.integers(0, n - 1)) for n in shape]
    stops = [draw(st.integers(a + 1, n)) for a, n in zip(starts, shape, strict=True)]
    window = draw(st.tuples(*[st.integers(2, 12)] * 3))
    stride = tuple(draw(st.integers(-(-w // 3), w)) for w in window)
    chunk = draw(st.tuples(*[st.integers(3, 8)] * 3))
    cuts = draw(st.lists(st.tuples(*[st.integers(1, 4)] * 3), min_size=2, max_size=2))
    return shape, Box(tuple(starts), tuple(stops)), window, stride, chunk, cuts


@hypothesis.settings(max_examples=20, deadline=None)
@hypothesis.given(layout=layouts(), batches=st.tuples(st.integers(1, 5), st.integers(6, 9)))
def test_bytes_do_not_depend_on_blocks(tmp_path_factory, layout, batches):
    folder = tmp_path_factory.mktemp("blocks")
    shape, region, window, stride, chunk, cuts = layout
    array = grey_values(shape)
    volume = stored_volume(folder / "raw.zarr", array)
    known = np.random.default_rng(1).uniform(0.2, 1, (*window, 2))
    options = {
        "region": region,
        "window_zyx": window,
        "stride_zyx": stride,
        "known": known,
        "chunk_zyx": chunk,
    }
    one, other = (
        run(
            *(volume, folder / f"{batch}.zarr"),
            **options,
            batch_size=batch,
            block_zyx=tuple(c * n for c, n in zip(chunk, cut, strict=True)),
        )
        for cut, batch in zip(cuts, batches, strict=True)
    )
    assert one.tobytes() == other.tobytes()
    wanted = expected(array, region, window, stride, known)
    np.testing.assert_allclose(one, wanted, atol=2e-6)


def test_one_block_is_the_same(tmp_path):
    volume = stored_volume(tmp_path / "raw.zarr", grey_values(SHAPE))
    many = run(volume, tmp_path / "many.zarr")
    one = run(volume, tmp_path / "one.zarr", chunk_zyx=None, block_zyx=None)
    assert one.tobytes() == many.tobytes()
    files = [list((tmp_path / name / "0" / "c").rglob("*")) for name in ("one.zarr", "many.zarr")]
    assert [sum(path.is_file() for path in paths) for paths in files] == [1, 2 * 3 * 2]


def test_nothing_outside_of_the_volumes_region_is_read(tmp_path):
    array = grey_values(SHAPE)
    cut = stored_volume(tmp_path / "raw.zarr", array, region="1:7, 3:37, 0:30")
    array[0], array[:, :3], array[:, 37:], array[:, :, 30:] = 0, 0, 0, 0
    other = stored_volume(tmp_path / "other.zarr", array, region="1:7, 3:37, 0:30")
    seen = run(cut, tmp_path / "a.zarr")
    np.testing.assert_array_equal(seen, run(other, tmp_path / "b.zarr"))
    whole = stored_volume(tmp_path / "whole.zarr", array)
    assert np.abs(run(whole, tmp_path / "c.zarr") - seen).max() > 0.1


@pytest.mark.parametrize(
    ("dtype", "error"), [("uint8", 0.5 / 255), ("float16", 2.0**-11), ("float32", 0)]
)
def test_dtypes(tmp_path, dtype, error):
    volume = stored_volume(tmp_path / "raw.zarr", grey_values(SHAPE, np.uint16))
    exact = run(volume, tmp_path / "exact.zarr")
    read = run(volume, tmp_path / "read.zarr", dtype=dtype)
    assert open_prediction(tmp_path / "read.zarr").store.dtype.name == dtype
    assert read.dtype == np.float32
    assert np.abs(read - exact).max() <= error * (1 + 1e-4)


@pytest.mark.parametrize("value", [0, 1])
def test_certainty_stays_certain(tmp_path, value):
    volume = stored_volume(tmp_path / "raw.zarr", grey_values(SHAPE))
    read = run(
        *(volume, tmp_path / "a.zarr"),
        predict=lambda crops: np.full((*crops.shape, 2), value, np.float32),
        dtype="uint8",
    )
    assert (read == value).all()


def test_a_network_sees_one_shape(tmp_path):
    volume = stored_volume(tmp_path / "raw.zarr", grey_values(SHAPE))
    shapes = set()

    def predict(crops):
        shapes.add((crops.shape, crops.dtype.name))
        return look_around(crops)

    run(volume, tmp_path / "a.zarr", predict, batch_size=7)
    assert shapes == {((7, *WINDOW), "uint8")}


def test_the_next_batch_is_started_before_the_last_one_is_added_up(tmp_path, monkeypatch):
    volume = stored_volume(tmp_path / "raw.zarr", grey_values(SHAPE))
    events, add = [], prediction._add

    def added(*what):
        events.append("added")
        return add(*what)

    def started(crops):
        events.append("started")
        return look_around(crops)

    monkeypatch.setattr(prediction, "_add", added)
    run(volume, tmp_path / "a.zarr", started, block_zyx=(6, 40, 32), batch_size=2)
    assert events[:7] == ["started", *["started", "added", "added"] * 2]


def test_devices_that_share_a_batch_give_the_same_bytes(tmp_path):
    for devices in (1, 4):
        command = runs.program("predict_on_devices", tmp_path / f"{devices}.zarr", devices)
        subprocess.run(command, check=True, cwd=runs.REPOSITORY, env=runs.environment(devices))
    one, four = (read_prediction(tmp_path / f"{devices}.zarr") for devices in (1, 4))
    assert one.tobytes() == four.tobytes()


def test_resumes(tmp_path):
    volume = stored_volume(tmp_path / "raw.zarr", grey_values(SHAPE))
    calls = []

    def predict(crops):
        if len(calls) == fail_at:
            raise KeyboardInterrupt
        calls.append(crops.copy())
        return look_around(crops)

    fail_at = -1
    whole = run(volume, tmp_path / "whole.zarr", predict)
    every = calls.copy()
    output = tmp_path / "killed.zarr"
    calls.clear()
    fail_at = len(every) // 2
    with pytest.raises(KeyboardInterrupt):
        run(volume, output, predict)
    with pytest.raises(ValueError, match=r"killed.zarr is not finished"):
        read_prediction(output)
    with pytest.raises(ValueError, match="checkpoint was a and is b"):
        run(volume, output, predict, identity={"checkpoint": "b"})
    (record,) = tmp_path.glob("killed.zarr.partial/.conversion/*/")
    finished = len(list(record.iterdir()))
    assert 1 < finished < 12
    calls.clear()
    fail_at = -1
    assert run(volume, output, predict).tobytes() == whole.tobytes()
    # It goes on with the block at which it was killed, so that what it sees is the end of it all.
    assert 0 < len(calls) < len(every)
    for crops, again in zip(every[-len(calls) :], calls, strict=True):
        np.testing.assert_array_equal(crops, again)
    assert {path.name for path in output.iterdir()} == {"0", "zarr.json"}


def test_a_volume_that_was_replaced_is_another_one(tmp_path):
    volume = stored_volume(tmp_path / "raw.zarr", grey_values(SHAPE))

    def predict(crops):
        raise KeyboardInterrupt

    run(volume, tmp_path / "whole.zarr")
    with pytest.raises(KeyboardInterrupt):
        run(volume, tmp_path / "killed.zarr", predict)
    volume = stored_volume(tmp_path / "raw.zarr", np.zeros(SHAPE, np.uint8))
    message = r"source_stamp was \w{16} and is \w{16}"
    with pytest.raises(FileExistsError, match=message + r"\); delete it"):
        run(volume, tmp_path / "whole.zarr")
    with pytest.raises(ValueError, match=message + r"\. Repeat the old command, or delete it"):
        run(volume, tmp_path / "killed.zarr")


def test_a_volume_that_vanishes_ends_a_prediction_which_goes_on_when_it_is_back(tmp_path):
    volume = stored_volume(tmp_path / "raw.zarr", grey_values(SHAPE))
    whole = run(volume, tmp_path / "whole.zarr")
    calls = []

    def predict(crops):
        calls.append(None)
        if len(calls) == 30:
            (tmp_path / "raw.zarr").rename(tmp_path / "gone")
        return look_around(crops)

    with pytest.raises(FileNotFoundError, match=r"raw\.zarr/0 has vanished"):
        run(volume, tmp_path / "a.zarr", predict)
    assert not (tmp_path / "a.zarr").exists()
    assert list(tmp_path.glob("a.zarr.partial/.conversion/*/*"))
    (tmp_path / "gone").rename(tmp_path / "raw.zarr")
    assert run(volume, tmp_path / "a.zarr").tobytes() == whole.tobytes()


def test_keeps_what_is_there(tmp_path, caplog):
    volume = stored_volume(tmp_path / "raw.zarr", grey_values(SHAPE))
    output = tmp_path / "a.zarr"
    run(volume, output)

    def never(crops):
        raise AssertionError("predicted again")

    with caplog.at_level(logging.INFO, logger="maemem.blockwise"):
        run(volume, output, never, block_zyx=None, chunk_zyx=None, batch_size=1)
    assert "is kept" in caplog.text
    with pytest.raises(FileExistsError, match="checkpoint was a and is None; network was None"):
        run(volume, output, never, identity={"network": "b"})
    with pytest.raises(FileExistsError, match=r"stride_zyx was \[2, 8, 5\] and is \[2, 6, 5\]"):
        run(volume, output, never, stride_zyx=(2, 6, 5))
    with pytest.raises(FileExistsError, match="no finished prediction"):
        run(volume, tmp_path / "raw.zarr", never)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "expected one of uint8, float16, float32"),
        ({"region": Box((0, 0, 0), (8, 9, 9))}, "leaves the volume"),
        ({"region": Box((0, 0, 0), (0, 9, 9))}, "is empty"),
        ({"stride_zyx": (5, 8, 5)}, "choose it from 1 to the window"),
        ({"block_zyx": (4, 16, 15)}, "not a multiple of chunk 2x8x8"),
        ({"identity": {"dtype": "uint8"}}, "identity has dtype"),
        ({"predict": lambda crops: look_around(crops)[:1]}, r"expected \(3, 4, 12, 10, 2\)"),
        ({"predict": lambda crops: look_around(crops) * 2}, r"probabilities in \[0, 1\]"),
        ({"predict": lambda crops: look_around(crops) * np.nan}, "values from nan to nan"),
    ],
)
def test_refuses(tmp_path, options, message):
    volume = stored_volume(tmp_path / "raw.zarr", grey_values(SHAPE))
    with pytest.raises(ValueError, match=message):
        run(volume, tmp_path / "a.zarr", **options)
    assert not (tmp_path / "a.zarr").exists()


def test_metadata_as_zarr_python_reads_them(tmp_path):
    volume = stored_volume(tmp_path / "raw.zarr", grey_values(SHAPE))
    read = run(volume, tmp_path / "a.zarr")
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    (image,) = group.attrs["ome"]["multiscales"]
    assert [(axis["name"], axis["type"]) for axis in image["axes"]] == [
        ("c", "channel"),
        *((name, "space") for name in "zyx"),
    ]
    (dataset,) = image["datasets"]
    assert dataset["coordinateTransformations"] == [
        {"type": "scale", "scale": [1, *SIZE]},
        {"type": "translation", "translation": [0, 30, 18, 0]},
    ]
    stored = group["0"]
    assert isinstance(stored, zarr.Array)
    assert (stored.chunks, stored.shards) == ((1, 2, 8, 8), (2, 4, 16, 16))
    np.testing.assert_array_equal(stored[:], read)

    opened = open_prediction(tmp_path / "a.zarr")
    assert (opened.channels, opened.region) == (("near", "far"), REGION)
    assert opened.voxel_size_nm == SIZE
    assert opened.attributes["checkpoint"] == "a"
    assert opened.attributes["source"] == volume.source


def test_progress_in_the_log(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("maemem.logs._LOG_EVERY_SECONDS", -1)
    volume = stored_volume(tmp_path / "raw.zarr", grey_values(SHAPE))
    with caplog.at_level(logging.INFO, logger="maemem.blockwise"):
        run(volume, tmp_path / "a.zarr")
    lines = [line for line in caplog.messages if line.startswith("predicted")]
    assert len(lines) == 12
    assert re.fullmatch(r"predicted 1 of 12 blocks, .* blocks/s, 0:\d\d:\d\d left", lines[0])
    assert re.fullmatch(r"predicted 12 of 12 blocks, .* blocks/s, 0:00:00 left", lines[-1])
    # A block may be all of a volume, so its windows are told as well.
    within = [line for line in caplog.messages if line.startswith("of a block")]
    assert re.fullmatch(r"of a block 1 of 45 windows, .* windows/s, 0:\d\d:\d\d left", within[0])


def test_memory_does_not_grow_with_the_volume(tmp_path, monkeypatch):
    def live():
        return sum(array.nbytes for array in jax.live_arrays())

    def watched(function):
        def seeing(*args):
            result = function(*args)
            seen.append(live())
            return result

        return seeing

    seen, peaks = [], []
    for name in ("_add", "_finish"):
        monkeypatch.setattr(prediction, name, watched(getattr(prediction, name)))
    for side in (80, 160):
        volume = stored_volume(tmp_path / f"{side}.zarr", grey_values((side, side, side)))
        seen.clear()
        gc.collect()
        before = live()
        tracemalloc.start()
        predict_volume(
            lambda crops: np.full((*crops.shape, 3), 0.5, np.float32),
            *(volume, tmp_path / f"{side}-out.zarr"),
            region=volume.region,
            window_zyx=(16, 16, 16),
            stride_zyx=(16, 16, 16),
            batch_size=4,
            channels="zyx",
            identity={},
            memory_bytes=5_000_000,
        )
        peaks.append((tracemalloc.get_traced_memory()[1], max(seen) - before))
        tracemalloc.stop()
    (numpy, device), (numpy_of_more, device_of_more) = peaks
    assert numpy_of_more < 1.3 * numpy
    assert device_of_more < 1.3 * device
    assert numpy_of_more + device_of_more < 5_000_000
