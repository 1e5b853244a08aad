"""A scene as a Python script that opens it in napari."""

from __future__ import annotations

import pprint

from maemem.geometry import Zyx
from maemem.view.scene import Layer, Scene

_HEAD = '''"""{title}, in napari: pip install 'napari[all]' tensorstore, then run this file."""

import napari
import tensorstore as ts

viewer = napari.Viewer(title={title!r})
'''

_SPOT_COLOURS = {"split": "dodgerblue", "merge": "red", "both": "purple"}


def napari_script(scene: Scene) -> str:
    """The source of the script; it reads the arrays where they are, as they are shown."""
    parts = [_HEAD.format(title=scene.title)]
    parts += [_layer(scene, layer) for layer in scene.layers]
    if scene.spots:
        parts.append(_spots(scene))
    parts.append("napari.run()\n")
    return "\n".join(parts)


def _layer(scene: Scene, layer: Layer) -> str:
    spec = layer.store.spec(minimal_spec=True).to_json()
    place = _place(layer.start_zyx, scene)
    lines = [f"store = ts.open({pprint.pformat(spec, sort_dicts=False)}, read=True).result()"]
    if layer.kind == "labels":
        # The truth would hide the segmentation.
        look = f"opacity=0.4, visible={layer.name != 'truth'}"
        lines.append(f"viewer.add_labels(store, name={layer.name!r}, {look}, {place})")
    elif layer.kind == "image":
        limits = f"contrast_limits={scene.intensity_range}"
        lines.append(f"viewer.add_image(store, name={layer.name!r}, {limits}, {place})")
    else:
        limits = (0, 255) if layer.store.dtype.name == "uint8" else (0, 1)
        look = f"colormap={layer.colour!r}, blending='additive', visible=False"
        lines.append(
            f"viewer.add_image(store, name={layer.name!r}, contrast_limits={limits}, {look}, "
            f"{place})"
        )
    return "\n".join([*lines, ""])


def _place(start_zyx: Zyx, scene: Scene) -> str:
    start = zip(start_zyx, scene.voxel_size_nm, strict=True)
    translate = tuple(n * size for n, size in start)
    return f"scale={scene.voxel_size_nm}, translate={translate}, units='nm'"


def _spots(scene: Scene) -> str:
    rows = [
        (spot.centre_zyx, f"{spot.kind} {spot.truth} / {spot.predicted}", _SPOT_COLOURS[spot.kind])
        for spot in scene.spots
    ]
    return (
        f"# Of each error its place in z y x, its kind, object / segment, and its colour.\n"
        f"spots = {pprint.pformat(rows)}\n"
        f"viewer.add_points(\n"
        f"    [place for place, _, _ in spots], name='errors', size=6, opacity=0.8,\n"
        f"    text=[text for _, text, _ in spots], face_color=[colour for _, _, colour in spots],\n"
        f"    {_place((0, 0, 0), scene)},\n"
        f")\n"
    )
