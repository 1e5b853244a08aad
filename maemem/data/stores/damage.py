"""Errors of damaged files, in one line that names the file."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_LONGEST = 500


@contextlib.contextmanager
def naming_file(path: str | Path, mend: str) -> Iterator[None]:
    """Turns any error that reading a damaged file raises into a ValueError that names the file.

    Errors of the system, such as a missing file or a full disk, are not changed; neither is a
    ValueError that begins with the path, as our own do.

    Args:
      path: of the file.
      mend: how to mend it.
    """
    try:
        yield
    except Exception as error:
        of_ours = isinstance(error, ValueError) and str(error).startswith(str(path))
        # Libraries such as h5py raise OSError without a number for bad content.
        of_the_system = isinstance(error, OSError) and error.errno is not None
        if of_ours or of_the_system:
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST]
        raise ValueError(f"{path} cannot be read ({reason}); {mend}") from error


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file that a stage wrote.

    Raises:
      FileNotFoundError: if there is none.
      ValueError: if it is damaged.
    """
    mend = "put back a copy of it, or delete it and run the stage that writes it again"
    with naming_file(path, mend):
        return dict(json.loads(path.read_bytes()))
