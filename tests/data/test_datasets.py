"""Where what a config calls a volume is found."""

import numpy as np
import tifffile

from maemem.data.convert import convert
from maemem.data.sets.datasets import open_dataset

IMAGE = np.random.default_rng(0).integers(0, 255, (5, 16, 20), np.uint8)


def test_a_stack_is_taken_where_there_is_no_zarr_of_its_name(tmp_path):
    stack, made = tmp_path / "set" / "image.tif", tmp_path / "set" / "image.zarr"
    stack.parent.mkdir()
    tifffile.imwrite(stack, IMAGE)
    where = {"root": str(tmp_path), "cache": tmp_path / "cache"}
    volume = open_dataset("set/image.zarr", voxel_size_nm=(30, 6, 5), **where)
    assert volume.source == str(stack)
    np.testing.assert_array_equal(volume.store.read().result(), IMAGE)
    convert(str(stack), str(made), voxel_size_nm=(30, 6, 5))
    volume = open_dataset("set/image.zarr", **where)
    assert volume.source == f"file://{made}/0"
    assert volume.voxel_size_nm == (30, 6, 5)
