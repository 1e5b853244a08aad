"""Small and read-only disks, for whoever may mount them."""

import contextlib
import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest


def _mount(*arguments: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting takes root")
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")


@contextlib.contextmanager
def small_disk(folder: pathlib.Path, size: str) -> Iterator[pathlib.Path]:
    """A disk that holds no more than this, such as `1m`."""
    folder.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def grow(folder: pathlib.Path, size: str) -> None:
    """Makes a small disk larger."""
    _mount("-o", f"remount,size={size}", str(folder))


@contextlib.contextmanager
def read_only(folder: pathlib.Path) -> Iterator[None]:
    """Lets nobody write to a folder, not even root."""
    _mount("--bind", str(folder), str(folder))
    try:
        _mount("-o", "remount,bind,ro", str(folder))
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
