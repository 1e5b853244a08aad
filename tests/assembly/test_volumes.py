"""Which intensities a volume may hold, and how a config bins it."""

import numpy as np
import pytest

from maemem.assembly.volumes import open_labels, open_raw, scored_box
from maemem.config import pretraining, volume
from maemem.geometry import Box


def opened(folder, dtype, intensity_range):
    """A volume of this dtype that spans 0 to 255, with this range in the config."""
    np.save(folder / "v.npy", np.arange(256).reshape(4, 8, 8).astype(dtype))
    config = pretraining()
    config.data.root, config.data.intensity_range = str(folder), intensity_range
    return open_raw(config, volume("v.npy", voxel_size_nm=(30.0, 6.0, 6.0)), folder)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_other_dtypes_than_uint8_must_name_their_range(dtype, tmp_path):
    with pytest.raises(ValueError, match=f"holds {dtype}, but data.intensity_range is empty"):
        opened(tmp_path, dtype, ())
    # Exports of 8-bit images into wider dtypes are common.
    assert opened(tmp_path, dtype, (0.0, 255.0)).dtype == dtype


def test_uint8_needs_no_range(tmp_path):
    assert opened(tmp_path, "uint8", ()).dtype == "uint8"


def test_images_and_labels_are_binned_alike(tmp_path):
    ids = np.repeat(np.repeat(np.arange(12).reshape(1, 3, 4), 2, axis=1), 2, axis=2)
    np.save(tmp_path / "raw.npy", (10 * ids).astype(np.uint8))
    np.save(tmp_path / "ids.npy", ids.astype(np.uint16))
    config = pretraining()
    config.data.root, config.data.bin_zyx = str(tmp_path), (1, 2, 2)
    entry = volume("raw.npy", labels="ids.npy", voxel_size_nm=(30.0, 6.0, 6.0), region=":, 1:, :")
    raw = open_raw(config, entry, tmp_path)
    labels = open_labels(config, entry, tmp_path, raw)
    assert raw.voxel_size_nm == labels.voxel_size_nm == (30.0, 12.0, 12.0)
    np.testing.assert_array_equal(labels.store.read().result(), ids[:, ::2, ::2])
    np.testing.assert_array_equal(raw.store.read().result(), 10 * ids[:, ::2, ::2])
    assert scored_box(entry, raw) == Box((0, 1, 0), (1, 3, 4))
