"""Conversion of every kind of input, and the inputs that are refused."""

from pathlib import Path

import h5py
import imagecodecs
import numpy as np
import pytest
import tifffile

from maemem.data.convert import convert
from maemem.data.stores.readers import is_foreign
from maemem.data.stores.volumes import open_volume

SIZE = (30.0, 6.0, 5.0)
SHAPE = (11, 70, 45)


def values(shape, dtype=np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 250, shape).astype(dtype)


def check(source, output, array) -> None:
    convert(str(source), str(output), voxel_size_nm=SIZE)
    volume = open_volume(str(output))
    np.testing.assert_array_equal(volume.store.read().result(), array)
    assert volume.dtype == array.dtype
    assert volume.voxel_size_nm == SIZE


def write_sections(folder: Path, array: np.ndarray, suffix: str) -> Path:
    folder.mkdir()
    for z, section in enumerate(array):
        path = folder / f"s{z}.{suffix}"  # s10 sorts before s2 as text
        if suffix == "png":
            path.write_bytes(imagecodecs.png_encode(section))
        else:
            tifffile.imwrite(path, section, compression="lzw")
    return folder


TIFF_KINDS = {
    "plain": {},
    "deflate": {"compression": "zlib"},
    "tiled": {"compression": "zstd", "tile": (16, 32)},
    "bigtiff": {"bigtiff": True, "compression": "lzw"},
    "bigendian": {"byteorder": ">", "compression": "zlib"},
    "bigendian-contiguous": {"byteorder": ">"},
    "imagej": {"imagej": True, "metadata": {"axes": "ZYX"}},
    "ome": {"ome": True, "metadata": {"axes": "ZYX"}, "compression": "zlib"},
}


