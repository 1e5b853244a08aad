"""Opening volumes of every format."""

import functools
import http.server
import json
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorstore as ts

from maemem.data.stores.volumes import open_volume, shared_context
from maemem.geometry import Box

SHAPE = (5, 6, 7)
SIZE = (30.0, 5.0, 4.0)
ARRAY = np.random.default_rng(0).integers(1, 255, SHAPE, np.uint8)


def write(path: Path, driver: str, array: np.ndarray, **spec) -> str:
    kvstore = {"driver": "file", "path": f"{path}/"}
    spec = {"driver": driver, "kvstore": kvstore, **spec}
    store = ts.open(spec, create=True, dtype=array.dtype, shape=array.shape).result()
    store.write(array).result()
    return str(path)


def write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_n5(path: Path, array: np.ndarray, **attributes) -> str:
    metadata = {"compression": {"type": "gzip"}, "blockSize": [4] * array.ndim}
    write(path, "n5", array, metadata=metadata)
    file = path / "attributes.json"
    write_json(file, {**json.loads(file.read_text()), **attributes})
    return str(path)


def write_sharded(path: Path, array: np.ndarray, names: list[str] | None = None) -> str:
    inner = {"chunk_shape": [2] * array.ndim, "codecs": [{"name": "bytes"}]}
    metadata = {
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4] * array.ndim}},
        "codecs": [{"name": "sharding_indexed", "configuration": inner}],
    }
    if names:
        metadata["dimension_names"] = names
    return write(path, "zarr3", array, metadata=metadata)


def write_precomputed(path: Path, array: np.ndarray) -> str:
    """From an array `[z y x c]`."""
    z, y, x, channels = array.shape
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": f"{path}/"},
        "multiscale_metadata": {"type": "image", "data_type": "uint8", "num_channels": channels},
    }
    scale = {
        "size": [x, y, z],
        "resolution": [SIZE[2], SIZE[1], SIZE[0]],
        "encoding": "raw",
        "chunk_size": [4, 4, 4],
        "voxel_offset": [10, 20, 30],
    }
    store = ts.open({**spec, "scale_metadata": scale}, create=True).result()
    store.write(array.transpose(2, 1, 0, 3)).result()
    coarse = {**scale, "size": [4, 3, 3], "resolution": [8, 10, 60], "voxel_offset": [5, 10, 15]}
    ts.open({**spec, "scale_metadata": coarse}, create=True).result()
    return str(path)


def multiscales(axes: str, scale: list[float], unit: str = "nanometer", path: str = "0") -> dict:
    kinds = {"c": "channel", "t": "time"}
    listed = [
        {"name": a, "type": kinds[a]} if a in kinds else {"name": a, "type": "space", "unit": unit}
        for a in axes
    ]
    transform = [{"type": "scale", "scale": scale}]
    return {
        "multiscales": [
            {"axes": listed, "datasets": [{"path": path, "coordinateTransformations": transform}]}
        ]
    }


def check(path: str, **options) -> None:
    volume = open_volume(path, **options)
    np.testing.assert_array_equal(volume.store.read().result(), ARRAY)
    assert volume.voxel_size_nm == pytest.approx(SIZE, rel=0.01)
    assert volume.shape_zyx == volume.store.shape == SHAPE
    assert volume.store.domain.origin == (0, 0, 0)
    assert volume.dtype == np.uint8
    assert not volume.store.writable


@pytest.mark.parametrize("driver", ["zarr", "zarr3"])
def test_zarr_without_names_is_zyx(tmp_path, driver):
    path = write(tmp_path / "a.zarr", driver, ARRAY)
    check(path, voxel_size_nm=SIZE)
    check(f"file://{path}", voxel_size_nm=SIZE)
    check(f"file://{path}/|{'zarr2' if driver == 'zarr' else 'zarr3'}:", voxel_size_nm=SIZE)


def test_zarr3_is_turned_by_its_dimension_names(tmp_path):
    array = np.moveaxis(ARRAY, [0, 1, 2], [1, 2, 0])[:, None]  # x c z y
    check(write_sharded(tmp_path / "a.zarr", array, ["x", "c", "z", "y"]), voxel_size_nm=SIZE)


def test_zarr2_is_turned_by_the_names_that_xarray_gives(tmp_path):
    path = write(tmp_path / "a.zarr", "zarr", ARRAY.transpose(2, 1, 0))
    attributes = {"_ARRAY_DIMENSIONS": ["x", "y", "z"], "resolution": [4, 5, 30]}
    write_json(tmp_path / "a.zarr/.zattrs", {**attributes, "units": ["nm", "nm", "nm"]})
    check(path)


