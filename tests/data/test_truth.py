"""What holds of every kind of truth, and of volumes of labels."""

import pickle

import numpy as np
import pytest
import tensorstore as ts
from hypothesis import given, settings
from hypothesis import strategies as st

from maemem.data.convert import convert
from maemem.data.samples.pipeline import reader
from maemem.data.stores.volumes import Volume, open_volume
from maemem.data.truth import TRUTHS, Origin, open_truth
from maemem.data.truth.labels import LabelVolume, renumber
from maemem.geometry import Box

SHAPE = (6, 20, 24)
SIZE = (30.0, 6.0, 6.0)
CROP = (3, 8, 8)


def stored(folder, name, array):
    np.save(folder / f"{name}.npy", array)
    convert(str(folder / f"{name}.npy"), str(folder / name), voxel_size_nm=SIZE, progress=False)
    return open_volume(str(folder / name))


def label_path(folder):
    ids = np.random.default_rng(0).integers(-2, 50, SHAPE).astype(np.int32)
    stored(folder, "ids.zarr", ids)
    return str(folder / "ids.zarr")


# Of each kind: what makes an example that lies on an image of this shape, and gives its path.
EXAMPLES = {"": label_path}


def test_every_kind_has_an_example():
    assert EXAMPLES.keys() == TRUTHS.keys()


@pytest.fixture(scope="module", params=TRUTHS, ids=lambda scheme: scheme or "labels")
def opened(request, tmp_path_factory):
    """An image, and truth of each kind that belongs to it."""
    folder = tmp_path_factory.mktemp("truth")
    image = np.random.default_rng(1).integers(0, 256, SHAPE).astype(np.uint8)
    raw = stored(folder, "image.zarr", image)
    path = EXAMPLES[request.param](folder)
    truth = open_truth(Origin(path, "", raw, 7, open_volume))
    assert isinstance(truth, TRUTHS[request.param])
    return raw, truth


def read_fields(truth, box, fields=None):
    with ts.Batch() as batch:
        finish = truth.begin(box, fields or truth.fields, batch)
    return finish()


def test_truth_lies_on_its_image(opened):
    raw, truth = opened
    assert truth.shape_zyx == raw.shape_zyx
    assert truth.cut("1:5, :, 4:").shape_zyx == (4, 20, 20)
    with pytest.raises(ValueError, match="leaves the volume"):
        truth.cut("0:7, :, :")


def test_each_field_is_given_as_it_is_asked_for(opened):
    _, truth = opened
    assert truth.fields
    box = Box((1, 2, 3), (4, 10, 11))
    for field in truth.fields:
        found = read_fields(truth, box, [field])
        assert found.keys() == {field}
        assert found[field].shape == box.shape_zyx
        np.testing.assert_array_equal(found[field], read_fields(truth, box)[field])
    if "labels" in truth.fields:
        assert found["labels"].dtype == np.int32
        assert found["labels"].min() >= -1


boxes = st.tuples(*(st.integers(0, n - 3) for n in (4, 20, 20)))


@settings(deadline=None, max_examples=15)
@given(start=boxes)
def test_a_part_of_it_is_the_same_as_that_part_of_the_whole(opened, start):
    _, truth = opened
    part, there = truth.cut("1:5, :, 4:"), Box((0, 0, 0), (3, 3, 3)).moved(start)
    whole = there.moved((1, 0, 4))
    np.testing.assert_array_equal(part.read(there), truth.read(whole))
    for field, values in read_fields(part, there).items():
        np.testing.assert_array_equal(values, read_fields(truth, whole)[field])


def test_scores_read_the_same_ids_in_every_box(opened):
    _, truth = opened
    whole = truth.read(Box((0, 0, 0), SHAPE))
    assert np.issubdtype(whole.dtype, np.integer)
    assert whole.min() >= -1
    box = Box((2, 3, 4), (5, 18, 20))
    np.testing.assert_array_equal(truth.read(box), whole[box.slices])


def test_processes_that_score_blocks_get_it(opened):
    _, truth = opened
    box = Box((2, 3, 4), (5, 18, 20))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(truth.read))(box), truth.read(box))


def test_crops_are_read_with_all_of_its_fields(opened):
    raw, truth = opened
    crops = reader([raw], [1.0], CROP, 0, [truth], truth.fields)(range(5))
    assert crops.keys() == {"image", *truth.fields}
    assert all(len(values) == 5 for values in crops.values())
    again = reader([raw], [1.0], CROP, 0, [truth], truth.fields)(range(3, 5))
    for name, values in again.items():
        np.testing.assert_array_equal(values, crops[name][3:])


def volume(array):
    return Volume(ts.array(array), SIZE, "a", Box((0, 0, 0), array.shape))


def label_volume(array, image_shape=(2, 3, 4), unlabelled=-1):
    image = volume(np.zeros(image_shape, np.uint8))
    return open_truth(Origin("a.zarr", "", image, unlabelled, lambda path: volume(array)))


def test_labels_of_another_shape_or_type_are_refused():
    with pytest.raises(ValueError, match="have shape zyx 2x3x5, and their volume a has 2x3x4"):
        label_volume(np.zeros((2, 3, 5), np.uint8))
    with pytest.raises(ValueError, match="hold float32; expected whole ids"):
        label_volume(np.zeros((2, 3, 4), np.float32))


@pytest.mark.parametrize("path", ["s3://bucket/ids.zarr", "ids.h5:/main", "synthetic:?seed=0"])
def test_paths_of_no_scheme_are_volumes_of_labels(path):
    asked = []
    ids = np.zeros((2, 3, 4), np.uint8)

    def open_ids(path):
        asked.append(path)
        return volume(ids)

    assert isinstance(open_truth(Origin(path, "", volume(ids), -1, open_ids)), LabelVolume)
    assert asked == [path]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint64", "int64"])
@pytest.mark.parametrize("unlabelled", [-1, 0, 9])
def test_scores_see_ids_as_stored_and_minus_one_where_unlabelled(dtype, unlabelled):
    ids = np.array([[[0, 5, 9, 200 if dtype == "uint8" else 300]]]).astype(dtype)
    if np.issubdtype(dtype, np.signedinteger):
        ids[..., 1] = -5
    found = LabelVolume(volume(ids), unlabelled).read(Box((0, 0, 0), ids.shape))
    expected = np.where((ids < 0) | (ids == unlabelled), -1, ids.astype(np.int64))
    np.testing.assert_array_equal(found, expected)


def test_negative_labels_are_unlabelled():
    ids = np.array([[[0, -1, 5, -300, 9]]], np.int16)
    np.testing.assert_array_equal(renumber(ids, -1) < 0, ids < 0)
    np.testing.assert_array_equal(renumber(ids, -1) == 0, ids == 0)
    np.testing.assert_array_equal(renumber(ids, 9) == -1, (ids < 0) | (ids == 9))


def test_background_itself_may_be_what_is_unlabelled():
    np.testing.assert_array_equal(renumber(np.array([[[0, 5, 5, 9]]]), 0), [[[-1, 1, 1, 2]]])
    np.testing.assert_array_equal(renumber(np.array([[[0, 5, 5, 9]]]), -1), [[[0, 1, 1, 2]]])
