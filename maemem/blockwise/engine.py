"""Does the work of every block that is not finished.

A block is one task. It may be done twice, even on two machines at once, so its work must be
idempotent and touch no file of other blocks. The worker that finishes a block records it.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from maemem.data.stores.ledger import Finished
from maemem.geometry import Box
from maemem.logs import showing_progress

Work = Callable[[Box], Any]
# The builtin `map`, or a function that does several blocks at a time, in any order.
Map = Callable[[Work, Sequence[Box]], Iterable[Any]]


@dataclasses.dataclass(frozen=True)
class _Recorded:
    work: Work
    finished: Finished

    def __call__(self, block: Box) -> None:
        self.work(block)
        self.finished.add(block)


def do_blocks(
    work: Work,
    every: Sequence[Box],
    finished: Finished,
    *,
    verb: str,
    log: logging.Logger,
    workers: Map = map,
    progress: bool = True,
) -> None:
    """Does the work of each block that is not finished, and records it.

    Args:
      work: done for each block; its result is dropped. Picklable, for workers elsewhere.
      every: all blocks.
      finished: the finished ones.
      verb: for the progress, such as "predicted".
      log: for the progress.
      workers: see `workers.open_workers`.
      progress: whether to show it.
    """
    missing = finished.missing(every)
    with showing_progress(
        log, verb, total=len(every), missing=len(missing), shown=progress
    ) as advance:
        for _ in workers(_Recorded(work, finished), missing):
            advance()
