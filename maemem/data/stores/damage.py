"""What is wrong with a file, in one line that names it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_LONGEST = 500


@contextlib.contextmanager
def naming_file(path: str | Path, mend: str) -> Iterator[None]:
    """Makes whatever a damaged file lets its reader raise a ValueError that names the file.

    What the system says of a file, such as that there is none or that a disk is full, stays as it
    is; so does a ValueError that begins with the path, as ours do.

    Args:
      path: of the file.
      mend: how to mend it.
    """
    try:
        yield
    except Exception as error:
        of_ours = isinstance(error, ValueError) and str(error).startswith(str(path))
        # That of libraries, such as h5py, of what they found in a file have no number.
        of_the_system = isinstance(error, OSError) and error.errno is not None
        if of_ours or of_the_system:
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST]
        raise ValueError(f"{path} cannot be read ({reason}); {mend}") from error


def read_json(path: Path) -> dict[str, Any]:
    """What a file that a stage has written holds.

    Raises:
      FileNotFoundError: if there is none.
      ValueError: if it is damaged.
    """
    mend = "put back a copy of it, or delete it and run the stage that writes it again"
    with naming_file(path, mend):
        return dict(json.loads(path.read_bytes()))
