"""maemem against others on the same work, side by side.

    python -m benchmarks.run
    python -m benchmarks.run mae_3d scores --repeats=15
    python -m benchmarks.run --smoke
    python -m benchmarks.run --device=gpu --peers=PYTHON

Of every comparison (those named, or all; see `benchmarks/comparisons.py`) two processes, ours and
the peer's, take turns at the same work, with the same number of threads, on the CPU, in float32; or
on a GPU, with more to do at a time, in bfloat16, as both are used there. After both, what the
machine can do at most is measured (`benchmarks/ceiling.py`, `ceiling_gpu.py`). What counts is the
ratio of their times, turn by turn. It wants a quiet machine: what else runs can slow one side far
more than the other, so every result keeps how many cores others used.

`cold_start` is the seconds from the start of the process of `mae_3d` to the end of its first step:
without, and with what XLA has compiled before; and, on a CPU, those of a process that does nothing
but take as much memory as that at its peak (`benchmarks/first_touch.py`).

Peers are installed from PyPI into `.peers`, an environment of their own, unless `--peers` names the
Python of one; that is the way to have a PyTorch that knows the GPU. Results go to
`docs/performance.json` (of a GPU: `performance_gpu.json`), where those of other comparisons and
other processors are kept, and from there into the tables of `docs/performance.md`. `--smoke` tries
everything once, on tiny work, and writes nothing.
"""

from __future__ import annotations

import datetime
import functools
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from absl import app, flags

from benchmarks.comparisons import COMPARISONS, Comparison
from benchmarks.race import DEVICES, ROOT, Side, busy_cores, check, columns, race, summary
from benchmarks.table import QUIET, processor, sections, surroundings, write

_REPEATS = flags.DEFINE_integer("repeats", 7, "Turns of each side.", lower_bound=1)
_SMOKE = flags.DEFINE_bool("smoke", False, "One turn of tiny work.")
_DEVICE = flags.DEFINE_enum("device", "cpu", [*DEVICES], "Where both sides compute.")
_THREADS = flags.DEFINE_integer("threads", 0, "Of each side; 0: as many as there are cores.")
_PEERS = flags.DEFINE_string("peers", "", "A Python that has the peers; none: that of .peers.")
_OUTPUT = flags.DEFINE_string("output", str(ROOT / "docs"), "Where performance.json and .md are.")

_REQUIREMENTS = ROOT / "benchmarks" / "peers" / "requirements.txt"
_CPU_WHEELS = "https://download.pytorch.org/whl/cpu"


def main(argv: list[str]) -> None:
    known = [name for name, each in COMPARISONS.items() if works(each)] + ["cold_start"]
    names = argv[1:] or known
    if unknown := set(names) - {*known}:
        raise app.UsageError(f"{unknown} is none of {known}")
    if not _SMOKE.value:  # Told before minutes are measured that could not be kept.
        surroundings(pathlib.Path(_OUTPUT.value, "performance.md"), _DEVICE.value)
    python = _PEERS.value or peers_python()
    commit()  # What is committed meanwhile is not what is measured.
    for name in names:
        rows = []
        for row in cold_start(python) if name == "cold_start" else compare(name, python):
            rows.append(row)
            report(row)
            if not _SMOKE.value:
                keep(name, rows)


def compare(name: str, python: str) -> Iterator[dict[str, Any]]:
    """The rows of a comparison, one for each of its works."""
    comparison = COMPARISONS[name]
    for work_name in works(comparison):
        row, before = described(name, comparison, work_name), others()
        with tempfile.TemporaryDirectory() as folder:
            raced = race(sides_of(comparison, work_name, python, folder), threads(), repeats())
        check(raced["ours"], raced["peer"], comparison.parameters_within)
        yield {**row, "others_cores": [before, others()], **raced, **summary(raced)}


def cold_start(python: str) -> Iterator[dict[str, Any]]:
    """One row: the seconds until the first step of `mae_3d` has ended, in turns."""
    comparison = COMPARISONS["mae_3d"]
    work_name = next(iter(works(comparison)))
    before = others()
    sides, turns, said = sides_of(comparison, work_name, python), [], {}
    for _ in range(repeats()):
        with tempfile.TemporaryDirectory() as cache:
            environment = {
                "JAX_COMPILATION_CACHE_DIR": cache,
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            }
            environment |= sides["ours"].environment or {}
            cached = sides["ours"]._replace(environment=environment)
            starts = {"empty": cached, "filled": cached, "peer": sides["peer"]}
            said = {way: race({way: side}, threads(), 0)[way] for way, side in starts.items()}
            if _DEVICE.value == "cpu":  # Else the peak is that of the device's own memory.
                taken = {"gib": said["filled"]["peak_gib"], "threads": threads()}
                memory = Side(sys.executable, "benchmarks.first_touch", taken, environment)
                said |= race({"memory": memory}, threads(), 0)
        turns.append({way: one["ready_seconds"] for way, one in said.items()})
    seconds = columns(turns)
    medians = {way: statistics.median(each) for way, each in seconds.items()}
    row = described("cold_start", comparison, work_name)
    ends = {"ours": said["empty"], "peer": said["peer"]}
    row |= {"others_cores": [before, others()], "ready_seconds": seconds}
    yield {**row, **ends, "median_seconds": medians}


