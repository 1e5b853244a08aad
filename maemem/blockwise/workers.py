"""Who does blocks: this process, its threads, or the workers of a cluster."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

from maemem.blockwise.engine import Map, Work
from maemem.geometry import Box


@contextlib.contextmanager
def open_workers(where: str) -> Iterator[Map]:
    """Opens the workers that do blocks, until the context ends.

    Args:
      where: empty: this process, one block after another. `threads:4`: this process, four blocks
        at a time; for prediction on a GPU, which works on one block while others are read,
        compressed and written; other work gains little. `local:4`: as many processes on this
        machine. `slurm:20`: as many SLURM jobs, described by Dask's own configuration
        (`jobqueue.slurm`: queue, cores, memory, walltime). Else the address of a running scheduler,
        such as `tcp://10.0.0.1:8786`, whose workers have maemem and see the same files under the
        same paths.

    Raises:
      ValueError: if the extra `cluster` is not installed, or the workers cannot be reached.
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
    """The results of blocks as they are finished; ends when no thread works any longer."""
    futures = [threads.submit(work, block) for block in every]
    try:
        for future in concurrent.futures.as_completed(futures):
            yield future.result()
    finally:
        for future in futures:
            future.cancel()
        concurrent.futures.wait(futures)
