"""What pre-training is worth: the same fine-tuning from several starts, in one table.

    python -m benchmarks.arms --config=configs/finetune_fib25.py --encoder=runs/fib25 \\
        --workdir=runs/fib25_arms --seeds=0,1 --set=data.root=DATA

Runs, one after the other, for every seed: `pretrained` (from the encoder), `scratch` (nothing but
the encoder's start differs) and, if asked for by `--arms`, `frozen` (the pre-trained encoder is
kept as it is) and `unet` (the variant `unet` of a config that has one, from scratch). Each is an
ordinary run of the config, in a workdir of its own; so whatever is finished is kept, and the same
command goes on where it was stopped. Ends with WORKDIR/arms.json, WORKDIR/arms.md, the table, and
WORKDIR/arms.png, how each arm learnt.
"""

from __future__ import annotations

import itertools
import json
import pathlib
import statistics
from typing import Any

from absl import app, flags
from matplotlib.figure import Figure

from benchmarks.runs import define_flags, run, workdir
from maemem.scores.registry import columns
from maemem.training.metrics import read_metrics

_ENCODER = flags.DEFINE_string("encoder", "", "The pre-training workdir, or a checkpoint.")
_SEEDS = flags.DEFINE_list("seeds", "0,1", "Of the fine-tuning.")
_ARMS = flags.DEFINE_list("arms", "pretrained,scratch", "Of pretrained, frozen, scratch, unet.")
_SCORES = flags.DEFINE_list(
    "scores", "adapted_rand,voi_split,voi_merge,ap50,ap75,dice", "The columns of the table."
)


def overrides(arm: str, encoder: str) -> dict[str, str]:
    """What an arm changes in the config; `unet` is the config's variant of that name, too."""
    arms = {
        "pretrained": {"finetune.encoder": encoder},
        "frozen": {"finetune.encoder": encoder, "finetune.optimizer.frozen": "('encoder',)"},
        "scratch": {"finetune.encoder": ""},
        "unet": {"finetune.encoder": ""},
    }
    if arm not in arms:
        raise app.UsageError(f"arm {arm!r} is unknown; choose from {', '.join(arms)}")
    if arm in ("pretrained", "frozen") and not encoder:
        raise app.UsageError(f"arm {arm} needs --encoder, a pre-training workdir")
    return arms[arm]


def check_scores(names: list[str]) -> None:
    """Refuses scores that there are none of, before anything has run."""
    if unknown := [name for name in names if name not in columns()]:
        raise app.UsageError(f"scores {unknown} are unknown; choose from {', '.join(columns())}")


def main(argv: list[str]) -> None:
    del argv
    check_scores(_SCORES.value)
    arms = {arm: overrides(arm, _ENCODER.value) for arm in _ARMS.value}
    rows: list[dict[str, Any]] = []
    for seed in _SEEDS.value:
        for arm, fields in arms.items():
            variant = "unet" if arm == "unet" else ""
            folder = run(f"{arm}-{seed}", {"seed": seed, **fields}, variant)
            rows += scored(folder, arm, seed)
            write(workdir(), rows)
    draw_learning(workdir(), list(arms), _SEEDS.value)
    print(table(rows))


def scored(folder: pathlib.Path, arm: str, seed: str) -> list[dict[str, Any]]:
    """The scores of a run, one row for each set and method."""
    sets = json.loads((folder / "evaluate" / "scores.json").read_text())["sets"]
    rows = []
    for name, volumes in sets.items():
        for volume, scores in volumes.items():
            baselines = scores.pop("baselines")
            methods = {arm: scores, **{f"{arm}: {b}": s for b, s in baselines.items()}}
            for method, values in methods.items():
                rows.append(
                    {"set": name, "volume": volume, "method": method, "seed": seed, **values}
                )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The means over the seeds, and in brackets each seed's, as a Markdown table."""
    names = _SCORES.value
    headings = [columns()[name].heading for name in names]
    lines = ["| " + " | ".join(["set", "volume", "method", *headings]) + " |"]
    lines.append("|" + "---|" * (len(names) + 3))
    keys = dict.fromkeys((row["set"], row["volume"], row["method"]) for row in rows)
    for key in keys:
        group = [row for row in rows if (row["set"], row["volume"], row["method"]) == key]
        cells = list(key)
        for name in names:
            values = [row[name] for row in group]
            each = ", ".join(f"{value:.3f}" for value in values)
            cells.append(f"{statistics.mean(values):.3f} ({each})")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw_learning(workdir: pathlib.Path, arms: list[str], seeds: list[str]) -> None:
    """Draws the held-out loss and agreement of every run against the step, an arm in one colour."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    names = ("eval_loss", "eval_agreement")
    for axis, name in zip(figure.subplots(1, 2), names, strict=True):
        for (number, arm), seed in itertools.product(enumerate(arms), seeds):
            rows = read_metrics(workdir / f"{arm}-{seed}" / "finetune" / "metrics.jsonl")
            steps = [row["step"] for row in rows if name in row]
            values = [row[name] for row in rows if name in row]
            label = arm if (name, seed) == (names[0], seeds[0]) else None
            axis.plot(steps, values, ".-", color=f"C{number}", label=label)
        axis.set(xlabel="step", ylabel=name.replace("_", " "))
        axis.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=len(arms))
    figure.savefig(workdir / "arms.png", dpi=110)


def write(workdir: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """Keeps what there is so far."""
    (workdir / "arms.json").write_text(json.dumps(rows, indent=1))
    (workdir / "arms.md").write_text(table(rows) + "\n")


if __name__ == "__main__":
    define_flags()
    app.run(main)
