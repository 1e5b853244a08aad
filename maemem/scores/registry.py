"""All scores of `SCORES` at once: their columns, options and values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Integer
from ml_collections import ConfigDict

from maemem.fields import build, own_fields, section
from maemem.scores import SCORES
from maemem.scores.contract import Column, Evidence, Score


def columns() -> dict[str, Column]:
    """The columns of all scores, by name, in the order of tables."""
    return {column.name: column for score in SCORES.values() for column in score.columns}


def options() -> ConfigDict:
    """The config section `evaluate`: the options of each score that has any, by its key."""
    return ConfigDict({key: section(score) for key, score in SCORES.items() if own_fields(score)})


def make_scores(
    found: Mapping[str, Any] | ConfigDict, compares: str = "labels"
) -> dict[str, Score]:
    """The scores of one kind of truth, by key.

    Args:
      found: the config section `evaluate`.
      compares: what the truth consists of.

    Raises:
      ValueError: if an option is unknown or of another type, or no score has such a key.
    """
    sections: dict[str, Any] = dict(found)
    if unknown := sorted(set(sections) - set(SCORES)):
        raise ValueError(
            f"evaluate has the fields {', '.join(unknown)}; expected: options of the scores "
            f"{', '.join(SCORES)}, such as evaluate.adapted_rand.lone_background"
        )
    return {
        key: build(score, sections.get(key, {}), f"evaluate.{key}")
        for key, score in SCORES.items()
        if score.compares == compares
    }


def make_selected(found: Mapping[str, Any] | ConfigDict, name: str) -> tuple[Score, Column]:
    """The score that has a column, and that column.

    Args:
      found: the config section `evaluate`.
      name: of the column, such as `segment.select_by`.

    Raises:
      ValueError: as `make_scores`; or if no score has such a column.
    """
    pairs = [(score, column) for score in make_scores(found).values() for column in score.columns]
    by_name = {column.name: (score, column) for score, column in pairs}
    if name not in by_name:
        raise ValueError(f"segment.select_by is {name!r}; expected: one of {', '.join(by_name)}")
    return by_name[name]


def values(scores: Mapping[str, Score], gather: Callable[[Evidence], Any]) -> dict[str, float]:
    """The values of scores by column name; what several need is gathered once.

    Args:
      scores: as `make_scores` returns them.
      gather: from a kind of evidence to that of the whole volume.
    """
    gathered = {kind: gather(kind) for kind in {score.evidence for score in scores.values()}}
    found: dict[str, float] = {}
    for score in scores.values():
        found |= score.values(gathered[score.evidence])
    return found


def compare(
    scores: Mapping[str, Score],
    truth: Integer[np.ndarray, "z y x"],
    labels: Integer[np.ndarray, "z y x"],
) -> dict[str, float]:
    """The values of scores by column name, of volumes that are held in memory."""
    return values(scores, lambda evidence: evidence.part(truth, labels))
