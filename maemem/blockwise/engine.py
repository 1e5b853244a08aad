"""Does the work of every block that is not finished: in this process, or on a cluster's workers.

A block is one task. It may be done twice, on two machines at once even, so its work must be
idempotent, and touch no file that another block's touches. Whoever does it records it.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from maemem.data.stores.ledger import Finished
from maemem.geometry import Box
from maemem.logs import showing_progress

Work = Callable[[Box], Any]
# The builtin `map`, or what does several blocks at a time, in whatever order.
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
      work: of a block. What it gives is dropped; for workers elsewhere it has to be picklable.
      every: all blocks.
      finished: those that are.
      verb: what is done to a block, such as "predicted".
      log: where the progress goes.
      workers: as `open_workers` gives them.
      progress: whether to show it.
    """
    missing = finished.missing(every)
    with showing_progress(
        log, verb, total=len(every), missing=len(missing), shown=progress
    ) as advance:
        for _ in workers(_Recorded(work, finished), missing):
            advance()


@contextlib.contextmanager
def open_workers(where: str) -> Iterator[Map]:
    """Those who do blocks, until the context ends.

    Args:
      where: empty: this process, one block after the other, with nothing to start. `threads:4`:
        this process, so many blocks at a time; for prediction on a GPU, which then works on one
        block while others are read, compressed and written; other work gains little. `local:4`: as
        many processes on this machine. `slurm:20`: as many SLURM jobs, of which Dask's own
        configuration says the rest (`jobqueue.slurm`: queue, cores, memory, walltime). Else the
        address of a scheduler that is running, such as `tcp://10.0.0.1:8786`; its workers must see
        the same files under the same paths, and have maemem.

    Raises:
      ValueError: if the extra `cluster` is not installed, or what is named cannot be reached.
    """
    if not where:
        yield map
        return
    kind, _, count = where.partition(":")
    if kind == "threads":
        with concurrent.futures.ThreadPoolExecutor(int(count)) as threads:
            yield functools.partial(_on_threads, threads)
        return
    try:
        from maemem.blockwise import cluster
    except ImportError as error:
        raise ValueError(
            f"runtime.workers is {where!r}, and {error.name} is not installed; install it with "
            f"pip install 'maemem[cluster]', or leave runtime.workers empty"
        ) from None
    with cluster.connected(where) as client:
        yield functools.partial(cluster.map_blocks, client)


def _on_threads(
    threads: concurrent.futures.Executor, work: Work, every: Sequence[Box]
) -> Iterator[Any]:
    """What the work gives of each block, as it is done; ends when no thread works any longer."""
    futures = [threads.submit(work, block) for block in every]
    try:
        for future in concurrent.futures.as_completed(futures):
            yield future.result()
    finally:
        for future in futures:
            future.cancel()
        concurrent.futures.wait(futures)
