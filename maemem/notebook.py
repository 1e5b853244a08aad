"""Runs in notebooks: what a run says, and a picture that it draws, as they come."""

from __future__ import annotations

import pathlib
import shlex
import subprocess
import sys


def watch(arguments: str, picture: str = "") -> None:
    """Runs `python -m maemem.main` in a notebook, and shows a picture each time it is drawn anew.

    Interrupting the cell asks the run to stop, and it saves first; the same cell goes on.

    Args:
      arguments: the command line, such as `"--config=configs/demo.py --workdir=runs/demo"`.
      picture: a PNG that the run writes, such as `runs/demo/pretrain/reconstruction.png`; empty:
        none is shown.

    Raises:
      RuntimeError: if the run fails.
    """
    # Imported here, since only notebooks have it.
    from IPython.display import DisplayHandle, Image

    shown, drawn = DisplayHandle(), 0
    command = [sys.executable, "-m", "maemem.main", *shlex.split(arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    path = pathlib.Path(picture)
    try:
        # A run says something after each evaluation, which is when it draws.
        for line in process.stdout:
            print(line, end="")
            if path.is_file() and path.stat().st_mtime_ns != drawn:
                show = shown.update if drawn else shown.display
                drawn = path.stat().st_mtime_ns
                show(Image(path.read_bytes()))
    finally:
        process.terminate()
        status = process.wait()
    if status:
        raise RuntimeError(f"python -m maemem.main ended with status {status}; see what it said")