@pytest.mark.parametrize(
    ("unit", "factor"), [("nanometer", 1), ("micrometer", 1e-3), ("angstrom", 10), ("µm", 1e-3)]
)
def test_ome_zarr_0_4(tmp_path, unit, factor):
    root = tmp_path / "a.zarr"
    write(root / "scale0/image", "zarr", ARRAY[None, None])
    scale = [1, 1, *(s * factor for s in SIZE)]
    write_json(root / ".zgroup", {"zarr_format": 2})
    write_json(root / ".zattrs", multiscales("tczyx", scale, unit, "scale0/image"))
    check(str(root))
    check(str(root / "scale0/image"))
    assert open_volume(str(root)).source == f"file://{root}/scale0/image"


def test_ome_zarr_0_5(tmp_path):
    root = tmp_path / "a.zarr"
    write_sharded(root / "0", ARRAY.transpose(0, 2, 1))
    ome = {"version": "0.5", **multiscales("zxy", [SIZE[0], SIZE[2], SIZE[1]])}
    meta = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}
    write_json(root / "zarr.json", meta)
    check(str(root))
    check(str(root / "0") + "/")
    check(str(root / "0"), voxel_size_nm=(30.1, 5, 4))  # as good as equal
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in root.rglob("*"):
            archive.write(file, file.relative_to(root))
    check(f"file://{tmp_path}/a.zip|zip:")


def test_n5_is_xyz(tmp_path):
    turned = ARRAY.transpose(2, 1, 0)
    check(write_n5(tmp_path / "bare.n5", turned), voxel_size_nm=SIZE)
    check(write_n5(tmp_path / "nm.n5", turned, resolution=[4, 5, 30]))
    units = ["um", "um", "um"]
    check(write_n5(tmp_path / "um.n5", turned, resolution=[4e-3, 5e-3, 30e-3], units=units))
    check(write_n5(tmp_path / "c.n5", turned[..., None], resolution=[4, 5, 30, 1]))
    cosem = {"axes": ["z", "y", "x"], "scale": SIZE, "units": ["nm"] * 3, "translate": [0, 0, 0]}
    check(write_n5(tmp_path / "cosem.n5", turned, transform=cosem))


def test_n5_axes_are_those_that_it_names(tmp_path):
    check(write_n5(tmp_path / "a.n5", ARRAY, axes=["z", "y", "x"], resolution=SIZE))


def test_n5_group_gives_its_scales_their_voxel_size(tmp_path):
    turned, root = ARRAY.transpose(2, 1, 0), tmp_path / "a.n5"
    factors = [[1, 1, 1], [2, 2, 1]]
    pixel = {"unit": "um", "dimensions": [4e-3, 5e-3, 30e-3]}
    write_json(root / "raw/attributes.json", {"pixelResolution": pixel, "scales": factors})
    write_n5(root / "raw/s0", turned)
    write_n5(root / "raw/s1", turned, downsamplingFactors=[2, 2, 1])
    check(str(root / "raw"))
    check(str(root / "raw/s0"))
    assert open_volume(str(root / "raw/s1")).voxel_size_nm == pytest.approx((30, 10, 8))


def test_precomputed_is_xyzc_and_its_offset_is_dropped(tmp_path):
    check(write_precomputed(tmp_path / "a", ARRAY[..., None]))


def test_region(tmp_path):
    path = write(tmp_path / "a.zarr", "zarr3", ARRAY)
    volume = open_volume(path, voxel_size_nm=SIZE, region="1:4, :, 2:")
    assert volume.region == Box((1, 0, 2), (4, 6, 7))
    assert volume.store.domain.origin == (0, 0, 0)
    np.testing.assert_array_equal(volume.store.read().result(), ARRAY[1:4, :, 2:])
    with pytest.raises(ValueError, match="leaves the volume, whose shape zyx is 5x6x7"):
        open_volume(path, voxel_size_nm=SIZE, region="0:6, :, :")


