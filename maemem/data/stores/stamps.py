"""Stamps: hashes that change when another volume is written to the same place."""

from __future__ import annotations

import hashlib
import os

import tensorstore as ts

from maemem.data.stores import formats
from maemem.data.stores.formats import Layout

_PRECOMPUTED = "info"


def stamp(layout: Layout) -> str:
    """A hash of the metadata of an array and of its group, and of when they were written.

    That is the time of modification of a local file, or the generation of an object in a bucket; a
    server that gives neither leaves the content alone. No voxel is read, so new chunks under the
    same metadata go unnoticed.

    Raises:
      ValueError: if the storage cannot be reached.
    """
    place, keys = layout.kvstore, [key for key in formats.METADATA_KEYS if key != _PRECOMPUTED]
    folders = [place, *(parent for parent, _ in formats.ancestors(place, 1))]
    if layout.driver == "neuroglancer_precomputed":  # It has no groups.
        folders, keys = [place], [_PRECOMPUTED]
    found = hashlib.sha256()
    with formats.reaching(place):
        # All at once: each request to a bucket takes long.
        asked = [(where, key, where.read(key)) for where in folders for key in keys]
        for where, key, reading in asked:
            answer = reading.result(timeout=formats.TIMEOUT_SECONDS)
            if answer.state == "value":
                for part in (key.encode(), answer.value, _written(where, key, answer)):
                    found.update(hashlib.sha256(part).digest())
    return found.hexdigest()[:16]


def _written(place: ts.KvStore, key: str, answer: ts.KvStore.ReadResult) -> bytes:
    """Changes when a file or object is written again, even with the same content."""
    spec = place.spec().to_json()
    inner = spec.get("base", spec)  # Such as of `|zip:`.
    if inner["driver"] != "file":
        return answer.stamp.generation
    # Not the generation: it contains the device number, which differs between machines.
    path = inner["path"] if "base" in spec else f"{place.path}{key}"
    return str(os.stat(path).st_mtime_ns).encode()
