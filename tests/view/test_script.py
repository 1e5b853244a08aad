"""The script gives napari the arrays, where they lie; here napari only takes note."""

import runpy
import sys
import types

import numpy as np

from maemem.view.scene import read_scene
from maemem.view.script import napari_script


class Viewer:
    """Records what is added to it."""

    made: "list[Viewer]" = []  # noqa: RUF012

    def __init__(self, title):
        self.title, self.layers = title, {}
        self.made.append(self)

    def _add(self, data, *, name, **look):
        self.layers[name] = data, look

    add_image = add_labels = add_points = _add


def test_the_script_opens_every_layer_in_its_place(config, workdir, tmp_path, monkeypatch):
    scene = read_scene(config, workdir)
    script = tmp_path / "view.py"
    script.write_text(napari_script(scene))
    ran = []
    fake = types.SimpleNamespace(Viewer=Viewer, run=lambda: ran.append(True))
    monkeypatch.setitem(sys.modules, "napari", fake)
    runpy.run_path(str(script))
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
