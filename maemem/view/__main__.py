"""Shows the results of a workdir over the raw volume.

python -m maemem.view WORKDIR [--set=test] [--name=VOLUME]

Serves them in neuroglancer until Ctrl-C, or, with `--state`, writes a state file for another
neuroglancer.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import pathlib
import sys
import threading

from absl import app, flags

from maemem.logs import log_to_terminal

_SET = flags.DEFINE_string("set", "", "Of this set, test or validation; else what there is.")
_NAME = flags.DEFINE_string("name", "", "This volume of it; else the first that has results.")
_ROOT = flags.DEFINE_string("root", None, "Where the volumes are now: data.root of the config.")
_SPOTS = flags.DEFINE_integer("errors", 20, "How many splits, and merges, to point at.", 0)
_PORT = flags.DEFINE_integer("port", 0, "To serve at; 0: one that is free.")
_ADDRESS = flags.DEFINE_string("address", "127.0.0.1", "To serve at; 0.0.0.0 is all.")
_STATE = flags.DEFINE_string("state", "", "Write a state of neuroglancer to this file.")
_URL = flags.DEFINE_string("url_prefix", "", "Of a state: where a web server has --folder.")
_FOLDER = flags.DEFINE_string("folder", "", "Of a state: what is served there; else WORKDIR.")

log = logging.getLogger("maemem")


def main(argv: list[str]) -> None:
    """The command: a workdir, and the flags."""
    if len(argv) != 2:
        raise app.UsageError(f"expected one WORKDIR, got {len(argv) - 1}")
    log_to_terminal()
    try:
        show(pathlib.Path(argv[1]))
    except (ValueError, OSError) as error:
        log.error("error: %s", error)
        sys.exit(1)


def show(workdir: pathlib.Path) -> None:
    """Serves the results, or writes a state, as the flags say.

    Raises:
      ValueError: if flags contradict each other, neuroglancer is not installed, or there are no
        results yet; it names the stage to run.
      OSError: if the workdir or its volumes are missing.
    """
    # Imported late: a misspelt flag should not have to wait for JAX.
    from maemem.view.scene import read_scene
    from maemem.workdir import read_config

    if bool(_STATE.value) != bool(_URL.value):
        raise ValueError(
            "--state and --url_prefix go together: a state names addresses that a browser can "
            "read, such as http://localhost:9000, where a web server has WORKDIR (or --folder)"
        )
    if importlib.util.find_spec("neuroglancer") is None:
        raise ValueError("neuroglancer is not installed; pip install 'maemem[view]'")
    from maemem.view import browser

    config = read_config(workdir)
    if _ROOT.value is not None:
        config.data.root = _ROOT.value
    scene = read_scene(config, workdir, name=_SET.value, volume=_NAME.value, spots=_SPOTS.value)
    if _STATE.value:
        address = browser.web_address(_URL.value, pathlib.Path(_FOLDER.value or workdir))
        text = browser.addressed_state(scene, address)
        pathlib.Path(_STATE.value).write_text(text, encoding="utf-8")
        log.info("wrote %s: paste it into neuroglancer's {} dialogue", _STATE.value)
    else:
        log.info("%s: open %s", scene.title, browser.serve(scene, _ADDRESS.value, _PORT.value))
        log.info("Ctrl-C ends it")
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    app.run(main)
