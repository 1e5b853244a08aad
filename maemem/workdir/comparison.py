"""Fields in which the config of a run differs from that of another."""

from __future__ import annotations

import json
import logging
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from maemem import layout
from maemem.config import RUNTIME_FIELDS, UINT8_RANGE, Config

log = logging.getLogger(__name__)


def describe_differences(before: dict[str, Any], config: Config) -> str:
    """The fields in which a config differs from an earlier one, a line each; "" if none.

    Ignores fields that only say how a run is computed (`RUNTIME_FIELDS`).
    """
    old, new = _fields(before), _fields(config.to_dict())
    names = [name for name in old | new if not name.startswith(RUNTIME_FIELDS)]
    return _compare(old, new, names)


def check_network(config: Config, checkpoint: pathlib.Path, fields: Sequence[str]) -> None:
    """Checks that a network was trained with the same values of some fields.

    Parameters with equal names and shapes do not reveal these. Without a record of the training, a
    warning is logged, and nothing is checked.

    Args:
      config: of the run that wants to use the network.
      checkpoint: where it is, `WORKDIR/STAGE/checkpoints/STEP`; or less of it, if moved. The record
        is the config.json that lies beside some part of this path.
      fields: their names, or those of whole sections.

    Raises:
      ValueError: if some differ, naming each.
    """
    before = recorded_config(checkpoint)
    if before is None:
        log.warning(
            "no readable config.json says how %s was trained; make sure that it had the same %s",
            *(checkpoint, ", ".join(fields)),
        )
        return
    old, new = _fields(before), _fields(config.to_dict())
    sections = tuple(f"{field}." for field in fields)
    # A field that is newer than the network had its default, as it has where it is not given.
    names = [name for name in old if name in fields or name.startswith(sections)]
    differences = _compare(old, new, names)
    if differences:
        raise ValueError(
            f"the network {checkpoint} was trained with another config; set these fields as they "
            f"were there (--config.FIELD=VALUE), or use a network trained with those of now:\n"
            f"{differences}"
        )


def recorded_config(checkpoint: pathlib.Path) -> dict[str, Any] | None:
    """The config that a checkpoint was made with, if it can be read."""
    # No higher than a workdir can be.
    for folder in checkpoint.absolute().parents[:3]:
        try:
            return dict(json.loads(layout.config_path(folder).read_text())["config"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return None


def _compare(old: dict[str, Any], new: dict[str, Any], names: Iterable[str]) -> str:
    """The fields that differ, a line each."""
    return "\n".join(
        f"  {name}: {old.get(name, 'absent')!r} there, {new.get(name, 'absent')!r} now"
        for name in sorted(names)
        if old.get(name) != new.get(name)
    )


def _fields(config: dict[str, Any]) -> dict[str, Any]:
    """All fields by full name, with values as JSON has them."""
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
