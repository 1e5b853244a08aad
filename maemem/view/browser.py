"""A scene in neuroglancer: served by this process, or as a state with addresses of arrays."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import pathlib
import urllib.parse
from collections.abc import Callable, Sequence

import neuroglancer
import numpy as np
import tensorstore as ts
from neuroglancer.json_utils import json_encoder_default
from neuroglancer.segment_colors import hex_string_from_segment_id

from maemem.data.stores.formats import read_layout
from maemem.view.scene import Layer, Scene

log = logging.getLogger(__name__)

_UNKNOWN = ("float16", "int64")  # Neuroglancer does not read these from files.
_SURFACE_VOXELS = 200_000_000  # Larger volumes have no surfaces, which need all voxels in memory.
_MATCHES = 5_000  # At most so many segments get the colour of their object.
_PANEL = 300  # About how many pixels the scored part fills at first.

# Makes the data source of a layer, with its position in the volume.
Source = Callable[[Layer], neuroglancer.LayerDataSource]

_PROBABILITY_SHADER = """
#uicontrol vec3 color color(default="%s")
void main() {
  emitRGB(color() * toNormalized(getDataValue()));
}
"""
_SPOT_COLOURS = {"split": "#40a0ff", "merge": "#ff4040", "both": "#c050ff"}
_SPOT_SHADER = """
void main() {
  setColor(prop_color());
  setPointMarkerSize(9.0);
}
"""


def served(layer: Layer) -> neuroglancer.LayerDataSource:
    """Serves an array from this process, chunk by chunk."""
    labels = layer.kind == "labels"
    volume = neuroglancer.LocalVolume(
        _displayable(layer),
        _space("zyx", layer.voxel_size_nm),
        volume_type="segmentation" if labels else "image",
        voxel_offset=layer.start_zyx,
    )
    surfaces = labels and math.prod(layer.store.shape) <= _SURFACE_VOXELS
    subsources = {} if surfaces or not labels else {"mesh": False}
    return neuroglancer.LayerDataSource(url=volume, subsources=subsources)


def addressed(address: Callable[[str], str]) -> Source:
    """Sources by address, which any neuroglancer can read.

    Args:
      address: maps a tensorstore URL, such as `file:///data/raw.zarr/0/|zarr3:`, to a public one;
        raises ValueError if there is none.
    """

    def source(layer: Layer) -> neuroglancer.LayerDataSource:
        store, size_nm = layer.store, layer.voxel_size_nm
        if store.base is not None:
            # Binned on reading: the array of finer voxels has an address.
            z, y, x = np.array(size_nm) / store.spec().to_json()["downsample_factors"]
            store, size_nm = store.base, (z, y, x)
        axes = _axes(store)
        names, starts, sizes = list("zyx"), list(layer.start_zyx), list(size_nm)
        matrix, stored_sizes = np.zeros((len(axes), len(axes) + 1)), []
        for axis, (_, output) in enumerate(axes):
            row = output.input_dimension
            if row is None:  # A channel or time: position 0 on a local axis of the layer.
                row = len(names)
                names, starts, sizes = [*names, f"axis{axis}'"], [*starts, 0], [*sizes, 0]
            matrix[row, axis], matrix[row, -1] = 1, starts[row] - output.offset
            stored_sizes.append(sizes[row])
        return neuroglancer.LayerDataSource(
            url=address(store.url),
            transform=neuroglancer.CoordinateSpaceTransform(
                input_dimensions=_space([name for name, _ in axes], stored_sizes),
                output_dimensions=_space(names, sizes),
                matrix=matrix,
            ),
        )

    return source


def _axes(store: ts.TensorStore) -> list[tuple[str, ts.OutputIndexMap]]:
    """Neuroglancer's name of each stored axis, and how the axis maps to the store's."""
    kvstore, turn = store.kvstore, store.spec().transform
    layout = read_layout(kvstore) if kvstore else None
    if layout is None or turn is None:
        raise ValueError(f"{store} is not stored in a format that neuroglancer can read")
    prefix = "dim_" if layout.driver == "zarr3" else "d"
    names = layout.axes or [f"{prefix}{axis}" for axis in range(turn.output_rank)]
    if layout.driver == "neuroglancer_precomputed":
        names = names[:3]  # Neuroglancer has no axis for its single channel.
    return [(name, turn.output[axis]) for axis, name in enumerate(names)]


def _space(names: Sequence[str], sizes_nm: Sequence[float]) -> neuroglancer.CoordinateSpace:
    """A space of axes with voxel sizes in nm; 0: without a unit."""
    return neuroglancer.CoordinateSpace(
        names=names,
        units=["nm" if size else "" for size in sizes_nm],
        scales=[size or 1 for size in sizes_nm],
    )


def _displayable(layer: Layer) -> ts.TensorStore:
    """An array in a type that neuroglancer has; unlabelled voxels become 0."""
    dtype = layer.store.dtype.numpy_dtype
    if dtype == np.float16:
        return ts.cast(layer.store, ts.float32)
    if layer.kind != "labels" or (layer.unlabelled < 0 and dtype.kind == "u"):
        return layer.store

    def read(domain: ts.IndexDomain, array: np.ndarray, _) -> None:
        ids = layer.store[domain].read().result()
        if layer.unlabelled >= 0:
            ids = np.where(ids == layer.unlabelled, 0, ids)
        array[...] = np.maximum(ids, 0)

    return ts.virtual_chunked(read, dtype=ts.uint64, shape=layer.store.shape)


def serve(scene: Scene, address: str, port: int) -> str:
    """Serves a scene and neuroglancer until the process ends; returns the URL."""
    neuroglancer.set_server_bind_address(address, port)
    viewer = neuroglancer.Viewer()
    viewer.set_state(state(scene, served))
    return viewer.get_viewer_url()


def addressed_state(scene: Scene, address: Callable[[str], str]) -> str:
    """The state of a scene as JSON, for another neuroglancer; `address` as in `addressed`."""
    layers = []
    for layer in scene.layers:
        if layer.store.dtype.name in _UNKNOWN:
            log.warning(
                "%s is left out: it holds %s, which neuroglancer does not read from files",
                *(layer.name, layer.store.dtype.name),
            )
        else:
            layers.append(layer)
    result = state(dataclasses.replace(scene, layers=tuple(layers)), addressed(address))
    return json.dumps(result.to_json(), indent=1, default=json_encoder_default) + "\n"


def web_address(url_prefix: str, folder: pathlib.Path) -> Callable[[str], str]:
    """Maps URLs of local arrays to those of a web server that serves a folder at `url_prefix`.

    Neuroglancer shares the syntax of tensorstore's URLs; those that are not local stay.

    Raises:
      ValueError: when called with a local array outside of the folder.
    """
    root = folder.expanduser().resolve()

    def address(url: str) -> str:
        if not url.startswith("file://"):
            return url
        path, *formats = url.removeprefix("file://").split("|")
        try:
            inside = pathlib.Path(urllib.parse.unquote(path)).resolve().relative_to(root)
        except ValueError:
            raise ValueError(
                f"{urllib.parse.unquote(path)} is not in {root}, which is served; serve a folder "
                f"that holds all, and name it with --folder"
            ) from None
        slash = "/" if path.endswith("/") else ""
        where = f"{url_prefix.rstrip('/')}/{urllib.parse.quote(str(inside))}{slash}"
        return "|".join([where, *formats])

    return address


def state(scene: Scene, source: Source) -> neuroglancer.ViewerState:
    """The state of neuroglancer for a scene, with truth and segmentation side by side.

    Args:
      scene: what to show.
      source: `served`, or from `addressed`.
    """
    result = neuroglancer.ViewerState()
    result.title = scene.title
    # In this order neuroglancer shows x to the right and y down.
    result.dimensions = _space("xyz", scene.voxel_size_nm[::-1])
    bounds = zip(scene.scored.start_zyx, scene.scored.stop_zyx, strict=True)
    result.position = [(a + b) // 2 + 0.5 for a, b in bounds][::-1]
    size_nm = np.array(scene.voxel_size_nm)
    extent = np.max(size_nm * scene.scored.shape_zyx) / np.min(size_nm)
    result.cross_section_scale = extent / _PANEL
    result.cross_section_background_color = "#000000"  # Probabilities are added to it.
    result.projection_scale = 2 * extent
    for layer in scene.layers:
        where = source(layer)
        shown = _LAYERS[layer.kind](scene, layer, where)
        if where.transform is not None:
            own = where.transform.output_dimensions.names[3:]
            shown.local_dimensions = _space(own, [0] * len(own))
            shown.local_position = [0.5] * len(own)
        # Probabilities would hide the layers below.
        visible = layer.kind != "probability"
        result.layers.append(name=layer.name, layer=shown, visible=visible)
    if scene.spots:
        result.layers.append(name="errors", layer=_spots(scene))
        result.selected_layer = {"layer": "errors", "visible": True}
    names = [layer.name for layer in result.layers]
    if {"segmentation", "truth"} <= set(names):
        groups = [[n for n in names if n != other] for other in ("truth", "segmentation")]
        viewers = [neuroglancer.LayerGroupViewer(layers=g, layout="4panel") for g in groups]
        result.layout = neuroglancer.row_layout(viewers)
    else:
        result.layout = "4panel"
    return result


def _image(
    scene: Scene, layer: Layer, source: neuroglancer.LayerDataSource
) -> neuroglancer.ImageLayer:
    controls = {"normalized": {"range": scene.intensity_range}}
    return neuroglancer.ImageLayer(source=source, opacity=1.0, shader_controls=controls)


def _probability(
    scene: Scene, layer: Layer, source: neuroglancer.LayerDataSource
) -> neuroglancer.ImageLayer:
    return neuroglancer.ImageLayer(
        source=source,
        shader=_PROBABILITY_SHADER % layer.colour,
        blend="additive",
        opacity=1.0,
    )


def _labels(
    scene: Scene, layer: Layer, source: neuroglancer.LayerDataSource
) -> neuroglancer.SegmentationLayer:
    """Labels; a correct segment has the colour of its true object."""
    result = neuroglancer.SegmentationLayer(source=source)
    if layer.name == "segmentation":
        result.color_seed = 1  # Else wrong segments had the colours of objects with equal ids.
        result.segment_colors = {
            segment: hex_string_from_segment_id(0, truth)
            for segment, truth in list(scene.matches.items())[:_MATCHES]
        }
    return result


_LAYERS = {"image": _image, "probability": _probability, "labels": _labels}


def _spots(scene: Scene) -> neuroglancer.LocalAnnotationLayer:
    """A point for each error, largest first; selecting it selects its segment and true object."""
    return neuroglancer.LocalAnnotationLayer(
        tab="annotations",
        dimensions=_space("zyx", scene.voxel_size_nm),
        annotation_relationships=["segmentation", "truth"],
        linked_segmentation_layer={"segmentation": "segmentation", "truth": "truth"},
        annotation_properties=[
            neuroglancer.AnnotationPropertySpec(id="color", type="rgb", default="#ffffff")
        ],
        shader=_SPOT_SHADER,
        annotations=[
            neuroglancer.PointAnnotation(
                id=str(i),
                point=[n + 0.5 for n in spot.centre_zyx],
                description=f"{i}: {spot.kind}, {spot.voxels:,} voxels of object {spot.truth} in "
                f"segment {spot.predicted}",
                props=[_SPOT_COLOURS[spot.kind]],
                segments=[[spot.predicted], [spot.truth]],
            )
            for i, spot in enumerate(scene.spots, 1)
        ],
    )
