"""Files that are there as a whole or not at all, even when the machine stops."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

_DRAFT_SUFFIX = ".draft"


def write_durably(path: Path, content: str | bytes) -> None:
    """Writes a file so that, whenever the machine stops, it is there as a whole or not at all."""
    # Two may write the same file.
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}{_DRAFT_SUFFIX}")
    with draft.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
    sync_folder(path.parent)


def drop_drafts(folder: Path) -> None:
    """Drops what writers that were killed have left right in a folder, in which nobody writes."""
    for draft in folder.glob(f"*{_DRAFT_SUFFIX}"):
        draft.unlink()


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
