"""Atomic, durable files: complete or absent, even after a crash of the machine."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

_DRAFT_SUFFIX = ".draft"


def write_durably(path: Path, content: str | bytes) -> None:
    """Writes a file atomically and durably: after a crash it is complete or absent."""
    # Two processes may write the same file.
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}{_DRAFT_SUFFIX}")
    with draft.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
    sync_folder(path.parent)


def drop_drafts(folder: Path) -> None:
    """Deletes drafts that killed writers left in a folder; nobody may be writing there."""
    for draft in folder.glob(f"*{_DRAFT_SUFFIX}"):
        draft.unlink()


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
