"""What a check says."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

Level: TypeAlias = Literal["ok", "warn", "fail"]
LEVELS: tuple[Level, ...] = ("ok", "warn", "fail")  # From the best to the worst.


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a check found.

    Attributes:
      level: fail: the run cannot work, or what it makes is worthless; warn: it is worth a look.
      found: what is there.
      mend: what to do about it, where there is anything to do.
      seconds: that a stage will take, where this was foretold.
    """

    level: Level
    found: str
    mend: str = ""
    seconds: float | None = None


def worst(found: str, doubts: Sequence[Verdict]) -> Verdict:
    """One verdict of several doubts: what was found in any case, then each doubt; ok without any.

    Args:
      found: what is there.
      doubts: what is not as it should be.
    """
    if not doubts:
        return Verdict("ok", found)
    level = LEVELS[max(LEVELS.index(doubt.level) for doubt in doubts)]
    said = "; ".join([found, *(doubt.found for doubt in doubts)])
    return Verdict(level, said, "; ".join(doubt.mend for doubt in doubts if doubt.mend))


def amount(count: float, unit: str = "B") -> str:
    """A number with a prefix, such as 1.2 GB."""
    power = min(int(math.log10(count) // 3), 5) if count >= 1 else 0
    return f"{count / 1000**power:.3g} {('', 'k', 'M', 'G', 'T', 'P')[power]}{unit}"


def duration(seconds: float) -> str:
    """A time that one can plan with, such as 3.5 h."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.2g} s"


def between(seconds: Sequence[float]) -> str:
    """What is known of a time, such as 20 to 35 min; where that is within a third, its longest."""
    shortest, longest = min(seconds), max(seconds)
    if longest < 4 / 3 * shortest:
        return duration(longest)
    return f"{duration(shortest)} to {duration(longest)}"
