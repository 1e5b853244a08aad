"""What tells the content of a volume from what was at the same place at another time."""

from __future__ import annotations

import hashlib
import os

import tensorstore as ts

from maemem.data.stores import formats
from maemem.data.stores.formats import Layout

_PRECOMPUTED = "info"


def stamp(layout: Layout) -> str:
    """A hash of the metadata of an array and of its group, and of when they were written.

    Files of this machine tell that by their time of modification, buckets by the generation of an
    object; a server that tells neither is known by what the metadata say. No voxel is read: what is
    written into the chunks of a volume whose metadata stay is not noticed.

    Raises:
      ValueError: if the storage cannot be reached.
    """
    place, keys = layout.kvstore, [key for key in formats.METADATA_KEYS if key != _PRECOMPUTED]
    folders = [place, *(parent for parent, _ in formats.ancestors(place, 1))]
    if layout.driver == "neuroglancer_precomputed":  # It has no groups.
        folders, keys = [place], [_PRECOMPUTED]
    found = hashlib.sha256()
    with formats.reaching(place):
        # All are asked for at once, for a bucket takes its time for each.
        asked = [(where, key, where.read(key)) for where in folders for key in keys]
        for where, key, reading in asked:
            answer = reading.result(timeout=formats.TIMEOUT_SECONDS)
            if answer.state == "value":
                for part in (key.encode(), answer.value, _written(where, key, answer)):
                    found.update(hashlib.sha256(part).digest())
    return found.hexdigest()[:16]


def _written(place: ts.KvStore, key: str, answer: ts.KvStore.ReadResult) -> bytes:
    """What changes when a file or an object is written again, though its content be the same."""
    spec = place.spec().to_json()
    inner = spec.get("base", spec)  # Such as of `|zip:`.
    if inner["driver"] != "file":
        return answer.stamp.generation
    # Not the generation, which has the number of the device, another one on each machine.
    path = inner["path"] if "base" in spec else f"{place.path}{key}"
    return str(os.stat(path).st_mtime_ns).encode()
