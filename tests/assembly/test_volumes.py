"""Which volumes a config opens, which intensities they may hold, and how it bins them."""

import numpy as np
import pytest

from maemem.assembly.volumes import open_mix, open_raw, open_truth, scored_box
from maemem.config import pretraining, volume
from maemem.data.samples.pipeline import reader
from maemem.data.truth import LabelVolume
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
    truth = open_truth(config, entry, tmp_path, raw)
    assert isinstance(truth, LabelVolume)
    labels = truth.volume
    assert raw.voxel_size_nm == labels.voxel_size_nm == (30.0, 12.0, 12.0)
    np.testing.assert_array_equal(labels.store.read().result(), ids[:, ::2, ::2])
    np.testing.assert_array_equal(raw.store.read().result(), 10 * ids[:, ::2, ::2])
    assert scored_box(entry, raw) == Box((0, 1, 0), (1, 3, 4))


def made_set(folder):
    """A config with one volume that has labels and one that has none, both of the same size."""
    size = (30.0, 6.0, 6.0)
    for name in ("a", "b"):
        np.save(folder / f"{name}.npy", np.arange(8 * 16 * 16, dtype=np.uint8).reshape(8, 16, 16))
    np.save(folder / "ids.npy", np.arange(8 * 16 * 16, dtype=np.uint16).reshape(8, 16, 16))
    config = pretraining()
    config.data.root, config.data.crop_zyx = str(folder), (2, 8, 8)
    config.data.train.plain = volume("a.npy", voxel_size_nm=size, weight=3.0)
    config.data.train.labelled = volume(
        "b.npy", labels="ids.npy", unlabelled=5, voxel_size_nm=size, region="2:, :, :", weight=2.0
    )
    return config


def test_a_mix_without_fields_has_every_volume_and_no_truth(tmp_path):
    mix = open_mix(made_set(tmp_path), "train", tmp_path)
    assert sorted(mix.weights) == [2.0, 3.0]
    assert {each.shape_zyx for each in mix.volumes} == {(8, 16, 16), (6, 16, 16)}
    assert mix.truths == []


def test_a_mix_with_fields_has_the_volumes_whose_truth_gives_them(tmp_path):
    mix = open_mix(made_set(tmp_path), "train", tmp_path, ("labels",))
    assert mix.weights == [2.0]
    (raw,), (truth,) = mix.volumes, mix.truths
    assert raw.shape_zyx == truth.shape_zyx == (6, 16, 16)
    ids = truth.read(Box((0, 0, 0), (6, 16, 16)))
    assert ids[0, 0, 0] == 2 * 256
    read = reader(mix.volumes, mix.weights, (2, 8, 8), 0, mix.truths, ("labels",))
    assert read(range(3)).keys() == {"image", "labels"}


@pytest.mark.parametrize("fields", [("labels",), ("labels", "trees")])
def test_a_mix_of_which_no_truth_gives_the_fields_is_refused(fields, tmp_path):
    config = made_set(tmp_path)
    if fields == ("labels",):
        del config.data.train.labelled
    message = f"no volume of data.train has {' and '.join(fields)}; name them in its field `labels`"
    with pytest.raises(ValueError, match=message):
        open_mix(config, "train", tmp_path, fields)