def test_bins_are_means_or_most_frequent_ids(tmp_path):
    array = np.random.default_rng(0).integers(0, 4, (4, 6, 8)).astype(np.uint8) * 60
    path = write(tmp_path / "a.zarr", "zarr3", array)
    volume = open_volume(path, voxel_size_nm=(50.0, 4.6, 4.6))
    assert volume.binned((1, 1, 1), "mean") is volume
    blocks = array.reshape(4, 3, 2, 4, 2).swapaxes(2, 3).reshape(4, 3, 4, 4)
    binned = volume.binned((1, 2, 2), "mean")
    assert binned.voxel_size_nm == (50.0, 9.2, 9.2)
    assert binned.source == volume.source
    assert binned.dtype == np.uint8
    assert binned.shape_zyx == binned.store.shape == (4, 3, 4)
    np.testing.assert_array_equal(binned.store.read().result(), np.rint(blocks.mean(-1)))
    part = binned.cut("1:3, :, 2:")
    assert part.region == Box((1, 0, 2), (3, 3, 4))
    np.testing.assert_array_equal(part.store.read().result(), np.rint(blocks.mean(-1))[1:3, :, 2:])
    ids = volume.binned((1, 2, 2), "mode").store.read().result()
    counts = (blocks[..., None] == np.arange(0, 181, 60)).sum(-2)
    most = np.take_along_axis(counts, ids[..., None].astype(int) // 60, -1)[..., 0]
    np.testing.assert_array_equal(most, counts.max(-1))


def test_bins_at_the_end_may_be_smaller(tmp_path):
    path = write(tmp_path / "a.zarr", "zarr3", ARRAY)
    binned = open_volume(path, voxel_size_nm=SIZE).binned((2, 4, 2), "mean")
    assert binned.shape_zyx == (3, 2, 4)
    last = binned.store.read().result()[-1, -1, -1]
    assert last == np.rint(ARRAY[4:, 4:, 6:].mean())


def test_source_is_the_same_however_it_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "a b.zarr", "zarr3", ARRAY)
    (tmp_path / "link").symlink_to(path)
    monkeypatch.chdir(tmp_path)
    names = [path, "a b.zarr/", str(tmp_path / "link"), f"file://{tmp_path}/x/../a%20b.zarr"]
    assert len({open_volume(name, voxel_size_nm=SIZE).source for name in names}) == 1


def test_http(tmp_path):
    write(tmp_path / "a.zarr", "zarr3", ARRAY)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        check(f"{url}/a.zarr", voxel_size_nm=SIZE)
        with pytest.raises(FileNotFoundError, match="check the address"):
            open_volume(f"{url}/b.zarr")
        server.shutdown()


def test_context_is_shared_by_size():
    assert shared_context(1000) is shared_context(1000)
    assert shared_context(1000) is not shared_context(2000)


def test_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no volume at .*nowhere"):
        open_volume(str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"none of zarr\.json.*check the address"):
        open_volume(f"file://{tmp_path}/nowhere/")
    with pytest.raises(ValueError, match="holds no metadata of a volume"):
        open_volume(str(tmp_path))
    (tmp_path / "z1.tif").touch()
    with pytest.raises(ValueError, match=r"holds 1 images.*python -m maemem\.data\.convert"):
        open_volume(str(tmp_path))
    with pytest.raises(ValueError, match="not a URL that tensorstore can open"):
        open_volume("ftp://host/a.zarr")


@pytest.mark.parametrize("name", ["a.tif", "a.TIFF", "a.h5", "a.h5:/raw", "a.hdf", "a.npy", "a"])
def test_files_are_to_be_converted(tmp_path, name):
    (tmp_path / name.split(":")[0]).touch()
    command = r"python -m maemem\.data\.convert .* OUTPUT\.zarr --voxel_size_nm=z,y,x"
    with pytest.raises(ValueError, match=command):
        open_volume(str(tmp_path / name))


def test_a_group_without_multiscales_asks_for_an_array(tmp_path):
    write_json(tmp_path / "a.zarr/.zgroup", {"zarr_format": 2})
    with pytest.raises(ValueError, match=r"name it: file://.*/a\.zarr/NAME"):
        open_volume(str(tmp_path / "a.zarr"))
    write_json(tmp_path / "a.zarr/.zattrs", multiscales("zyx", [1, 1, 1]))
    with pytest.raises(ValueError, match="no array is there"):
        open_volume(str(tmp_path / "a.zarr"))


def test_malformed_metadata(tmp_path):
    (tmp_path / "zarr.json").write_text("{")
    with pytest.raises(ValueError, match=r"zarr\.json is not valid JSON"):
        open_volume(str(tmp_path))
    write_json(tmp_path / "zarr.json", {"node_type": "group", "attributes": {"ome": []}})
    with pytest.raises(ValueError, match="malformed"):
        open_volume(str(tmp_path))
    write_json(tmp_path / "zarr.json", {"node_type": "array"})
    with pytest.raises(ValueError, match="cannot be opened as zarr3"):
        open_volume(str(tmp_path))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("kind", ["scale", "translation"])
