"""How time and memory grow with what is asked for.

    python -m benchmarks.scaling
    python -m benchmarks.scaling ratio batch --repeats=5

Each point is a process of its own, which does the work once to warm up and then some times more:
the median is kept, and the peak of its memory. Steps are those of a ViT-B of pre-training with the
article's patches and decoder; where nothing else is said, four crops of 6×96×96 with 90 % masked.
Results go to `docs/scaling.json`, where those of other series are kept, and to `docs/scaling.png`.
It wants a quiet machine.
"""

from __future__ import annotations

import json
import os
import pathlib
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from absl import app, flags
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from benchmarks.comparisons import BASE, COMPARISONS
from benchmarks.race import ROOT, Side, race

_REPEATS = flags.DEFINE_integer("repeats", 3, "Times that a point is measured.", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", str(ROOT / "docs"), "Where scaling.json and .png go.")


class Series(NamedTuple):
    """What is varied.

    Attributes:
      module: of `benchmarks.ours`, that does the work.
      label: of the horizontal axis.
      points: on it.
      work: of all points.
      varied: what a point changes in it.
    """

    module: str
    label: str
    points: Sequence[float]
    work: Mapping[str, Any]
    varied: Any


(_ARTICLE,) = COMPARISONS["mae_3d"].work.values()
_STEP = {**_ARTICLE, "batch": 4}
_PREDICTION = {
    "folder": "",
    "window": (48, 48, 48),
    "stride": (32, 32, 32),
    "patch": (8, 8, 8),
    "encoder": (192, 8, 6),
    "channels": (8, 16, 32),
    "outputs": 3,
    "batch": 4,
    "memory_bytes": 32 << 20,  # With the command's 1 GiB each of these would be one block.
}
SERIES = {
    "tokens": Series(
        "mae",
        "tokens of a crop",
        (54, 216, 486, 864),
        _STEP,
        lambda tokens: {"crop": (6, *[16 * round((tokens / 6) ** 0.5)] * 2)},
    ),
    # Where nothing is masked there is nothing to learn; of 216 tokens this masks one.
    "ratio": Series(
        "mae",
        "masking ratio",
        (0.005, 0.25, 0.5, 0.75, 0.9, 0.95),
        _STEP,
        lambda ratio: {"ratio": ratio},
    ),
    "batch": Series("mae", "crops of a step", (1, 2, 4, 8, 16), _STEP, lambda n: {"batch": n}),
    "depth": Series(
        "mae",
        "blocks of the encoder",
        (3, 6, 12, 24),
        _STEP,
        lambda depth: {"encoder": (BASE[0], depth, BASE[2])},
    ),
    "prediction": Series(
        "prediction",
        "voxels predicted, light UNETR",
        tuple(side**3 for side in (64, 128, 192, 256)),
        _PREDICTION,
        lambda voxels: {"size": round(voxels ** (1 / 3))},
    ),
    "segmentation": Series(
        "segmentation",
        "voxels segmented block by block",
        tuple(side**3 for side in (64, 128, 192, 256)),
        {"folder": "", "fragments": "distance", "block": (64, 64, 64)},
        lambda voxels: {"side": round(voxels ** (1 / 3))},
    ),
}


def main(argv: list[str]) -> None:
    names = argv[1:] or list(SERIES)
    if unknown := set(names) - set(SERIES):
        raise app.UsageError(f"{unknown} is none of {list(SERIES)}")
    folder = pathlib.Path(_OUTPUT.value)
    path = folder / "scaling.json"
    for name in names:
        rows = [measured(SERIES[name], point) for point in SERIES[name].points]
        results = json.loads(path.read_text()) if path.exists() else {}
        results[name] = rows
        path.write_text(json.dumps(results, indent=1) + "\n")
        draw(folder / "scaling.png", results)


def measured(series: Series, point: float) -> dict[str, float]:
    """Seconds and memory of one point."""
    with tempfile.TemporaryDirectory() as folder:
        work = {**series.work, **series.varied(point)}
        if "folder" in work:
            work["folder"] = folder
        side = Side(sys.executable, f"benchmarks.ours.{series.module}", work)
        said = race({"ours": side}, os.cpu_count() or 1, _REPEATS.value)["ours"]
    row = {"seconds": statistics.median(said["seconds"]), "peak_gib": said["peak_gib"]}
    print(f"{series.label} {point:g}: {row}", flush=True)
    return {"point": point, **row}


def draw(path: pathlib.Path, results: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """One column for each series: time above, memory below."""
    shown = [name for name in SERIES if name in results]
    figure = Figure(figsize=(3.2 * len(shown), 5), layout="constrained")
    axes = figure.subplots(2, len(shown), sharex="col", squeeze=False)
    for column, name in zip(axes.T, shown, strict=True):
        points = [row["point"] for row in results[name]]
        for axis, what in zip(column, ("seconds", "peak_gib"), strict=True):
            values = [row[what] for row in results[name]]
            axis.plot(points, values, "o-", color="#3b82f6")
            axis.set_ylim(0, 1.1 * max(values))
            axis.grid(alpha=0.3)
        column[1].set_xlabel(SERIES[name].label)
        if max(points) >= 1e6:
            column[1].xaxis.set_major_formatter(EngFormatter())
    axes[0, 0].set_ylabel("seconds")
    axes[1, 0].set_ylabel("peak memory, GiB")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    app.run(main)
