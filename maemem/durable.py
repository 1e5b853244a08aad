"""Files that are there as a whole or not at all, even when the machine stops."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def write_durably(path: Path, content: str | bytes) -> None:
    """Writes a file so that, whenever the machine stops, it is there as a whole or not at all."""
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}.draft")  # Two may write the same file.
    with draft.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
