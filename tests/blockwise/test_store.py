"""Labels and boxes of what is stored."""

import json

import numpy as np
import pytest

from maemem.blockwise import store
from maemem.data.stores.volumes import open_volume
from maemem.geometry import Box
from tests.blockwise.volumes import SIZE, grey_values, stored_volume, write_labels

REGION = Box((2, 10, 0), (7, 80, 45))


def write(path, labels, region=REGION):
    write_labels(path, labels, voxel_size_nm=SIZE, region=region, attributes={"threshold": 0.5})


def test_labels(tmp_path):
    labels = np.arange(5 * 70 * 45, dtype=np.uint32).reshape(5, 70, 45) * 100_000
    path = tmp_path / "labels.zarr"
    write(path, labels)
    np.testing.assert_array_equal(store.read_labels(path), labels)
    part = store.read_labels(path, Box((3, 10, 40), (4, 12, 45)))
    np.testing.assert_array_equal(part, labels[1:2, :2, 40:])
    opened = store.open_labels(path)
    assert (opened.region, opened.voxel_size_nm) == (REGION, SIZE)
    assert opened.attributes == {"threshold": 0.5}

    volume = open_volume(str(path))
    assert volume.voxel_size_nm == SIZE
    np.testing.assert_array_equal(volume.store.read().result(), labels)
    with pytest.raises(ValueError, match="expected a prediction"):
        store.open_prediction(path)


@pytest.mark.parametrize("box", [Box((1, 10, 0), (7, 80, 45)), Box((2, 10, 0), (7, 80, 46))])
def test_boxes_stay_inside(tmp_path, box):
    write(tmp_path / "a.zarr", np.ones((5, 70, 45), np.uint32))
    with pytest.raises(ValueError, match=r"leaves the region \[2:7, 10:80, 0:45\]"):
        store.read_labels(tmp_path / "a.zarr", box)


def test_says_what_is_not_there(tmp_path):
    stored_volume(tmp_path / "raw.zarr", grey_values((4, 4, 4)))
    with pytest.raises(FileNotFoundError, match="no prediction and no label volume"):
        store.open_prediction(tmp_path / "none.zarr")
    with pytest.raises(ValueError, match="not written by maemem"):
        store.open_prediction(tmp_path / "raw.zarr")
    with pytest.raises(ValueError, match="is a URL"):
        store.open_prediction("gs://bucket/a.zarr")


def test_a_voxel_size_that_is_not_finite_is_refused(tmp_path):
    path = tmp_path / "a.zarr"
    write(path, np.ones((5, 70, 45), np.uint32))
    metadata = json.loads((path / "zarr.json").read_text())
    (image,) = metadata["attributes"]["ome"]["multiscales"]
    image["datasets"][0]["coordinateTransformations"][0]["scale"][0] = float("nan")
    (path / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match=rf"{path} cannot be read .*three positive lengths"):
        store.open_labels(path)
