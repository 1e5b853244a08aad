"""Locks between processes, also of machines that share a disk."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import platform
import time
from pathlib import Path
from typing import TextIO

log = logging.getLogger(__name__)

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# How long an NFS server may keep the lock of a lost machine: a bit more than NFSv4's lease.
_LEASE_SECONDS = 120
_RETRY_SECONDS = 0.5


def lock(path: Path, *, wait: bool = False) -> TextIO:
    """Locks a file until the returned file is closed, or the process ends.

    The system releases the lock of a killed process. A file server keeps the lock of a lost machine
    for a while, so this waits for locks of other machines, but not for those of this one.

    Args:
      path: of the file, made if need be; the holder's name is written there.
      wait: whether to wait without a limit.

    Raises:
      BlockingIOError: if it stays locked; it says by whom, and how to mend it.
    """
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        try:
            _outwait_lost_machine(file, path)
        except BlockingIOError:
            file.close()
            raise
    file.truncate(0)
    file.write(f"process {os.getpid()} of {platform.node()} {_machine()}")
    file.flush()
    return file


def _outwait_lost_machine(file: TextIO, path: Path) -> None:
    file.seek(0)
    holder, _, machine = file.read().rpartition(" ")
    if machine in ("", _machine()):
        raise BlockingIOError(holder or "of this machine")
    log.info("%s is locked by %s; waiting, in case that machine is lost", path, holder)
    deadline = time.monotonic() + _LEASE_SECONDS
    while time.monotonic() < deadline:
        time.sleep(_RETRY_SECONDS)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
    raise BlockingIOError(f"{holder}; if that machine is lost, delete {path}")


def _machine() -> str:
    """Identifies this machine since its last boot."""
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else platform.node()
