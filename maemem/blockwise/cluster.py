"""Blocks on the workers of a Dask cluster. Imported where one is wanted: Dask is an extra."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import platform
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, cast

import dask.config
from dask_jobqueue.slurm import SLURMCluster
from distributed import Client, LocalCluster, as_completed, get_worker
from distributed.diagnostics.plugin import WorkerPlugin
from distributed.scheduler import KilledWorker

from maemem.blockwise.engine import Work
from maemem.geometry import Box

log = logging.getLogger(__name__)

_SETTINGS = {
    # JAX and tensorstore run threads, and a process that has any must not be forked.
    "distributed.worker.multiprocessing-method": "spawn",
    # Machines fail on their own: blame a block only if every worker that tried it died.
    "distributed.scheduler.allowed-failures": 10,
    # Dask's own monitoring, 50 and 100 times a second, takes time from the blocks.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
}
# Options of mallopt(3): M_TRIM_THRESHOLD never, M_MMAP_MAX none, M_ARENA_MAX one.
_KEEP = {-1: -1, -4: 0, -8: 1}
_TRIES = 10  # To reach all workers; some may die meanwhile.


class _Holder(WorkerPlugin):
    """Holds the work on every worker: sent and unpickled once for each, also for late ones."""

    def __init__(self, work: Work):
        self.work = work

    def setup(self, worker: object) -> None:
        _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Makes glibc's allocator keep freed memory for the next block; elsewhere, does nothing.

    Dask returns it to the system at once, and the next block faults it in again: cutting blocks
    took 15 % longer (`benchmarks.ours.segmentation` with Dask's variables, two cores of an Intel
    Xeon).
    """
    if platform.libc_ver()[0] == "glibc":
        for option, value in _KEEP.items():
            ctypes.CDLL(None).mallopt(option, value)


def _do(name: str, block: Box) -> Any:
    return cast(_Holder, get_worker().plugins[name]).work(block)


@contextlib.contextmanager
def connected(where: str) -> Iterator[Client]:
    """A client of the cluster that `where` names, as in `workers.open_workers`."""
    with dask.config.set(_SETTINGS), contextlib.ExitStack() as stack:
        kind, _, count = where.partition(":")
        if kind == "local":
            cluster = LocalCluster(
                n_workers=int(count),
                threads_per_worker=1,
                # Blocks are cut to fit the memory; Dask's limit would kill healthy workers.
                memory_limit=None,
                dashboard_address="127.0.0.1:0",  # Any free port.
                silence_logs=logging.ERROR,
            )
            stack.enter_context(cluster)
        elif kind == "slurm":
            cluster = _slurm(where)
            stack.enter_context(cluster)
            # Unlike `scale`, it replaces jobs that are lost or reach their time limit.
            cluster.adapt(minimum_jobs=int(count), maximum_jobs=int(count))
            log.info("%s SLURM jobs are asked for; blocks are done as soon as one runs", count)
        else:
            cluster = where
        try:
            client = Client(cluster)
        except OSError as error:
            raise ValueError(
                f"runtime.workers is {where}, and no Dask scheduler answers ({error}); start one "
                f"there, or correct the address"
            ) from None
        yield stack.enter_context(client)


def _slurm(where: str) -> SLURMCluster:
    """A cluster without workers yet, after testing that SLURM accepts its jobs.

    Raises:
      ValueError: if Dask's configuration does not describe a job, or SLURM refuses it.
    """
    missing = [n for n in ("cores", "memory") if not dask.config.get(f"jobqueue.slurm.{n}", None)]
    if missing:
        raise ValueError(
            f"runtime.workers is {where}, and Dask's configuration does not say {missing} of a "
            f"job; set jobqueue.slurm.cores, memory, queue and walltime in "
            f"~/.config/dask/jobqueue.yaml, or variables such as DASK_JOBQUEUE__SLURM__CORES=8"
        )
    cluster = SLURMCluster(scheduler_options={"dashboard_address": ":0"})
    try:
        # Dask would only log a refused job, and wait for its worker.
        subprocess.run(
            ["sbatch", "--test-only"],
            input=cluster.job_script(),
            check=True,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        cluster.close()
        reason = getattr(error, "stderr", None) or str(error)
        raise ValueError(
            f"runtime.workers is {where}, and SLURM takes no such job: {' '.join(reason.split())}. "
            f"Run it where sbatch works, and correct jobqueue.slurm in Dask's configuration"
        ) from None
    return cluster


def map_blocks(client: Client, work: Work, blocks: Sequence[Box]) -> Iterator[Any]:
    """Like `map`, on the workers; results come as blocks are finished.

    Errors of a worker are raised here. If a worker dies, another does its block.

    Raises:
      ValueError: if every worker that tried some block died of it.
    """
    name = f"maemem-{uuid.uuid4()}"
    _hand_out(client, work, name)
    keys = [f"{name}-{block}" for block in blocks]
    futures = client.map(_do, [name] * len(blocks), blocks, key=keys, pure=False)
    try:
        # `with_results` saves a round trip for each block.
        for future, result in as_completed(futures, with_results=True):
            yield result
            future.release()
    except KilledWorker as error:
        raise ValueError(
            f"each worker that tried one block died, most likely for lack of memory ({error}); "
            f"lower predict.memory_bytes or segment.block_zyx, or give the workers more"
        ) from None
    finally:
        client.cancel(futures)
        with contextlib.suppress(OSError):  # A worker that just died.
            client.unregister_worker_plugin(name)


def _hand_out(client: Client, work: Work, name: str) -> None:
    """Sends the work to all workers; the scheduler sends it to later ones."""
    for last in (False,) * (_TRIES - 1) + (True,):
        try:
            client.register_plugin(_Holder(work), name=name)
        except OSError:  # A worker was lost before it answered.
            if last:
                raise
        else:
            return
