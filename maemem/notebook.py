"""Runs in notebooks: shows their output and a picture while they run."""

from __future__ import annotations

import pathlib
import shlex
import subprocess
import sys


def watch(command: str, picture: str = "") -> None:
    """Runs a command in a notebook; shows its output, and a picture whenever it changes.

    Paths below the working directory are shortened. Interrupting the cell stops the command: a run
    saves first, and the same cell goes on.

    Args:
      command: such as `"python -m maemem.main --config=configs/demo.py --workdir=runs/demo"`;
        `python` is the notebook's.
      picture: a PNG that the command writes, such as `runs/demo/pretrain/held_out.png`;
        empty: none.

    Raises:
      RuntimeError: if the command fails.
    """
    # Imported here: only notebooks have it.
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
        # A run logs after each evaluation, when it draws.
        for line in process.stdout:
            print(line.replace(f"{pathlib.Path.cwd()}/", ""), end="")
            if path.is_file() and path.stat().st_mtime_ns != drawn:
                show = shown.update if drawn else shown.display
                drawn = path.stat().st_mtime_ns
                show(Image(path.read_bytes()))
    except BaseException:  # Such as an interrupted cell.
        process.terminate()
        process.wait()
        raise
    if status := process.wait():
        raise RuntimeError(f"the command ended with status {status}; see what it said")