def test_ome_metadata_that_are_not_finite(tmp_path, kind, number):
    write(tmp_path / "0", "zarr", ARRAY)
    for content in ("5.0", number):
        own = [{"type": "scale", "scale": SIZE}, {"type": kind, kind: [1.0, 1.0, "HERE"]}]
        image = multiscales("zyx", [1, 1, 1])
        image["multiscales"][0]["datasets"][0]["coordinateTransformations"] = own
        (tmp_path / ".zattrs").write_text(json.dumps(image).replace('"HERE"', content))
        if content != number:
            open_volume(str(tmp_path))
    with pytest.raises(ValueError, match=f"{tmp_path}.* expected finite numbers; correct them"):
        open_volume(str(tmp_path))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1]",
        b"\xff",
        b"{}",
        {"dimensions": 3},
        {"dimensions": [5, -1, 7]},
        {"resolution": "thick"},
        {"resolution": [4, 5]},
        {"blockSize": 0},
        {"dataType": "word"},
        {"compression": {"type": "homemade"}},
        {"axes": "xyz"},
        {"units": ["parsec"] * 3, "resolution": [1, 1, 1]},
    ],
)
def test_malformed_metadata_of_n5(tmp_path, content):
    path = Path(write_n5(tmp_path / "a.n5", ARRAY.transpose(2, 1, 0), resolution=[4, 5, 30]))
    check_malformed(path, path / "attributes.json", content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1]",
        b"\xff",
        b"{}",
        {"scales": []},
        {"scales": 3},
        {"scales": [{}]},
        {"scales": [{"resolution": [4, 5]}]},
        {"scales": [{"resolution": [4, 5, "thick"]}]},
        {"data_type": "word"},
        {"num_channels": 0},
    ],
)
def test_malformed_metadata_of_precomputed(tmp_path, content):
    path = Path(write_precomputed(tmp_path / "a", ARRAY[..., None]))
    check_malformed(path, path / "info", content)


def check_malformed(path, file, content):
    """Metadata that are bytes, or fields that are put in the place of some, are named."""
    open_volume(str(path))
    if isinstance(content, dict):
        content = json.dumps({**json.loads(file.read_text()), **content}).encode()
    file.write_bytes(content)
    with pytest.raises((ValueError, OSError), match=str(path)) as caught:
        open_volume(str(path))
    assert "\n" not in str(caught.value)


def test_wrong_arrays(tmp_path):
    with pytest.raises(ValueError, match="2 dimensions, its axes without names, expected 3"):
        open_volume(write(tmp_path / "flat", "zarr3", ARRAY[0]), voxel_size_nm=SIZE)
    with pytest.raises(ValueError, match="expected each of z, y and x once"):
        open_volume(write_sharded(tmp_path / "tyx", ARRAY, ["t", "y", "x"]), voxel_size_nm=SIZE)
    array = np.stack([ARRAY, ARRAY])
    with pytest.raises(ValueError, match="2 entries along axis 'c', expected 1"):
        open_volume(write_sharded(tmp_path / "c", array, ["c", "z", "y", "x"]), voxel_size_nm=SIZE)
    with pytest.raises(ValueError, match="2 entries along axis 'channel'"):
        open_volume(write_precomputed(tmp_path / "pre", np.moveaxis(array, 0, -1)))
    for dtype in (np.complex64, np.float64, np.bool_):
        path = write(tmp_path / np.dtype(dtype).name, "zarr3", ARRAY.astype(dtype))
        with pytest.raises(ValueError, match=f"type {np.dtype(dtype).name}, expected one of uint8"):
            open_volume(path, voxel_size_nm=SIZE)


def test_voxel_size_errors(tmp_path):
    path = write(tmp_path / "a.zarr", "zarr3", ARRAY)
    with pytest.raises(ValueError, match="does not say its voxel size; give voxel_size_nm"):
        open_volume(path)
    with pytest.raises(ValueError, match="expected three positive lengths"):
        open_volume(path, voxel_size_nm=(30, 0, 4))
    path = write_precomputed(tmp_path / "pre", ARRAY[..., None])
    with pytest.raises(ValueError, match=r"\(40.0, 5.0, 4.0\).*say \(30.0, 5.0, 4.0\)"):
        open_volume(path, voxel_size_nm=(40, 5, 4))
