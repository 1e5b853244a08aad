"""neuroglancer is given the right arrays at the right places, or their addresses."""

import io
import json
import zlib

import neuroglancer
import numpy as np
import pytest
import tensorstore as ts

from maemem.data.stores.volumes import open_volume
from maemem.view import browser
from maemem.view.scene import Layer, read_scene
from tests.view.volumes import SIZE, volumes, zarr


def placed(layer: Layer) -> tuple[dict, np.ndarray]:
    """Where an address puts the voxels of a layer: its transform, and the array as it finds it."""
    source = browser.addressed(lambda url: url)(layer)
    stored = ts.open({"driver": "auto", "kvstore": source.url.split("|")[0]}).result()
    return source.transform, stored


@pytest.fixture
def array():
    return np.random.default_rng(0).integers(1, 255, (6, 10, 14), np.uint8)


def test_addressed_arrays_lie_where_maemem_reads_them(array, tmp_path):
    for name, volume in volumes(tmp_path, array):
        layer = Layer("raw", "image", volume.store, SIZE, (5, 0, 7))
        transform, stored = placed(layer)
        names = transform.output_dimensions.names
        for voxel in ((0, 0, 0), (5, 9, 13), (3, 7, 1)):
            here = np.add(voxel, layer.start_zyx)
            matrix = np.asarray(transform.matrix)
            there = np.linalg.solve(matrix[:, :-1], here - matrix[:, -1]).astype(int)
            rank = stored.rank - len(there)
            value = stored[(*there.tolist(), *[0] * rank)].read().result()
            assert value == array[voxel], name
        assert list(names) == list("zyx"), name
        np.testing.assert_allclose(transform.output_dimensions.scales, np.array(SIZE) * 1e-9)
        scales = dict(zip(names, transform.output_dimensions.scales, strict=True))
        turned = np.abs(matrix[:, :-1]).argmax(0)
        expected = [scales[names[row]] for row in turned]
        np.testing.assert_allclose(transform.input_dimensions.scales, expected)


def test_axes_are_called_as_neuroglancer_calls_them(array, tmp_path):
    called = {}
    for name, volume in volumes(tmp_path, array):
        transform, _ = placed(Layer("raw", "image", volume.store, SIZE))
        called[name] = list(transform.input_dimensions.names)
    assert called == {
        "named": ["x", "z", "y"],
        "nameless": ["d0", "d1", "d2"],
        "n5": ["x", "y", "z"],
        "offset": ["x", "y", "z"],
    }


def test_a_channel_is_an_axis_of_the_layer_alone(array, tmp_path):
    store = zarr(tmp_path / "both", array=np.stack([array, 255 - array]), labels=[*"czyx"])
    transform, _ = placed(Layer("prediction", "probability", store[1], SIZE))
    assert list(transform.output_dimensions.names) == ["z", "y", "x", "axis0'"]
    # The second channel becomes the place 0.
    np.testing.assert_array_equal(transform.matrix[3], [1, 0, 0, 0, -1])


def test_a_binned_volume_is_addressed_by_its_fine_voxels(array, tmp_path):
    zarr(tmp_path / "fine", array=array, labels=[*"zyx"])
    volume = open_volume(str(tmp_path / "fine"), voxel_size_nm=SIZE).binned((1, 2, 2), "mean")
    transform, _ = placed(Layer("raw", "image", volume.store, volume.voxel_size_nm))
    np.testing.assert_allclose(transform.output_dimensions.scales, np.array(SIZE) * 1e-9)
    np.testing.assert_array_equal(transform.matrix, np.eye(3, 4))


def sent(volume: neuroglancer.LocalVolume) -> np.ndarray:
    """What a browser is sent of a volume."""
    whole = np.zeros(3, int), np.array(volume.shape)
    data, _ = volume.get_encoded_subvolume("npz", *whole, "1,1,1")
    return np.load(io.BytesIO(zlib.decompress(data)))