def report(row: dict[str, Any]) -> None:
    """Says what came of it, but not of tiny work, whose times mean nothing."""
    print(f"{row['name']}, {row['work_name']}, beside {row['versus']}:")
    if _SMOKE.value:
        print("  runs, and nothing was measured", flush=True)
        return
    if "ratio" in row:
        low, ratio, high = (row["ratio"][which] for which in ("min", "median", "max"))
        print(f"  {ratio:.3g} times as fast, from {low:.3g} to {high:.3g} turn by turn")
    else:
        print(f"  seconds to the end of the first step: {row['median_seconds']}")
    busy = [cores for cores in row["others_cores"] if cores is not None]
    print(f"  cores that others used before and after: {busy}", flush=True)
    if any(cores > QUIET for cores in busy):
        print("  NOT A MEASUREMENT: other processes were busy; repeat it on a quiet machine")


def others() -> float | None:
    """How many cores other processes use; to be asked while no worker runs."""
    return busy_cores(0.1 if _SMOKE.value else 2.0)


def sides_of(
    comparison: Comparison, work_name: str, python: str, folder: str = ""
) -> dict[str, Side]:
    """Who takes turns; our side and the peer's are given the same work."""
    work = {**works(comparison)[work_name], **(comparison.smoke if _SMOKE.value else {})}
    if "folder" in work:
        work["folder"] = folder
    name, ceiling = "benchmarks.ceiling", {"width": 2048, "copied_mb": 512, "threads": threads()}
    if _DEVICE.value == "gpu":
        name, ceiling = "benchmarks.ceiling_gpu", {"width": 8192, "copied_mb": 2048}
    if _SMOKE.value:
        ceiling |= {"width": 256, "copied_mb": 8}
    environment = DEVICES[_DEVICE.value]
    return {
        "ours": Side(
            sys.executable,
            f"benchmarks.ours.{comparison.ours}",
            work,
            environment,
        ),
        "peer": Side(python, f"benchmarks.peers.{comparison.peer}", work, environment),
        "ceiling": Side(sys.executable, name, ceiling, environment),
    }


def works(comparison: Comparison) -> Mapping[str, Mapping[str, Any]]:
    """What is compared on the device."""
    return comparison.gpu if _DEVICE.value == "gpu" else comparison.work


def described(name: str, comparison: Comparison, work_name: str) -> dict[str, Any]:
    """What a result is of, and where and when it was measured."""
    return {
        "name": name,
        "work_name": work_name,
        "versus": comparison.versus,
        "unit": comparison.unit,
        "machine": {"system": platform.platform(), "cpu": cpu(), "cores": os.cpu_count()},
        "threads": threads(),
        "repeats": repeats(),
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


@functools.cache  # Results that are written would make the tree dirty.
def commit() -> str:
    """Which commit's code is measured, `-dirty` where files differ."""
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()


def cpu() -> str:
    """The processor's name, and which generation it is, since a virtual machine's may not say."""
    information = pathlib.Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    facts = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    if "model name" not in facts:
        return platform.processor()
    parts = [f"{key} {facts[key]}" for key in ("cpu family", "model") if key in facts]
    return ", ".join([facts["model name"], *parts])


def threads() -> int:
    """Of each side."""
    return _THREADS.value or len(os.sched_getaffinity(0))


def repeats() -> int:
    """Turns of each side."""
    return 1 if _SMOKE.value else _REPEATS.value


def peers_python() -> str:
    """The Python of the peers' environment, which is made where there is none, or an older one."""
    folder = ROOT / ".peers"
    python, installed = folder / "bin" / "python", folder / "requirements.txt"
    if not installed.exists() or installed.read_text() != _REQUIREMENTS.read_text():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        # Where the index of CPU wheels can be reached they win over those that bring CUDA.
        command = [python, "-m", "pip", "install", "-r", _REQUIREMENTS]
        subprocess.run([*command, "--extra-index-url", _CPU_WHEELS], check=True)
        installed.write_text(_REQUIREMENTS.read_text())
    return str(python)


def keep(name: str, rows: list[dict[str, Any]]) -> None:
    """Adds rows to the results, instead of the comparison's earlier ones on the same processor."""
    folder = pathlib.Path(_OUTPUT.value)
    gpu = _DEVICE.value == "gpu"
    path = folder / ("performance_gpu.json" if gpu else "performance.json")
    results = json.loads(path.read_text()) if path.exists() else {}
    chip = processor(rows[0])
    here = results.get(chip, {}) | {name: rows}
    results[chip] = {key: here[key] for key in (*COMPARISONS, "cold_start") if key in here}
    text = sections(results)
    path.write_text(json.dumps(results, indent=1) + "\n")
    write(folder / "performance.md", text, _DEVICE.value)


if __name__ == "__main__":
    app.run(main)
