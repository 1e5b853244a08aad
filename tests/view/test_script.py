"""The script gives napari the arrays, where they lie."""

import runpy
import sys
import types

import numpy as np
import pytest

from maemem.view.scene import read_scene
from maemem.view.script import napari_script


class Viewer:
    """Stands in for napari's, and records what is added to it."""

    made: "list[Viewer]" = []  # noqa: RUF012

    def __init__(self, title):
        self.title, self.layers = title, {}
        self.made.append(self)

    def _add(self, data, *, name, **look):
        self.layers[name] = data, look

    add_image = add_labels = add_points = _add


def run_script(scene, folder):
    script = folder / "view.py"
    script.write_text(napari_script(scene))
    runpy.run_path(str(script))


def test_the_script_opens_every_layer_in_its_place(config, workdir, tmp_path, monkeypatch):
    scene = read_scene(config, workdir)
    ran = []
    fake = types.SimpleNamespace(Viewer=Viewer, run=lambda: ran.append(True))
    monkeypatch.setitem(sys.modules, "napari", fake)
    run_script(scene, tmp_path)
    (viewer,) = Viewer.made
    assert ran
    assert list(viewer.layers) == [*(layer.name for layer in scene.layers), "errors"]
    for layer in scene.layers:
        data, look = viewer.layers[layer.name]
        np.testing.assert_array_equal(np.asarray(data), np.asarray(layer.store))
        assert look["scale"] == (30, 6, 6)
        assert look["units"] == "nm"
    assert viewer.layers["raw"][1]["translate"] == (0, 0, 0)
    assert viewer.layers["segmentation"][1]["translate"] == (30, 0, 48)
    assert viewer.layers["prediction y-1"][1]["translate"] == (30, 0, 48)
    places, look = viewer.layers["errors"]
    assert places == [spot.centre_zyx for spot in scene.spots]
    assert look["scale"] == (30, 6, 6)


def test_napari_itself_has_every_value_in_its_place(config, workdir, tmp_path, monkeypatch):
    napari = pytest.importorskip("napari", reason="napari is not installed")
    from napari.components import ViewerModel  # All of a viewer but its window.

    made = []

    def open_viewer(title):
        made.append(ViewerModel(title=title))
        return made[0]

    monkeypatch.setattr(napari, "Viewer", open_viewer)
    monkeypatch.setattr(napari, "run", lambda: None)
    scene = read_scene(config, workdir)
    run_script(scene, tmp_path)
    (viewer,), (spot,) = made, scene.spots
    assert [layer.name for layer in viewer.layers] == [*(la.name for la in scene.layers), "errors"]
    box = scene.scored
    places = np.random.default_rng(0).integers(box.start_zyx, box.stop_zyx, (20, 3))
    for place in (spot.centre_zyx, *places):
        place_nm = np.multiply(place, scene.voxel_size_nm)
        viewer.dims.set_point(range(3), place_nm)
        for layer in scene.layers:
            viewer.layers[layer.name].visible = True  # Or it has no values.
            found = viewer.layers[layer.name].get_value(place_nm, world=True)
            assert found == np.asarray(layer.store)[tuple(np.subtract(place, layer.start_zyx))]
        if place is spot.centre_zyx:
            assert viewer.layers["errors"].get_value(place_nm, world=True) == 0
