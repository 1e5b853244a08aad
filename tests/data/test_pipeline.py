"""Batches: the right voxels, whatever the processes, the threads and the first step."""

import itertools

import numpy as np
import pytest
import tensorstore as ts
from hypothesis import given, settings
from hypothesis import strategies as st

from maemem.data.samples.crops import draw_crops
from maemem.data.samples.pipeline import batches, reader
from maemem.data.stores.volumes import Volume
from maemem.data.truth import LabelVolume
from maemem.geometry import Box

CROP = (4, 16, 12)
BATCH = 8


def image(shape_zyx, dtype="uint8", seed=0):
    return np.random.default_rng(seed).integers(1, 255, shape_zyx).astype(dtype)


def volume(array, source="a"):
    return Volume(ts.array(array), (30.0, 6.0, 6.0), source, Box((0, 0, 0), array.shape))


def write_zarr(path, array):
    """Sharded zarr 3, opened without a cache."""
    sharding = {"chunk_shape": [4, 16, 16], "codecs": [{"name": "bytes"}]}
    metadata = {
        "shape": array.shape,
        "data_type": array.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [8, 32, 32]}},
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
    }
    kvstore = {"driver": "file", "path": str(path)}
    spec = {"driver": "zarr3", "kvstore": kvstore, "metadata": metadata, "create": True}
    store = ts.open(spec).result()
    store.write(array).result()
    return Volume(store, (30.0, 6.0, 6.0), str(path), Box((0, 0, 0), array.shape))


ARRAYS = [image((9, 40, 30)), image((6, 20, 64), seed=1)]
VOLUMES = [volume(array) for array in ARRAYS]
WEIGHTS = [1.0, 2.0]


def read(first_step=0, last_step=5, **kwargs):
    crops = reader(VOLUMES, WEIGHTS, CROP, seed=3)
    stream = batches(crops, batch_size=BATCH, first_step=first_step, last_step=last_step, **kwargs)
    return np.array([batch["image"] for batch in stream])


