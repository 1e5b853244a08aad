"""Runs of one config that differ in some fields, each in a workdir of its own."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from collections.abc import Mapping

from absl import app, flags


def define_flags() -> None:
    """Only commands have these: whoever imports one has flags of its own."""
    flags.DEFINE_string("config", None, "The config of all runs.", required=True)
    flags.DEFINE_string("workdir", None, "The folder of all runs.", required=True)
    flags.DEFINE_multi_string("set", [], "FIELD=VALUE of the config, for all runs.")


def workdir() -> pathlib.Path:
    """The folder of all runs."""
    return pathlib.Path(flags.FLAGS.workdir)


def settings(given: list[str]) -> dict[str, str]:
    """The fields that `--set` names, and their values."""
    for setting in given:
        if "=" not in setting:
            raise app.UsageError(f"--set={setting} has no value; write --set=FIELD=VALUE")
    return dict(setting.split("=", 1) for setting in given)


def run(name: str, fields: Mapping[str, object], variant: str = "") -> pathlib.Path:
    """Runs the config to its end, or on from where it was stopped, and returns the run's workdir.

    Args:
      name: of the folder in WORKDIR.
      fields: what this run changes in the config; `--set` changes others.
      variant: of the config, such as `unet` in `configs/finetune_fib25.py:unet`.
    """
    folder, config = workdir() / name, flags.FLAGS.config
    if variant:
        config += f"{',' if ':' in config else ':'}{variant}"
    command = [sys.executable, "-m", "maemem.main", f"--config={config}"]
    command += [f"--workdir={folder}"]
    changed = {**settings(flags.FLAGS.set), **fields}
    command += [f"--config.{field}={value}" for field, value in changed.items()]
    print(f"{name}: {' '.join(command[1:])}", flush=True)
    subprocess.run(command, check=True)
    return folder
