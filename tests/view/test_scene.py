"""What there is to see is found, lies where it belongs, and what is not there is said."""

import shutil

import numpy as np
import pytest

from maemem.assembly.volumes import open_raw, open_truth
from maemem.geometry import Box
from maemem.view.scene import read_scene
from maemem.workdir import read_config


def test_layers_lie_over_the_raw_volume(config, workdir):
    scene = read_scene(read_config(workdir), workdir)
    assert [layer.name for layer in scene.layers] == [
        *("raw", "prediction z-1", "prediction y-1", "prediction x-1", "truth", "segmentation")
    ]
    layers = {layer.name: layer for layer in scene.layers}
    assert scene.voxel_size_nm == (30, 6, 6)
    raw = np.asarray(layers["raw"].store)
    predicted = layers["prediction x-1"]
    assert predicted.start_zyx == layers["segmentation"].start_zyx == (1, 0, 8)
    np.testing.assert_array_equal(np.asarray(predicted.store), raw[1:8, :, 8:])
    entry = config.data.test.tissue
    truth = open_truth(config, entry, workdir, open_raw(config, entry, workdir))
    whole = Box((0, 0, 0), truth.shape_zyx)
    np.testing.assert_array_equal(np.asarray(layers["truth"].store), truth.read(whole))
    assert (scene.scored.start_zyx, scene.scored.stop_zyx) == ((2, 0, 8), (8, 64, 60))


def test_errors_are_where_the_truth_and_the_segmentation_differ(config, workdir):
    scene = read_scene(config, workdir)
    layers = {layer.name: layer for layer in scene.layers}
    truth, segments = (np.asarray(layers[name].store) for name in ("truth", "segmentation"))
    (spot,) = scene.spots
    z, y, x = spot.centre_zyx
    assert spot.kind == "merge"
    assert truth[z, y, x] == spot.truth
    assert segments[z - 1, y, x - 8] == spot.predicted != spot.truth
    # All others are found, under their own ids.
    assert scene.matches
    assert spot.truth not in scene.matches
    assert all(segment == truth for segment, truth in scene.matches.items())


def test_what_is_not_segmented_yet_is_shown_without(config, workdir, tmp_path):
    shutil.copytree(workdir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "segment")
    scene = read_scene(config, tmp_path / "run")
    assert [layer.kind for layer in scene.layers] == ["image", *["probability"] * 3, "labels"]
    assert not scene.spots


def test_where_there_is_nothing_yet_the_stages_to_run_are_named(config, tmp_path):
    with pytest.raises(ValueError, match="no prediction of test tissue yet; run the stages"):
        read_scene(config, tmp_path)


def test_a_volume_that_is_not_there_is_answered_with_those_that_are(config, workdir):
    with pytest.raises(ValueError, match="its volumes are --set=test --name=tissue"):
        read_scene(config, workdir, volume="tisue")
    with pytest.raises(ValueError, match="its volumes are --set=test --name=tissue"):
        read_scene(config, workdir, name="train")


def test_a_folder_that_is_no_workdir(tmp_path):
    with pytest.raises(FileNotFoundError, match="no workdir of a run"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        read_config(tmp_path)
