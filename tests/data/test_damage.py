"""Damaged and hostile files: an error that names them, never another one, and never half of them.

`differs` is allowed only where the format has no checksums, so that a flipped bit is a grey value
like any other.
"""

import functools
import http.server
import json
import math
import os
import struct
import threading

import h5py
import hypothesis
import imagecodecs
import numpy as np
import pytest
import tensorstore as ts
import tifffile
from hypothesis import strategies as st

from maemem.data.convert import convert
from maemem.data.samples.pipeline import batches, reader
from maemem.data.stores.readers import open_source
from maemem.data.stores.volumes import open_volume
from maemem.geometry import Box

SIZE = (30.0, 6.0, 5.0)
ARRAY = np.random.default_rng(0).integers(1, 250, (5, 20, 24)).astype(np.uint8)
FUZZED = hypothesis.settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)


def write_h5(path, **options):
    with h5py.File(path, "w") as file:
        file.create_dataset("raw", data=ARRAY, **options)


def write_sections(folder, suffix):
    folder.mkdir()
    for z, section in enumerate(ARRAY):
        if suffix == "png":
            (folder / f"{z}.png").write_bytes(imagecodecs.png_encode(section))
        else:
            tifffile.imwrite(folder / f"{z}.tif", section, compression="zlib")


# Of each kind: what writes it, and the file in it that is damaged.
FILES = {
    "raw.tif": lambda path: tifffile.imwrite(path, ARRAY),
    "zlib.tif": lambda path: tifffile.imwrite(path, ARRAY, compression="zlib"),
    "lzw.tif": lambda path: tifffile.imwrite(path, ARRAY, compression="lzw", rowsperstrip=7),
    "ome.tif": lambda path: tifffile.imwrite(path, ARRAY, ome=True, metadata={"axes": "ZYX"}),
    "imagej.tif": lambda path: tifffile.imwrite(path, ARRAY, imagej=True, metadata={"axes": "ZYX"}),
    "a.npy": lambda path: np.save(path, ARRAY),
    "raw.h5": write_h5,
    "gzip.h5": lambda path: write_h5(path, chunks=(2, 8, 8), compression="gzip", fletcher32=True),
    "png/3.png": lambda path: write_sections(path.parent, "png"),
    "tif/3.tif": lambda path: write_sections(path.parent, "tif"),
}


@st.composite
def damages(draw):
    """What becomes of the bytes of a file, mostly of its beginning, where what it is is said."""
    kind = draw(st.sampled_from(["flipped", "overwritten", "cut"]))
    place = draw(st.one_of(st.integers(0, 400), st.integers(0, 1 << 16)))
    bits, values = draw(st.integers(0, 7)), draw(st.binary(min_size=1, max_size=8))

    def damage(content: bytes) -> bytes:
        at = place % len(content)
        if kind == "cut":
            return content[:at]
        changed = bytearray(content)
        if kind == "flipped":
            changed[at] ^= 1 << bits
        else:
            changed[at : at + len(values)] = values
        return bytes(changed[: len(content)])

    return kind, damage


def read(path):
    """All of it, unless it says that it is enormous; then its corner."""
    with open_source(str(path), voxel_size_nm=SIZE, cache_bytes=1 << 20) as source:
        z, y, x = (min(size, 64) for size in source.shape_zyx)
        return source.read(Box((0, 0, 0), (z, y, x)))


def attempt(reader, path):
    """What is read, or what its error says; only these two kinds are reported in one line."""
    try:
        return reader(path)
    except (ValueError, OSError) as error:
        return str(error)