@pytest.mark.parametrize("kind", TIFF_KINDS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_tiff(tmp_path, kind, dtype):
    array = values(SHAPE, dtype)
    tifffile.imwrite(tmp_path / "a.tif", array, **TIFF_KINDS[kind])
    check(tmp_path / "a.tif", tmp_path / "a.zarr", array)


def test_imagej_stack_beyond_its_only_page(tmp_path):
    # ImageJ writes stacks of more than 4 GB so: one directory, and all sections after its first.
    array = values(SHAPE, np.uint16)
    text = f"ImageJ=1.53\nimages={SHAPE[0]}\nslices={SHAPE[0]}\n"
    tifffile.imwrite(tmp_path / "a.tif", array[0], description=text, metadata=None)
    with (tmp_path / "a.tif").open("r+b") as file:
        with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
            file.seek(tiff.pages[0].dataoffsets[0])
        file.write(array.tobytes())
    check(tmp_path / "a.tif", tmp_path / "a.zarr", array)


def test_tiff_of_sections_that_were_appended(tmp_path):
    array = values(SHAPE)
    for section in array:
        tifffile.imwrite(tmp_path / "a.tif", section, append=True, compression="zlib")
    check(tmp_path / "a.tif", tmp_path / "a.zarr", array)
    tifffile.imwrite(tmp_path / "a.tif", array[0, 1:], append=True)
    with pytest.raises(ValueError, match="holds 12 images of 69x45, 70x45, expected one stack"):
        convert(str(tmp_path / "a.tif"), str(tmp_path / "b.zarr"), voxel_size_nm=SIZE)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_folder_of_sections(tmp_path, suffix, dtype):
    array = values(SHAPE, dtype)
    check(write_sections(tmp_path / "s", array, suffix), tmp_path / "a.zarr", array)


def test_hdf5(tmp_path):
    array = values(SHAPE, ">u2")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("volumes/raw", data=array, chunks=(4, 16, 16), compression="gzip")
    native = array.astype(np.uint16)
    check(f"{tmp_path}/a.h5:/volumes/raw", tmp_path / "a.zarr", native)
    check(tmp_path / "a.h5", tmp_path / "b.zarr", native)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["labels"] = values(SHAPE, np.uint64)
    check(f"{tmp_path}/a.h5:/labels", tmp_path / "c.zarr", values(SHAPE, np.uint64))
    for name in ("", ":/nothing"):
        with pytest.raises(ValueError, match="three dimensions: /labels, /volumes/raw"):
            convert(f"{tmp_path}/a.h5{name}", str(tmp_path / "d.zarr"), voxel_size_nm=SIZE)


def test_npy(tmp_path):
    array = values(SHAPE, np.int16)
    np.save(tmp_path / "a.npy", array)
    check(tmp_path / "a.npy", tmp_path / "a.zarr", array)
    np.save(tmp_path / "f.npy", np.asfortranarray(array))
    check(tmp_path / "f.npy", tmp_path / "f.zarr", array)


def test_inputs_that_are_refused(tmp_path):
    def refused(name: str, message: str, error=ValueError, **options) -> None:
        options = {"voxel_size_nm": SIZE, **options}
        with pytest.raises(error, match=message):
            convert(str(tmp_path / name), str(tmp_path / "out.zarr"), **options)
        assert not (tmp_path / "out.zarr.partial").exists()

    refused("no.tif", "does not exist", FileNotFoundError)
    refused("no.zarr", "does not exist", FileNotFoundError)
    for name in ("bad.tif", "bad.h5", "bad.npy"):
        (tmp_path / name).write_bytes(b"these are no voxels")
        refused(name, r"is not a.? (TIFF|HDF5|npy) file")
    tifffile.imwrite(tmp_path / "rgb.tif", values((4, 20, 20, 3)), photometric="rgb")
    refused("rgb.tif", "colour image")
    tifffile.imwrite(tmp_path / "4d.tif", values((2, 3, 20, 20)), photometric="minisblack")
    refused("4d.tif", "expected one stack")
    np.save(tmp_path / "a.npy", values(SHAPE))
    refused("a.npy", "does not say its voxel size", voxel_size_nm=None)
    refused("a.npy", "three positive lengths", voxel_size_nm=(1, 1, -1))
    refused("a.npy", "not a multiple of chunk", chunk_zyx=(4, 4, 4), shard_zyx=(4, 4, 6))
    np.save(tmp_path / "2d.npy", values((4, 4)))
    refused("2d.npy", "expected three dimensions")
    np.save(tmp_path / "f8.npy", values(SHAPE, np.float64))
    refused("f8.npy", "of float64; expected")
    np.save(tmp_path / "o.npy", np.array([[[None]]]), allow_pickle=True)
    refused("o.npy", "not an npy file of numbers")


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sections_that_differ_are_named(tmp_path, suffix):
    folder = write_sections(tmp_path / "s", values((3, 8, 9)), suffix)
    write_sections(tmp_path / "t", values((3, 8, 10)), suffix)
    (tmp_path / f"t/s2.{suffix}").rename(folder / f"s2.{suffix}")
    with pytest.raises(
        ValueError, match=rf"s2\.{suffix} is 8x10 of uint8, and s0\.{suffix} is 8x9"
    ):
        convert(str(folder), str(tmp_path / "a.zarr"), voxel_size_nm=SIZE)
    write_sections(tmp_path / "rgb", values((1, 8, 10, 3)), suffix)
    with pytest.raises(ValueError, match="colour"):
        convert(str(tmp_path / "rgb"), str(tmp_path / "a.zarr"), voxel_size_nm=SIZE)


def test_is_foreign(tmp_path):
    write_sections(tmp_path / "sections", values((2, 8, 9)), "png")
    tifffile.imwrite(tmp_path / "a.tif", values(SHAPE))
    check(tmp_path / "a.tif", tmp_path / "a.zarr", values(SHAPE))
    (tmp_path / "a.zarr/thumbnail.png").touch()
    for path in ("a.tif", "b.TIFF", "c.h5", "c.h5:/raw", "c.hdf5:raw", "d.npy", "sections"):
        assert is_foreign(str(tmp_path / path))
    for path in (
        str(tmp_path / "a.zarr"),
        str(tmp_path / "no"),
        "gs://b/a.tif",
        "https://h/a.zarr",
    ):
        assert not is_foreign(path)
