"""The durable record of work on a volume under way, kept inside the folder that it writes.

It says what the work is of (`identity.json`), and which blocks are finished: an empty file each,
named after the block, in a folder named after a hash of the identity. To make an empty file is
atomic everywhere, so a block is recorded or is not, whoever dies meanwhile; and what is recorded
under another identity is never taken for this one's. The record is read and written through
`ts.KvStore`, so that a folder and a bucket are the same thing; to hold a result, and to name it
when it is whole, takes a folder.
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
    """The finished blocks; whoever finishes one may have a copy of this."""

    place: ts.KvStore

    def step(self, name: str) -> Finished:
        """Those of one step of the work, where each of several goes over all blocks."""
        return Finished(formats.at(self.place, self.place.path + name))

    def missing(self, blocks: Sequence[Box]) -> list[Box]:
        """The blocks that are not among them, in their order."""
        names = {key.decode() for key in self.place.list().result()}
        return [block for block in blocks if block_name(block) not in names]

    def add(self, block: Box) -> None:
        """Records a block that is on disk."""
        self.place.write(block_name(block), b"").result()


def block_name(block: Box) -> str:
    """A block as the name of a file."""
    return str(block).replace(":", "-").replace(", ", "_")


def _record(partial: Path) -> Path:
    return (partial / formats.CONVERSION_RECORD).parent


@contextlib.contextmanager
def held(partial: Path, target: Path, *, wait: bool) -> Iterator[None]:
    """Holds a partial result for this process alone; the system lets go if it is killed.

    Args:
      partial: its folder; made if need be.
      target: what it will be; the same folder where the result grows in its place.
      wait: whether to wait for another process that holds it.

    Raises:
      ValueError: if another process holds it, and `wait` is off; if the folder is something else.
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
    """Records what a new partial result in a folder is of, or compares it with an old one.

    Args, returns, raises: as `claim_place`; and ValueError if the folder is something else.
    """
    _refuse_others(partial)
    return claim_place(formats.folder(partial), wanted)


def _refuse_others(partial: Path) -> None:
    """Raises ValueError if a folder is not empty, and no partial result."""
    if not (partial / formats.CONVERSION_RECORD).exists():
        others = [entry.name for entry in partial.iterdir() if entry != _record(partial)]
        if others:
            raise ValueError(
                f"{partial} holds {others[0]}, and no record of what was begun; delete this folder"
            )


def claim_place(partial: ts.KvStore, wanted: dict[str, Any]) -> Finished:
    """Records what a new partial result is of, or compares it with what an old one is of.

    Args:
      partial: where it is.
      wanted: everything that decides what is written, the grid of blocks included, as JSON has it.

    Returns:
      The blocks that are finished.

    Raises:
      ValueError: if they differ; it names the differences. If the record cannot be read or made.
    """
    key, limit = formats.CONVERSION_RECORD, formats.TIMEOUT_SECONDS
    name = formats.address(partial).removeprefix("file://")
    with formats.reaching(partial):
        found = partial.read(key).result(timeout=limit)
        if found.state != "value":  # And if another process is faster, its record stays.
            content, unlike = json.dumps(wanted, indent=1).encode(), found.stamp.generation
            partial.write(key, content, if_equal=unlike).result(timeout=limit)
            found = partial.read(key).result(timeout=limit)
    if found.state != "value":  # S3 says no more than that where there is no bucket.
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
    """The entries in which two identities differ, in words; none, if ""."""
    return "; ".join(
        f"{name} was {before.get(name)} and is {now.get(name)}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    )


def scratch(partial: Path, name: str) -> Path:
    """A place for what the work needs on its way; it is dropped with the record."""
    return _record(partial) / name


def drop(place: ts.KvStore) -> None:
    """Drops the record of a result that is whole."""
    if place.spec().to_json()["driver"] == "file":
        tidy(Path(place.path))
    else:  # All that begins with `folder/`; the character after the slash is 0.
        folder = formats.CONVERSION_RECORD.split("/")[0]
        place.delete_range(ts.KvStore.KeyRange(f"{folder}/", f"{folder}0")).result()


def publish(partial: Path, target: Path) -> None:
    """Gives a whole result its name, and drops its record, and what a kill left of its files."""
    drop_drafts(partial)
    os.rename(partial, target)
    sync_folder(target.parent)
    tidy(target)


def tidy(target: Path) -> None:
    """Drops the record of a whole result, which is left there if its process was just killed."""
    shutil.rmtree(_record(target), ignore_errors=True)  # Another process may be at it, too.


def refuse_existing(target: Path) -> None:
    """Raises FileExistsError if there is anything at a path."""
    if os.path.lexists(target):
        raise FileExistsError(
            f"{target} exists and is not overwritten; delete it, or choose another OUTPUT"
        )
