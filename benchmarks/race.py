"""Workers that take turns at the same work, and what comes of it."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).parents[1]

# Variables of workers that compute on a device.
DEVICES = {
    # Threads that spin at OpenMP's barriers take a hundred times as long where another process
    # holds a core, and would take cores from the other side after their turn.
    "cpu": {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "", "OMP_WAIT_POLICY": "PASSIVE"},
    # Both sides are on it at a time, so none may take all of its memory.
    "gpu": {"JAX_PLATFORMS": "cuda", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
}


class Side(NamedTuple):
    """Who does what.

    Attributes:
      python: its Python.
      module: that prepares the work, see `benchmarks.worker`.
      work: what it is given.
      environment: variables.
    """

    python: str
    module: str
    work: Mapping[str, Any]
    environment: Mapping[str, str] | None = None


def race(sides: Mapping[str, Side], threads: int, repeats: int) -> dict[str, dict[str, Any]]:
    """Lets workers take turns, so that a machine that gets slower or faster does so for all.

    It does not even out what else runs: that can slow one of them far more than another; see
    `busy_cores`.

    They are prepared one after the other, so that a later one finds what an earlier one has left.

    Args:
      sides: by name.
      threads: of each.
      repeats: how often each has its turn.

    Returns:
      By name: `seconds` and any other figures of all its turns, `ready_seconds` from its start to
      the end of its first, untimed step, and what it says at its end.

    Raises:
      RuntimeError: if one of them fails.
    """
    with contextlib.ExitStack() as stack:
        processes, ready = {}, {}
        for name, side in sides.items():
            began = time.perf_counter()
            processes[name] = stack.enter_context(started(side, threads))
            reply(processes[name])
            ready[name] = time.perf_counter() - began
        turns: dict[str, list[dict[str, Any]]] = {name: [] for name in processes}
        for _ in range(repeats):
            for name, process in processes.items():
                turns[name].append(turn(process))
        return {
            name: {
                **columns(turns[name]),
                "ready_seconds": ready[name],
                **last_words(process),
            }
            for name, process in processes.items()
        }


def busy_cores(seconds: float) -> float | None:
    """How many cores are in use, on average over this time; None where the system does not tell."""
    statistics_of_system = pathlib.Path("/proc/stat")
    if not statistics_of_system.exists():
        return None

    def used() -> int:
        user, nice, system, _, _, irq, softirq, steal = map(
            int, statistics_of_system.read_text().split("\n")[0].split()[1:9]
        )
        return user + nice + system + irq + softirq + steal

    before, began = used(), time.perf_counter()
    time.sleep(seconds)
    ticks = used() - before
    return ticks / os.sysconf("SC_CLK_TCK") / (time.perf_counter() - began)


def columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Rows with the same keys as a list of each key's values."""
    return {key: [row[key] for row in rows] for key in (rows[0] if rows else ())}


@contextlib.contextmanager
def started(side: Side, threads: int) -> Iterator[subprocess.Popen]:
    """A worker's process, which does not outlive the block."""
    count = dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads)
    )
    with subprocess.Popen(
        [side.python, "-m", "benchmarks.worker", side.module, json.dumps(side.work)],
        cwd=ROOT,
        env={**os.environ, **count, **(side.environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def turn(process: subprocess.Popen) -> dict[str, Any]:
    """Tells a worker to do its work once."""
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    return reply(process)


def last_words(process: subprocess.Popen) -> dict[str, Any]:
    """What a worker says once there are no more turns."""
    assert process.stdin is not None
    process.stdin.close()
    said = reply(process)
    process.wait()
    return said


def reply(process: subprocess.Popen) -> dict[str, Any]:
    """A worker's next line."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"worker stopped, see its messages: {process.args}")
    return json.loads(line)


def check(ours: Mapping[str, Any], peer: Mapping[str, Any], within: float | None) -> None:
    """Checks that both sides have done the same.

    Args:
      ours: what our worker said at its end.
      peer: what the other did.
      within: by how much parameters may differ, of theirs; None: by any.

    Raises:
      RuntimeError: if results, parameters or amounts differ.
    """
    results = [side.get("result", []) for side in (ours, peer)]
    same = len(results[0]) == len(results[1])
    same = same and all(ours.get(name) == peer.get(name) for name in ("amount", "windows"))
    if not same or not all(
        math.isclose(*pair, rel_tol=1e-4) for pair in zip(*results, strict=True)
    ):
        raise RuntimeError(f"the sides did not do the same: {ours} and {peer}")
    if within is not None and not math.isclose(
        ours["parameters"], peer["parameters"], rel_tol=within
    ):
        raise RuntimeError(f"{ours['parameters']} parameters, and the peer {peer['parameters']}")


def summary(raced: Mapping[str, Any]) -> dict[str, Any]:
    """Medians, and the ratios of the peer's time to ours, turn by turn; above 1 we are faster.

    Args:
      raced: what `race` returned of `ours`, `peer` and `ceiling`.
    """
    ours, peer, ceiling = raced["ours"], raced["peer"], raced["ceiling"]
    ratios = [b / a for a, b in zip(ours["seconds"], peer["seconds"], strict=True)]
    out: dict[str, Any] = {
        "ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
        "per_second": {
            name: side["amount"] / statistics.median(side["seconds"])
            for name, side in (("ours", ours), ("peer", peer))
        },
        "ceilings": {
            name: statistics.median(ceiling[name]) for name in ("gflop_per_second", "gb_per_second")
        },
    }
    # The operations, or the bytes, that the work takes as it is defined, whoever does it.
    for needs, most in (("gflop", "gflop_per_second"), ("gb", "gb_per_second")):
        if needs in ours:
            out[f"share_of_{most}"] = {
                name: statistics.median(
                    ours[needs] / s / c for s, c in zip(side["seconds"], ceiling[most], strict=True)
                )
                for name, side in (("ours", ours), ("peer", peer))
            }
    return out
