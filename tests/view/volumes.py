"""One array on disk, in all formats that maemem reads in place."""

import tensorstore as ts

from maemem.data.stores.volumes import open_volume

SIZE = (40.0, 8.0, 4.0)


def zarr(path, *, driver="zarr3", array, labels=None):
    """An array on disk, opened."""
    spec = {"driver": driver, "kvstore": {"driver": "file", "path": f"{path}/"}}
    domain = ts.IndexDomain(shape=array.shape, labels=labels)
    store = ts.open(spec, dtype=array.dtype, domain=domain, create=True).result()
    store.write(array).result()
    return store


def precomputed(path, *, array, voxel_offset):
    """The same as a precomputed volume, whose axes are x y z."""
    scale = {
        "size": array.shape[::-1],
        "resolution": SIZE[::-1],
        "voxel_offset": voxel_offset,
        "encoding": "raw",
        "chunk_size": [16, 16, 16],
    }
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": f"{path}/"},
        "multiscale_metadata": {"type": "image", "data_type": "uint8", "num_channels": 1},
        "scale_metadata": scale,
    }
    store = ts.open(spec, create=True).result()
    store[..., 0].write(array.T).result()


def volumes(path, array):
    """One array in several formats, by what is particular about it."""
    zarr(path / "named", array=array.transpose(2, 0, 1), labels=["x", "z", "y"])
    zarr(path / "nameless", array=array, driver="zarr")
    zarr(path / "n5", array=array.T, driver="n5")
    precomputed(path / "offset", array=array, voxel_offset=[100, 200, 300])
    for name in ("named", "nameless", "n5", "offset"):
        yield name, open_volume(str(path / name), voxel_size_nm=SIZE)
