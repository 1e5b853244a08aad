"""Runs in notebooks: what a run says, and a picture that it draws, as they come."""

from __future__ import annotations

import pathlib
import shlex
import subprocess
import sys


def watch(command: str, picture: str = "") -> None:
    """Runs a command in a notebook, and shows a picture each time that it draws it anew.

    What is said of files below the working directory is said without it. Interrupting the cell asks
    the command to stop: a run saves first, and the same cell goes on.

    Args:
      command: such as `"python -m maemem.main --config=configs/demo.py --workdir=runs/demo"`, whose
        Python is that of the notebook.
      picture: a PNG that the command writes, such as `runs/demo/pretrain/reconstruction.png`;
        empty: none is shown.

    Raises:
      RuntimeError: if the command fails.
    """
    # Imported here, since only notebooks have it.
    from IPython.display import DisplayHandle, Image

    shown, drawn, path = DisplayHandle(), 0, pathlib.Path(picture)
    name, *arguments = shlex.split(command)
    process = subprocess.Popen(
        [sys.executable if name == "python" else name, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        # A run says something after each evaluation, which is when it draws.
        for line in process.stdout:
            print(line.replace(f"{pathlib.Path.cwd()}/", ""), end="")
            if path.is_file() and path.stat().st_mtime_ns != drawn:
                show = shown.update if drawn else shown.display
                drawn = path.stat().st_mtime_ns
                show(Image(path.read_bytes()))
    except BaseException:  # Such as that of an interrupted cell.
        process.terminate()
        process.wait()
        raise
    if status := process.wait():
        raise RuntimeError(f"the command ended with status {status}; see what it said")
