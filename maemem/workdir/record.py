"""The record of a run: its config, the versions of libraries and the commit of maemem."""

from __future__ import annotations

import importlib.metadata
import json
import pathlib
import platform
import subprocess
from typing import Any

from ml_collections import ConfigDict

from maemem import layout
from maemem.config import Config, everything

_PACKAGES = (
    *("jax", "flax", "optax", "orbax-checkpoint", "tensorstore", "grain", "numpy"),
    *("scikit-image", "waterz", "mwatershed"),
)


def record_of(config: Config) -> dict[str, Any]:
    """What is recorded of a run: its config, the versions of libraries, the commit of maemem."""
    return {"config": config.to_dict(), "versions": _versions(), "commit": _commit()}


def read_record(folder: pathlib.Path) -> dict[str, Any]:
    """What the config.json of a workdir or a model folder holds.

    Raises:
      FileNotFoundError: if there is none.
      ValueError: if it cannot be read.
    """
    path = layout.config_path(folder)
    if not path.exists():
        raise FileNotFoundError(
            f"there is no {path}, so {folder} is no workdir of a run; give the folder that was "
            f"--workdir of python -m maemem.main, or a model folder"
        )
    try:
        record = json.loads(path.read_text())
        if not isinstance(record["config"], dict):
            raise TypeError("its config is no object")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}); python -m maemem.main with the config and this "
            f"workdir says what is wrong"
        ) from None
    return record


def read_config(folder: pathlib.Path) -> Config:
    """The config of a workdir or a model folder; with all sections.

    Raises:
      FileNotFoundError, ValueError: as `read_record`.
    """
    return ConfigDict(_with_sections(_with_tuples(read_record(folder)["config"]))).lock()


def _with_sections(fields: dict[str, Any]) -> dict[str, Any]:
    """A recorded config with the sections that showing a run needs, and pre-training has not."""
    defaults = everything().to_dict()
    return {name: defaults[name] for name in ("predict", "segment", "evaluate")} | fields


def _with_tuples(value: Any) -> Any:
    """A value from JSON as a config has it."""
    if isinstance(value, dict):
        return {name: _with_tuples(each) for name, each in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def _versions() -> dict[str, str]:
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), "maemem": _own_version(), **versions}


def _own_version() -> str:
    import maemem

    return maemem.__version__


def _commit() -> str | None:
    """The commit of the checkout that maemem runs from; None where it was installed otherwise."""
    root = pathlib.Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    command += ["--exclude=*"]  # The bare commit, even where there are tags.
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
