"""What a score is: all that tuning, evaluation and reports know of one.

A score is one file beside this one: a frozen dataclass whose fields are its options, and one line
in `SCORES`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

from maemem.scores.contingency import contingency, merge, renamed


@dataclasses.dataclass(frozen=True)
class Column:
    """A number that a score gives.

    Attributes:
      name: in `scores.json` and in `segment.select_by`; no other score has it.
      label: in tables and pages.
      better: which values are better.
    """

    name: str
    label: str
    better: Literal["lower", "higher"]

    @property
    def heading(self) -> str:
        """The label, with an arrow for the better direction."""
        return f"{self.label} {'↓' if self.better == 'lower' else '↑'}"

    def rank(self, value: float) -> float:
        """A key to sort by: better values first, NaN last."""
        if math.isnan(value):
            return math.inf
        return value if self.better == "lower" else -value


class Evidence(NamedTuple):
    """What scores are computed from; it is counted block by block, and summed.

    Scores with the same evidence share it, so volumes are read once for all of them.

    Attributes:
      part: of a block, from its truth and its pieces, both `[z y x]`.
      merge: of the whole, from the parts in any order; it holds few parts at a time.
      rename: of the whole, where each piece `[pieces]` has the name of its object.
    """

    part: Callable[[Any, Any], Any]
    merge: Callable[[Iterable[Any]], Any]
    rename: Callable[[Any, Any], Any]


# `maemem.scores.contingency.Contingency`: voxels of each pair of a true and a predicted object.
OVERLAPS = Evidence(part=contingency, merge=merge, rename=renamed)


@runtime_checkable
class Score(Protocol):
    """A comparison of a segmentation with the truth: a frozen dataclass, whose fields are options.

    Attributes:
      columns: the numbers that it gives. The first one is shown at the top of the report.
      compares: what the truth consists of: `labels`, `masks` or `trees`.
      evidence: what it is computed from.
    """

    columns: ClassVar[tuple[Column, ...]]
    compares: ClassVar[str]
    evidence: ClassVar[Evidence]

    def values(self, evidence: Any, /) -> dict[str, float]:
        """The numbers by column name; NaN if the truth has nothing to score.

        Args:
          evidence: of the whole volume.
        """
        ...
