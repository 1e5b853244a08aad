"""The config that a workdir was made with, and who may work there."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import logging
import os
import pathlib
import platform
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from maemem.config import RUNTIME_FIELDS, UINT8_RANGE, Config, bcd, everything
from maemem.durable import write_durably
from maemem.locks import lock

log = logging.getLogger(__name__)

MODEL_CHECKSUMS = "SHA256SUMS"  # In a model folder, see `training.model_folder`.

_LOCKS = []  # Open files, which hold their locks.

_PACKAGES = (
    *("jax", "flax", "optax", "orbax-checkpoint", "tensorstore", "grain", "numpy"),
    *("scikit-image", "waterz", "mwatershed"),
)


def cache_compilations(workdir: pathlib.Path) -> None:
    """Keeps what XLA compiles in WORKDIR/cache/compiled, so that a run that goes on starts at once.

    JAX's own variables come first: `JAX_COMPILATION_CACHE_DIR` names a folder for all runs, and
    `JAX_ENABLE_COMPILATION_CACHE=false` keeps nothing.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = workdir / "cache" / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(folder.absolute()))
    # By default JAX leaves out what compiled in under a second: the sum of it is most of a start.
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def workdir_folder(name: str) -> pathlib.Path:
    """The folder that a name given as the workdir means.

    Raises:
      ValueError: if it is a URL: checkpoints need what a file system can do.
    """
    if "://" in name:
        raise ValueError(
            f"workdir {name} is a URL; expected a folder, which all processes of the run see. Copy "
            f"the results when the run has ended"
        )
    return pathlib.Path(name)


def claim_workdir(config: Config, workdir: pathlib.Path, stages: Iterable[str]) -> None:
    """Records the config in WORKDIR/config.json, or compares it with what is recorded there.

    Beside it are recorded the versions of the libraries and the commit of maemem. A workdir in
    which no stage has begun (a folder `WORKDIR/STAGE`) may be claimed anew. It is locked until this
    process ends.

    Raises:
      ValueError: if the workdir was made with another config, naming each field that differs; if
        its record cannot be read; if another process works in it; or if it is a model folder.
    """
    if (workdir / MODEL_CHECKSUMS).exists():
        raise ValueError(
            f"{workdir} is a model folder, which is not written to; name another folder by "
            f"--workdir"
        )
    path = workdir / "config.json"
    workdir.mkdir(parents=True, exist_ok=True)
    _lock(workdir)
    record = {"config": config.to_dict(), "versions": _versions(), "commit": _commit()}
    if any((workdir / stage).exists() for stage in stages):
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


def read_record(folder: pathlib.Path) -> dict[str, Any]:
    """What the config.json of a workdir or a model folder holds.

    Raises:
      FileNotFoundError: if there is none.
      ValueError: if it cannot be read.
    """
    path = folder / "config.json"
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
    """The config of a workdir or a model folder; fields that are newer have their defaults.

    Raises:
      FileNotFoundError, ValueError: as `read_record`.
    """
    return ConfigDict(_with_defaults(_with_tuples(read_record(folder)["config"]))).lock()


def _with_defaults(fields: dict[str, Any]) -> dict[str, Any]:
    """A recorded config, with the defaults of fields that are newer than it."""
    defaults = everything()
    if fields.get("objective", {}).get("kind") == "bcd":
        defaults.objective = bcd()
    # What is shown of a run asks for some that pre-training does not have.
    sections = {*fields, "predict", "segment", "evaluate", "runtime"}.intersection(defaults)
    filled = {
        name: {**defaults[name].to_dict(), **fields.get(name, {})}
        for name in sections
        if isinstance(defaults[name], ConfigDict)
    }
    return {**fields, **filled}


def _with_tuples(value: Any) -> Any:
    """A value from JSON as a config has it."""
    if isinstance(value, dict):
        return {name: _with_tuples(each) for name, each in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


@contextlib.contextmanager
def timed(stage: str, workdir: pathlib.Path) -> Iterator[None]:
    """Adds the seconds that a stage takes, finished or not, to WORKDIR/timings.json."""
    began = time.perf_counter()
    try:
        yield
    finally:
        if jax.process_index() == 0:
            _add_seconds(stage, time.perf_counter() - began, workdir / "timings.json")


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
    except OSError as error:  # What ended the stage is the thing to say, not this.
        log.warning("the time of stage %s is not recorded: %s", stage, error)


def describe_differences(before: dict[str, Any], config: Config) -> str:
    """The fields in which a config differs from an earlier one, a line each; none, if "".

    Fields that only say how a run is computed (`RUNTIME_FIELDS`) do not count.
    """
    old, new = _fields(before), _fields(config.to_dict())
    names = [name for name in old | new if not name.startswith(RUNTIME_FIELDS)]
    return _compare(old, new, names)


def check_network(config: Config, checkpoint: pathlib.Path, fields: Sequence[str]) -> None:
    """Checks that a network was trained with what a config has in some fields.

    Networks whose parameters have the same names and shapes may still see volumes differently.
    Where there is no record of the training, that is logged, and nothing is checked.

    Args:
      config: of the run that wants to use the network.
      checkpoint: where it is, `WORKDIR/STAGE/checkpoints/STEP`; or less of it, if moved. The record
        is the config.json that lies beside some part of this path.
      fields: their names.

    Raises:
      ValueError: if some differ, naming each.
    """
    before = _recorded(checkpoint)
    if before is None:
        log.warning(
            "no readable config.json says how %s was trained; make sure that it had the same %s",
            *(checkpoint, ", ".join(fields)),
        )
        return
    differences = _compare(_fields(before), _fields(config.to_dict()), fields)
    if differences:
        raise ValueError(
            f"the network {checkpoint} was trained with another config; set these fields as they "
            f"were there (--config.FIELD=VALUE), or use a network trained with those of now:\n"
            f"{differences}"
        )


def _recorded(checkpoint: pathlib.Path) -> dict[str, Any] | None:
    """The config that a checkpoint was made with, if it can be read."""
    # Not above what can be its workdir: what lies there is of something else.
    for folder in checkpoint.absolute().parents[:3]:
        try:
            return _with_defaults(json.loads((folder / "config.json").read_text())["config"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return None


def _compare(old: dict[str, Any], new: dict[str, Any], names: Iterable[str]) -> str:
    """Those fields that differ, a line each."""
    return "\n".join(
        f"  {name}: {old.get(name, 'absent')!r} there, {new.get(name, 'absent')!r} now"
        for name in sorted(names)
        if old.get(name) != new.get(name)
    )


def _fields(config: dict[str, Any]) -> dict[str, Any]:
    """All fields by their full names, with values as a record has them."""
    fields = _flat(json.loads(json.dumps(config, default=str)))
    # Empty is another way to say this.
    fields["data.intensity_range"] = fields.get("data.intensity_range") or list(UINT8_RANGE)
    return fields


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in tree.items():
        nested = isinstance(value, dict)
        flat |= _flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return flat


def _lock(workdir: pathlib.Path) -> None:
    """Holds WORKDIR/.lock until the process ends."""
    try:
        _LOCKS.append(lock(workdir / ".lock"))
    except BlockingIOError as error:
        raise ValueError(
            f"another process works in {workdir} ({error}); use another workdir"
        ) from None


def _versions() -> dict[str, str]:
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), "maemem": _own_version(), **versions}


def _own_version() -> str:
    import maemem

    return maemem.__version__


def _commit() -> str | None:
    """The commit of the checkout that maemem runs from; None where it was installed otherwise."""
    root = pathlib.Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    command += ["--exclude=*"]  # The bare commit, even where there are tags.
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
