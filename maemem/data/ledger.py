"""The durable record of work on a volume under way, kept inside the folder that it writes.

What is recorded as finished is on disk, whenever the process or the machine stops.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from maemem.data import formats


def _record(partial: Path) -> Path:
    return (partial / formats.CONVERSION_RECORD).parent


@contextlib.contextmanager
def held(partial: Path, target: Path, *, wait: bool) -> Iterator[None]:
    """Holds a partial result for this process alone; the system lets go if it is killed.

    Args:
      partial: its folder; made if need be.
      target: what it will be.
      wait: whether to wait for another process that holds it.

    Raises:
      ValueError: if another process holds it, and `wait` is off.
      FileExistsError: if another process has just finished it.
    """
    lock_path = _record(partial) / "lock"
    lock_path.parent.mkdir(parents=True, exist_ok=True)
    with lock_path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise ValueError(
                f"another process is writing {target} now; wait for it to finish"
            ) from None
        refuse_existing(target)
        yield


def claim(partial: Path, wanted: dict[str, Any]) -> None:
    """Records what a new partial result is of, or compares it with what an old one is of.

    Raises:
      ValueError: if they differ; it names the differences. If the folder is something else.
    """
    identity = partial / formats.CONVERSION_RECORD
    if not identity.exists():
        others = [entry.name for entry in partial.iterdir() if entry != _record(partial)]
        if others:
            raise ValueError(
                f"{partial} holds {others[0]}, and no record of what was begun; delete this folder"
            )
        write_durably(identity, json.dumps(wanted, indent=1))
        return
    begun = json.loads(identity.read_text())
    differing = [
        f"{name} was {begun.get(name)} and is {wanted[name]}"
        for name in wanted
        if begun.get(name) != wanted[name]
    ]
    if differing:
        raise ValueError(
            f"{partial} was begun from another input or with other options: "
            f"{'; '.join(differing)}. Repeat the old command, or delete this folder"
        )


def finished(partial: Path) -> set[str]:
    """The names of the finished blocks; one that a kill has cut short is none of them."""
    path = _record(partial) / "finished.txt"
    return set(path.read_text().splitlines()) if path.exists() else set()


@contextlib.contextmanager
def appending(partial: Path) -> Iterator[Callable[[str], None]]:
    """What is to be called with the name of a block once the block is on disk."""
    with (_record(partial) / "finished.txt").open("a") as file:
        if file.tell():
            file.write("\n")  # ends a line that a kill may have cut

        def append(name: str) -> None:
            file.write(f"{name}\n")
            file.flush()
            os.fsync(file.fileno())

        yield append


def publish(partial: Path, target: Path) -> None:
    """Gives a whole result its name, and drops its record."""
    os.rename(partial, target)
    _sync_folder(target.parent)
    shutil.rmtree(_record(target))


def refuse_existing(target: Path) -> None:
    """Raises FileExistsError if there is anything at a path."""
    if os.path.lexists(target):
        raise FileExistsError(
            f"{target} exists and is not overwritten; delete it, or choose another OUTPUT"
        )


def write_durably(path: Path, text: str) -> None:
    """Writes a file so that, whenever the machine stops, it is there as a whole or not at all."""
    draft = path.with_name(path.name + ".draft")
    with draft.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