def converted(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    convert(str(tmp_path / "a.npy"), str(tmp_path / "a.zarr"), voxel_size_nm=SIZE)
    return open_volume(str(tmp_path / "a.zarr"))


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_or_read(tmp_path, name):
    path = tmp_path / name
    FILES[name](path)
    whole, volume = path.read_bytes(), path if path.parent == tmp_path else path.parent
    np.testing.assert_array_equal(read(volume), ARRAY)

    @FUZZED
    @hypothesis.given(damage=damages())
    def check(damage):
        kind, change = damage
        path.write_bytes(change(whole))
        found = attempt(read, volume)
        if isinstance(found, str):
            assert str(tmp_path) in found
            assert "\n" not in found
        elif kind == "cut":  # All of the image is there, or nothing is read.
            np.testing.assert_array_equal(found, ARRAY)

    check()


@pytest.mark.parametrize("name", FILES)
def test_an_empty_file_is_refused_and_nothing_is_left(tmp_path, name):
    path = tmp_path / name
    FILES[name](path)
    path.write_bytes(b"")
    volume = path if path.parent == tmp_path else path.parent
    with pytest.raises(ValueError, match=str(path)):
        convert(str(volume), str(tmp_path / "out.zarr"), voxel_size_nm=SIZE)
    assert not list(tmp_path.glob("out.zarr*"))


def say_huge(path, names):
    with tifffile.TiffFile(path, mode="r+") as tiff:
        for name in names:
            tiff.pages[0].tags[name].overwrite(4_000_000_000, dtype=4)


@pytest.mark.timeout(20)
@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.parametrize("names", ["ImageWidth ImageLength RowsPerStrip", "ImageLength"])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("name", ["a.tif", "folder/3.tif"])
def test_a_tiff_that_says_it_is_huge_is_refused(tmp_path, name, compression, names):
    """By the conversion itself, before it counts the blocks or makes anything of that size."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(path, ARRAY[0], compression=compression)
    say_huge(path, names.split())
    volume = path if name == "a.tif" else path.parent
    with pytest.raises(ValueError, match=rf"{path} says that a section .*4000000000.* put a whole"):
        convert(str(volume), str(tmp_path / "out.zarr"), voxel_size_nm=SIZE)
    assert not list(tmp_path.glob("out.zarr*"))


@pytest.mark.timeout(20)
def test_a_tiff_that_says_it_has_more_sections_than_it_holds_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ARRAY, metadata={"axes": "ZYX"})
    content = path.read_bytes()
    assert b"[5, 20, 24]" in content
    path.write_bytes(content.replace(b"[5, 20, 24]", b"[9, 20, 24]"))
    with pytest.raises(
        ValueError, match=rf"{path} .*9 sections.* holds \d whole ones.* put a whole"
    ):
        convert(str(path), str(tmp_path / "out.zarr"), voxel_size_nm=SIZE)


@pytest.mark.timeout(20)
def test_a_png_that_says_it_is_huge_is_refused(tmp_path):
    write_sections(tmp_path / "png", "png")
    for path in (tmp_path / "png").iterdir():
        content = bytearray(path.read_bytes())
        content[16:24] = struct.pack(">II", 2_000_000_000, 2_000_000_000)
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"0\.png says that it is 2000000000x.*put a whole copy"):
        convert(str(tmp_path / "png"), str(tmp_path / "out.zarr"), voxel_size_nm=SIZE)


@pytest.mark.timeout(20)
def test_a_volume_of_more_blocks_than_can_be_listed_is_refused(tmp_path):
    """An HDF5 dataset may be larger than its file: what is not there is zeros."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("raw", (1, 4_000_000_000, 4_000_000_000), "u1", chunks=(1, 64, 64))
    with pytest.raises(ValueError, match=r"a\.h5:/raw says that it is 1x4000000000.* larger shard"):
        convert(str(tmp_path / "a.h5:/raw"), str(tmp_path / "out.zarr"), voxel_size_nm=SIZE)
    assert not list(tmp_path.glob("out.zarr*"))


def test_an_npy_file_of_pickled_objects_is_refused(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    np.save(tmp_path / "a.npy", np.array([[[Hostile()]]]), allow_pickle=True)
    with pytest.raises(ValueError, match="not an npy file of numbers"):
        read(tmp_path / "a.npy")
    assert not (tmp_path / "executed").exists()


def test_unicode_and_spaces_in_paths(tmp_path):
    folder = tmp_path / "Gewebe für später — 脑 #1%"
    folder.mkdir()
    tifffile.imwrite(folder / "ä b.tif", ARRAY)
    write_h5(folder / "ö c.h5")
    for source in ("ä b.tif", "ö c.h5:/raw"):
        output = folder / f"{source[0]} aus.zarr"
        convert(str(folder / source), str(output), voxel_size_nm=SIZE)
        np.testing.assert_array_equal(open_volume(str(output)).store.read().result(), ARRAY)


def test_an_unknown_codec_is_named(tmp_path):
    converted(tmp_path, ARRAY)
    path = tmp_path / "a.zarr" / "0" / "zarr.json"
    metadata = json.loads(path.read_text())
    metadata["codecs"].append({"name": "homemade"})
    path.write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match=r"a\.zarr cannot be opened as zarr3: .*homemade"):
        open_volume(str(tmp_path / "a.zarr"))


def write_in_place(folder, driver, array, **spec):
    spec = {"driver": driver, "kvstore": {"driver": "file", "path": f"{folder}/"}, **spec}
    store = ts.open(spec, create=True).result()
    store.write(array).result()


def write_zarr3(folder):
    """Chunks of all but uncompressed grey values have checksums."""
    converted(folder.parent, ARRAY.astype(np.uint32))
    (folder.parent / "a.zarr").rename(folder)


def write_zarr2(group):
    compressed = {"chunks": [5, 20, 24], "compressor": {"id": "zlib", "level": 1}}
    metadata = {"shape": ARRAY.shape, "dtype": "|u1", **compressed}
    write_in_place(group / "0", "zarr", ARRAY, metadata=metadata)
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
    scale = [{"type": "scale", "scale": SIZE}, {"type": "translation", "translation": SIZE}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    multiscales = [{"axes": axes, "datasets": datasets}]
    (group / ".zattrs").write_text(json.dumps({"multiscales": multiscales}))


def write_n5(folder):
    metadata = {
        **{"dimensions": [24, 20, 5], "blockSize": [24, 20, 5], "dataType": "uint8"},
        **{"compression": {"type": "gzip"}, "resolution": SIZE[::-1], "units": ["nm"] * 3},
    }
    write_in_place(folder, "n5", ARRAY.T, metadata=metadata)


def write_precomputed(folder):
    write_in_place(
        *(folder, "neuroglancer_precomputed", ARRAY.T[..., None]),
        multiscale_metadata={"type": "image", "data_type": "uint8", "num_channels": 1},
        scale_metadata={
            **{"size": [24, 20, 5], "chunk_size": [24, 20, 5], "voxel_offset": [0, 0, 0]},
            **{"resolution": SIZE[::-1], "encoding": "raw"},
        },
    )


# Of each format that is read in place: what writes it, and the files in it that are damaged.
IN_PLACE = {
    "3.zarr": (write_zarr3, "zarr.json", "0/zarr.json", "0/c/0/0/0"),
    "2.zarr": (write_zarr2, ".zattrs", "0/.zarray", "0/0.0.0"),
    "a.n5": (write_n5, "attributes.json", "0/0/0"),
    "precomputed": (write_precomputed, "info", "5_6_30/0-24_0-20_0-5"),
}


def read_in_place(folder):
    """All of it, unless it says that it is enormous; then its corner."""
    volume = open_volume(str(folder))
    z, y, x = (min(size, 64) for size in volume.shape_zyx)
    return volume.read(Box((0, 0, 0), (z, y, x)))


def check_read(folder):
    """What is read, or None where an error names it."""
    found = attempt(read_in_place, folder)
    if not isinstance(found, str):
        return found
    assert str(folder) in found
    assert "\n" not in found
    return None


@pytest.mark.parametrize(
    ("name", "file"), [(name, file) for name, (_, *files) in IN_PLACE.items() for file in files]
)
def test_a_damaged_volume_is_named_or_read(tmp_path, name, file):
    folder, path = tmp_path / name, tmp_path / name / file
    IN_PLACE[name][0](folder)
    whole = path.read_bytes()
    np.testing.assert_array_equal(read_in_place(folder), ARRAY)
    said, without_checksum = whole.startswith(b"{"), name == "precomputed"

    @FUZZED
    @hypothesis.given(damage=damages())
    def check(damage):
        kind, change = damage
        path.write_bytes(change(whole))
        found = check_read(folder)
        if found is not None and not said and (kind == "cut" or not without_checksum):
            np.testing.assert_array_equal(found, ARRAY)

    check()


def variants(content):
    """What a JSON file holds, with one of its values replaced: each of them, by each of these."""
    yield from (None, -1, 0, 1.5, 1 << 31, 1 << 62, 10**400, math.nan, "", "a", [], [1], {})
    if isinstance(content, dict):
        for key, value in content.items():
            yield from (content | {key: other} for other in variants(value))
    if isinstance(content, list):
        for i, value in enumerate(content):
            yield from ([*content[:i], other, *content[i + 1 :]] for other in variants(value))


@pytest.mark.parametrize("name", IN_PLACE)
def test_metadata_that_say_something_else_are_named_or_read(tmp_path, name):
    """Among it what is absurd, such as chunks larger than any memory."""
    write, *files = IN_PLACE[name]
    write(tmp_path / name)
    for path in (tmp_path / name / file for file in files):
        whole = path.read_bytes()
        if whole.startswith(b"{"):
            for content in variants(json.loads(whole)):
                path.write_text(json.dumps(content))
                check_read(tmp_path / name)
            path.write_bytes(whole)


def test_metadata_that_are_nested_without_end_are_named(tmp_path):
    (tmp_path / ".zarray").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"\.zarray is not valid JSON"):
        open_volume(str(tmp_path))


def test_a_volume_that_vanishes_is_not_read_as_zeros(tmp_path):
    """tensorstore reads what is missing as zeros, as zarr has it."""
    whole = converted(tmp_path, ARRAY)
    everything = Box((0, 0, 0), whole.shape_zyx)
    for volume in (whole, whole.binned((1, 2, 2), "mean"), whole.cut("1:3,:,:")):
        volume.read(Box((0, 0, 0), volume.shape_zyx))
    (tmp_path / "a.zarr").rename(tmp_path / "gone")
    for volume in (whole, whole.binned((1, 2, 2), "mean"), whole.cut("1:3,:,:")):
        with pytest.raises(FileNotFoundError, match=r"a\.zarr/0 has vanished"):
            volume.read(Box((0, 0, 0), volume.shape_zyx))
    (tmp_path / "gone").rename(tmp_path / "a.zarr")
    np.testing.assert_array_equal(whole.read(everything), ARRAY)


def train_on(volume, steps):
    """Batches as training reads them, ahead and in threads."""
    read = reader([volume], [1.0], (2, 8, 8), seed=0)
    return batches(read, batch_size=4, first_step=0, last_step=steps)


def test_training_on_a_volume_that_vanishes_ends(tmp_path):
    reading = train_on(converted(tmp_path, ARRAY), 10_000)
    next(reading)
    (tmp_path / "a.zarr").rename(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=r"a\.zarr/0 has vanished since it was opened"):
        list(reading)


def test_training_on_what_is_no_number_ends(tmp_path):
    array = ARRAY.astype(np.float32)
    array[2] = np.nan
    with pytest.raises(
        ValueError, match=r"holds NaN or infinity at z, y, x = 2, \d+, \d+; expected"
    ):
        list(train_on(converted(tmp_path, array), 100))


def test_blocks_of_nothing_but_zeros_are_no_fault(tmp_path):
    volume = converted(tmp_path, np.zeros_like(ARRAY))
    assert not volume.read(Box((0, 0, 0), volume.shape_zyx)).any()
    assert [path.name for path in (tmp_path / "a.zarr/0").rglob("*.*")] == ["zarr.json"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_named_with_its_place(tmp_path, value):
    array = ARRAY.astype(np.float32)
    array[3, 10, 7] = value
    volume = converted(tmp_path, array).cut("1:5, 2:20, :")
    with pytest.raises(ValueError, match=r"holds NaN or infinity at z, y, x = 3, 10, 7; expected"):
        volume.read(Box((1, 0, 0), (4, 18, 24)))
    assert np.isfinite(volume.read(Box((0, 0, 0), (2, 18, 24)))).all()


def test_a_store_on_the_network_that_goes_away_is_an_error(tmp_path):
    converted(tmp_path, ARRAY)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    # By default tensorstore tries again for a quarter of an hour.
    retries = {"http_request_retries": {"max_retries": 2, "initial_delay": "10ms"}}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/a.zarr"
        volume = open_volume(url, context=ts.Context(retries))
        box = Box((0, 0, 0), volume.shape_zyx)
        np.testing.assert_array_equal(volume.read(box), ARRAY)
        server.shutdown()
    with pytest.raises(ValueError, match=rf"{url}/0 cannot be read .*bring it back"):
        volume.read(box)
    with pytest.raises(ValueError, match=rf"{url}/.* cannot be reached"):
        open_volume(url, context=ts.Context(retries))
