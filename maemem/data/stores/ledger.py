"""The durable record of unfinished work on a volume, kept inside the folder that it writes.

`identity.json` holds everything that decides the result. Each finished block is an empty file, in a
folder named after a hash of the identity: creating an empty file is atomic on all storage, and
blocks of another identity cannot be mistaken for this one's. The record goes through `ts.KvStore`,
so folders and buckets work alike; locking a result, and renaming it when it is complete, need a
folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorstore as ts

from maemem.data.stores import formats
from maemem.durable import drop_drafts, sync_folder
from maemem.geometry import Box
from maemem.locks import lock


@dataclasses.dataclass(frozen=True)
class Finished:
    """The finished blocks. Copies of this, in other processes too, record into the same place."""

    place: ts.KvStore

    def step(self, name: str) -> Finished:
        """The finished blocks of one step, where the work takes several steps over all blocks."""
        return Finished(formats.at(self.place, self.place.path + name))

    def missing(self, blocks: Sequence[Box]) -> list[Box]:
        """The blocks that are not finished, in their order."""
        names = {key.decode() for key in self.place.list().result()}
        return [block for block in blocks if block_name(block) not in names]

    def add(self, block: Box) -> None:
        """Records a block, which must be on disk."""
        self.place.write(block_name(block), b"").result()


def block_name(block: Box) -> str:
    """The file name of a block."""
    return str(block).replace(":", "-").replace(", ", "_")


def _record(partial: Path) -> Path:
    return (partial / formats.CONVERSION_RECORD).parent


@contextlib.contextmanager
def held(partial: Path, target: Path, *, wait: bool) -> Iterator[None]:
    """Locks a partial result for this process; the lock ends with the process.

    Args:
      partial: its folder; made if need be.
      target: its final folder; the same one where the result is written in place.
      wait: whether to wait for another process that holds it.

    Raises:
      ValueError: if another process holds it and `wait` is off; if the folder holds something else.
      FileExistsError: if another process has just finished it.
    """
    if partial.exists():
        _refuse_others(partial)
    lock_path = _record(partial) / "lock"
    lock_path.parent.mkdir(parents=True, exist_ok=True)
    try:
        locked = lock(lock_path, wait=wait)
    except BlockingIOError as error:
        raise ValueError(
            f"another process is writing {target} now ({error}); wait for it to finish"
        ) from None
    with locked:
        if target != partial:
            refuse_existing(target)
        yield


def claim(partial: Path, wanted: dict[str, Any]) -> Finished:
    """Records the identity of a partial result in a folder, or compares it with the recorded one.

    Args, returns, raises: as `claim_place`; and ValueError if the folder holds something else.
    """
    _refuse_others(partial)
    return claim_place(formats.folder(partial), wanted)


def _refuse_others(partial: Path) -> None:
    """Raises ValueError if a folder is not empty and holds no partial result."""
    if not (partial / formats.CONVERSION_RECORD).exists():
        others = [entry.name for entry in partial.iterdir() if entry != _record(partial)]
        if others:
            raise ValueError(
                f"{partial} holds {others[0]}, and no record of what was begun; delete this folder"
            )


def claim_place(partial: ts.KvStore, wanted: dict[str, Any]) -> Finished:
    """Records the identity of a partial result, or compares it with the recorded one.

    Args:
      partial: where it is.
      wanted: everything that decides the result, the grid of blocks too; values as JSON has them.

    Returns:
      The blocks that are finished.

    Raises:
      ValueError: if they differ, naming the differences; if the record cannot be read or written.
    """
    key, limit = formats.CONVERSION_RECORD, formats.TIMEOUT_SECONDS
    name = formats.address(partial).removeprefix("file://")
    with formats.reaching(partial):
        found = partial.read(key).result(timeout=limit)
        if found.state != "value":  # If another process is faster, its record stays.
            content, unlike = json.dumps(wanted, indent=1).encode(), found.stamp.generation
            partial.write(key, content, if_equal=unlike).result(timeout=limit)
            found = partial.read(key).result(timeout=limit)
    if found.state != "value":  # All that S3 tells of a missing bucket.
        raise ValueError(f"{name} cannot be written to; make its bucket, or check the address")
    try:
        begun = dict(json.loads(found.value))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{name}{key}, which says what was begun, is damaged ({error}); delete "
            f"{name}, and begin again"
        ) from None
    if differing := differences(begun, wanted):
        raise ValueError(
            f"{name} was begun from another input or with other options: {differing}. "
            f"Repeat the old command, or delete it"
        )
    digest = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:16]
    return Finished(formats.at(partial, f"{partial.path}{key.rsplit('/', 1)[0]}/{digest}"))


def differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    """The entries in which two identities differ, in words; "" if there are none."""
    return "; ".join(
        f"{name} was {before.get(name)} and is {now.get(name)}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    )


def scratch(partial: Path, name: str) -> Path:
    """A place for intermediate files; it is deleted with the record."""
    return _record(partial) / name


def drop(place: ts.KvStore) -> None:
    """Deletes the record of a complete result."""
    if place.spec().to_json()["driver"] == "file":
        tidy(Path(place.path))
    else:  # All that begins with `folder/`; the character after the slash is 0.
        folder = formats.CONVERSION_RECORD.split("/")[0]
        place.delete_range(ts.KvStore.KeyRange(f"{folder}/", f"{folder}0")).result()


def publish(partial: Path, target: Path) -> None:
    """Renames a complete result to its target; deletes its record and unfinished drafts."""
    drop_drafts(partial)
    os.rename(partial, target)
    sync_folder(target.parent)
    tidy(target)


def tidy(target: Path) -> None:
    """Deletes the record of a complete result, which a kill right after the renaming leaves."""
    shutil.rmtree(_record(target), ignore_errors=True)  # Another process may do the same.


def refuse_existing(target: Path) -> None:
    """Raises FileExistsError if there is anything at a path."""
    if os.path.lexists(target):
        raise FileExistsError(
            f"{target} exists and is not overwritten; delete it, or choose another OUTPUT"
        )
