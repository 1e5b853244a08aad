"""Which intensities a volume may hold."""

import numpy as np
import pytest

from maemem.build.volumes import open_raw
from maemem.config import pretraining, volume


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