def test_batches_are_the_crops_drawn():
    got = read().reshape(-1, *CROP)
    shapes = [array.shape for array in ARRAYS]
    numbers, starts = draw_crops(3, range(5 * BATCH), shapes, WEIGHTS, CROP)
    assert set(numbers) == {0, 1}
    for crop, number, (z, y, x) in zip(got, numbers, starts, strict=True):
        np.testing.assert_array_equal(crop, ARRAYS[number][z : z + 4, y : y + 16, x : x + 12])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_sharded_zarr_gives_what_memory_gives(dtype, tmp_path):
    array = image((10, 70, 50), dtype)
    zarr = write_zarr(tmp_path / "v.zarr", array)
    stored = reader([zarr], [1.0], CROP, seed=0)(range(20))["image"]
    in_memory = reader([volume(array)], [1.0], CROP, seed=0)(range(20))["image"]
    assert stored.dtype == dtype
    assert stored.shape == (20, *CROP)
    np.testing.assert_array_equal(stored, in_memory)


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_processes_share_each_batch(count):
    shares = [read(process_index=p, process_count=count) for p in range(count)]
    assert shares[0].shape == (5, BATCH // count, *CROP)
    np.testing.assert_array_equal(np.concatenate(shares, axis=1), read())


@settings(deadline=None, max_examples=15)
@given(first=st.integers(0, 5), threads=st.integers(1, 8), prefetch=st.integers(1, 8))
def test_resume_gives_the_tail(first, threads, prefetch):
    tail = list(read(first_step=first, read_threads=threads, prefetch=prefetch))
    np.testing.assert_array_equal(tail, list(read())[first:])


def test_far_steps_start_at_once():
    assert len(read(first_step=10**9, last_step=10**9 + 2)) == 2


def test_nothing_left_to_read():
    assert len(read(first_step=5)) == 0
    assert len(read(first_step=6)) == 0


def test_batch_not_shared_evenly():
    with pytest.raises(ValueError, match="batch size 8 is not divisible by 3 processes; nearest: "):
        read(process_count=3)


def test_mix_is_checked_before_the_first_batch():
    with pytest.raises(ValueError, match="smaller than the crop 10x16x12"):
        reader(VOLUMES, WEIGHTS, (10, 16, 12), seed=0)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("threads", [1, 4])
def test_failed_read_raises_in_the_consumer(threads, tmp_path):
    broken = write_zarr(tmp_path / "v.zarr", image((8, 64, 64)))
    for shard in (tmp_path / "v.zarr" / "c").rglob("*"):
        if shard.is_file():
            shard.write_bytes(shard.read_bytes()[:100])
    crops = reader([broken], [1.0], CROP, seed=0)
    stream = batches(crops, batch_size=BATCH, first_step=0, last_step=100, read_threads=threads)
    with pytest.raises(ValueError, match=r"v\.zarr"):
        next(stream)


@pytest.mark.timeout(20)
def test_abandoned_stream_stops():
    crops = reader(VOLUMES, WEIGHTS, CROP, seed=0)
    stream = batches(crops, batch_size=BATCH, first_step=0, last_step=10**9)
    assert len(list(itertools.islice(stream, 3))) == 3
    del stream


# The right half of each volume is unlabelled, the left half holds a body in every fourth row.
IDS = [np.zeros(array.shape, np.uint64) for array in ARRAYS]
for ids in IDS:
    ids[:, ::4] = 2**40 + np.arange(ids.shape[1])[::4, None]
    ids[:, :, ids.shape[2] // 2 :] = 7
LABELS = [LabelVolume(volume(ids), 7) for ids in IDS]


def labelled_reader(min_foreground=0.0):
    return reader(VOLUMES, WEIGHTS, CROP, 3, LABELS, ["labels"], min_foreground)


def test_labels_lie_where_their_crop_does():
    got = labelled_reader()(range(20))
    alone = reader(VOLUMES, WEIGHTS, CROP, seed=3)(range(20))
    np.testing.assert_array_equal(got["image"], alone["image"])
    numbers, starts = draw_crops(3, range(20), [a.shape for a in ARRAYS], WEIGHTS, CROP)
    assert got["labels"].dtype == np.int32
    for labels, number, (z, y, x) in zip(got["labels"], numbers, starts, strict=True):
        ids = IDS[number][z : z + 4, y : y + 16, x : x + 12]
        np.testing.assert_array_equal(labels == -1, ids == 7)
        np.testing.assert_array_equal(labels == 0, ids == 0)
        pairs = {*zip(labels.ravel().tolist(), ids.ravel().tolist(), strict=True)}
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def test_poor_crops_are_drawn_again_and_good_ones_stay():
    whole, picky = labelled_reader(), labelled_reader(min_foreground=0.2)
    before, after = whole(range(40)), picky(range(40))
    poor = (before["labels"] > 0).mean((1, 2, 3)) < 0.2
    assert 0 < poor.sum() < 40
    np.testing.assert_array_equal(before["image"][~poor], after["image"][~poor])
    assert ((after["labels"] > 0).mean((1, 2, 3)) >= 0.2).all()
    # A sample depends on its own index alone.
    np.testing.assert_array_equal(picky(range(17, 23))["image"], after["image"][17:23])
    np.testing.assert_array_equal(picky(range(17, 23))["labels"], after["labels"][17:23])


def test_where_no_crop_is_rich_enough_the_last_draw_is_taken():
    never = labelled_reader(min_foreground=0.9)
    assert never(range(4))["labels"].shape == (4, *CROP)


@pytest.mark.parametrize("dtypes", [("uint8", "uint32"), ("uint32", "uint8"), ("int16", "uint64")])
def test_labels_of_a_set_may_differ_in_dtype(dtypes):
    """In the dtype of the narrower one, ids of the wider one would wrap around to 0 and 44."""
    rows = {"uint8": [0, 0, 7, 44], "int16": [0, 0, 7, 300]}
    rows = [rows.get(dtype, [256, 512, 300, 44]) for dtype in dtypes]
    ids = [np.tile(np.array(r, d), (4, 16, 3)) for r, d in zip(rows, dtypes, strict=True)]
    images = [volume(image(array.shape)) for array in ids]
    labels = [LabelVolume(volume(array)) for array in ids]
    got = reader(images, [1.0, 1.0], CROP, 0, labels, ["labels"])(range(20))["labels"]
    numbers, _ = draw_crops(0, range(20), [array.shape for array in ids], [1.0, 1.0], CROP)
    assert set(numbers) == {0, 1}
    for crop, number in zip(got, numbers, strict=True):
        np.testing.assert_array_equal(crop == 0, ids[number] == 0)
        assert len(np.unique(crop)) == len(set(rows[number]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"truths": LABELS[:1], "fields": ["labels"]}, "2 volumes have 1 truths"),
        ({"truths": LABELS, "fields": ["trees"]}, "gives labels; expected also trees"),
        ({"truths": LABELS[::-1], "fields": ["labels"]}, "has shape zyx 6x20x64, and the volume"),
        ({"min_foreground": 0.1}, "min_foreground is 0.1, but labels are not read"),
    ],
)
def test_truth_that_is_not_there_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        reader(VOLUMES, WEIGHTS, CROP, 3, **arguments)
