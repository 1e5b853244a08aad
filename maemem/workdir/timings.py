"""Seconds that each stage took."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pathlib
import time
from collections.abc import Iterator

import jax

from maemem import layout

log = logging.getLogger(__name__)


@contextlib.contextmanager
def timed(stage: str, workdir: pathlib.Path) -> Iterator[None]:
    """Adds the seconds of a stage, finished or not, to WORKDIR/timings.json."""
    began = time.perf_counter()
    try:
        yield
    finally:
        if jax.process_index() == 0:
            _add_seconds(stage, time.perf_counter() - began, layout.timings_path(workdir))


def _add_seconds(stage: str, spent: float, path: pathlib.Path) -> None:
    try:
        seconds = dict(json.loads(path.read_bytes()))
        seconds[stage] = float(seconds.get(stage, 0.0)) + spent
    except (OSError, ValueError, TypeError):
        seconds = {stage: spent}
    temporary = path.with_suffix(".tmp")
    try:
        temporary.write_text(json.dumps(seconds, indent=1))
        os.replace(temporary, path)
    except OSError as error:  # An error that ended the stage must not be hidden.
        log.warning("the time of stage %s is not recorded: %s", stage, error)