@pytest.mark.parametrize(
    ("dtype", "unlabelled", "expected"),
    [("int16", -1, [3, 0, 0, 9]), ("uint8", 9, [3, 0, 1, 0]), ("uint32", -1, [3, 0, 1, 9])],
)
def test_unlabelled_voxels_have_no_id(dtype, unlabelled, expected):
    ids = np.array([3, 0, -1 if dtype == "int16" else 1, 9], dtype).reshape(1, 2, 2)
    layer = Layer("truth", "labels", ts.array(ids), SIZE, unlabelled=unlabelled)
    np.testing.assert_array_equal(sent(browser.served(layer).url).ravel(), expected)


def test_half_precision_is_served_as_single():
    values = np.linspace(0, 1, 8, dtype=np.float16).reshape(2, 2, 2)
    volume = browser.served(Layer("prediction", "probability", ts.array(values), SIZE)).url
    assert volume.data_type == "float32"
    np.testing.assert_array_equal(sent(volume), values)


def test_large_label_volumes_get_no_surfaces():
    for side, surfaces in ((64, True), (4096, False)):
        store = ts.virtual_chunked(lambda *_: None, dtype=ts.uint32, shape=[side] * 3)
        source = browser.served(Layer("segmentation", "labels", store, SIZE))
        assert ("mesh" not in source.to_json().get("subsources", {})) == surfaces


def test_the_state_of_a_workdir(config, workdir):
    scene = read_scene(config, workdir)
    address = browser.web_address("http://host:9000/", workdir)
    state = json.loads(browser.addressed_state(scene, address))
    layers = {layer["name"]: layer for layer in state["layers"]}
    assert list(layers)[-1] == "errors"
    urls = {name: layer["source"][0]["url"] for name, layer in layers.items() if name != "errors"}
    assert urls["segmentation"] == "http://host:9000/segment/test/tissue.zarr/0/|zarr3:"
    assert urls["prediction x-1"] == "http://host:9000/predict/test/tissue.zarr/0/|zarr3:"
    assert urls["raw"].startswith("http://host:9000/cache/synthetic-")
    assert state["position"] == [34.5, 32.5, 5.5]
    assert list(state["dimensions"]) == ["x", "y", "z"]
    assert state["dimensions"]["z"] == [3e-08, "m"]
    (spot,) = scene.spots
    (point,) = layers["errors"]["annotations"]
    assert point["point"] == [n + 0.5 for n in spot.centre_zyx]
    assert point["segments"] == [[str(spot.predicted)], [str(spot.truth)]]
    assert point["description"].startswith(f"1: merge, {spot.voxels:,} voxels")
    colours = layers["segmentation"]["segmentColors"]
    assert len(colours) == len(scene.matches)
    # What is not matched does not get the colour of the object with its id.
    assert layers["segmentation"]["colorSeed"] != layers["truth"].get("colorSeed", 0)
    # neuroglancer opens what was written.
    assert neuroglancer.ViewerState(state).layers["truth"].layer.type == "segmentation"


def test_what_is_not_served_is_refused(workdir, tmp_path):
    address = browser.web_address("http://host", tmp_path / "served")
    assert address("gs://bucket/raw/|zarr3:") == "gs://bucket/raw/|zarr3:"
    inside = f"file://{tmp_path}/served/a%20b.zarr/0/|zarr2:"
    assert address(inside) == "http://host/a%20b.zarr/0/|zarr2:"
    with pytest.raises(ValueError, match="name it with --folder"):
        address(f"file://{tmp_path}/elsewhere/|zarr2:")


def test_types_that_neuroglancer_does_not_read_are_left_out(config, workdir, caplog):
    scene = read_scene(config, workdir)
    half = ts.cast(scene.layers[1].store, ts.float16)
    layers = (scene.layers[0], Layer("prediction", "probability", half, SIZE))
    scene = type(scene)(scene.title, layers, SIZE, (0.0, 255.0), scene.scored)
    text = browser.addressed_state(scene, browser.web_address("http://host", workdir))
    assert [layer["name"] for layer in json.loads(text)["layers"]] == ["raw"]
    assert "prediction is left out: it holds float16" in caplog.text
