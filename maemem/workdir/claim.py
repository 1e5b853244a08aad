"""Who may work in a workdir: one process at a time, with one config."""

from __future__ import annotations

import json
import logging
import pathlib
from collections.abc import Iterable

from maemem import layout
from maemem.config import Config
from maemem.durable import write_durably
from maemem.locks import lock
from maemem.workdir.comparison import describe_differences
from maemem.workdir.record import record_of

log = logging.getLogger(__name__)

_LOCKS = []  # Open files, which hold their locks.


def workdir_folder(name: str) -> pathlib.Path:
    """The folder of a workdir.

    Raises:
      ValueError: if it is a URL: checkpoints need a file system.
    """
    if "://" in name:
        raise ValueError(
            f"workdir {name} is a URL; expected a folder, which all processes of the run see. Copy "
            f"the results when the run has ended"
        )
    return pathlib.Path(name)


def claim_workdir(config: Config, workdir: pathlib.Path, stages: Iterable[str]) -> None:
    """Locks a workdir until this process ends, and records or compares its config.

    WORKDIR/config.json also has the versions of libraries and the commit of maemem. It is written
    anew while no stage has begun (no folder `WORKDIR/STAGE`).

    Raises:
      ValueError: if the workdir has another config, naming each different field; if its record
        cannot be read; if another process works in it; or if it is a model folder.
    """
    if (workdir / layout.MODEL_CHECKSUMS).exists():
        raise ValueError(
            f"{workdir} is a model folder, which is not written to; name another folder by "
            f"--workdir"
        )
    path = layout.config_path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    _lock(workdir)
    record = record_of(config)
    if any(layout.stage_folder(workdir, stage).exists() for stage in stages):
        try:
            before = json.loads(path.read_text())
            differences = describe_differences(before["config"], config)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{workdir} holds results, but no readable config.json of theirs ({error}); use "
                f"another workdir"
            ) from None
        if differences:
            raise ValueError(
                f"{workdir} was made with another config; use another workdir, or the fields that "
                f"it was made with:\n{differences}"
            )
        for name in ("versions", "commit"):
            if before.get(name) != record[name]:
                log.warning("%s was begun with %s %s", workdir, name, before.get(name))
                log.warning("it goes on with %s", record[name])
        return
    write_durably(path, json.dumps(record, indent=2, default=str) + "\n")


def _lock(workdir: pathlib.Path) -> None:
    """Holds WORKDIR/.lock until the process ends."""
    try:
        _LOCKS.append(lock(layout.lock_path(workdir)))
    except BlockingIOError as error:
        raise ValueError(
            f"another process works in {workdir} ({error}); use another workdir"
        ) from None
