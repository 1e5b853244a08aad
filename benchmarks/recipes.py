"""How soon pre-training gets somewhere: with rotary embedding or not, decoding all tokens or some.

    python -m benchmarks.recipes --config=configs/pretrain_fib25.py --workdir=runs/recipes \\
        --set=data.root=DATA --set=pretrain.steps=1500

Each recipe is an ordinary run, in a workdir of its own, so the same command goes on where it was
stopped. All of them see the same crops and masks, and are evaluated on the same. Ends with
WORKDIR/recipes.png, held-out error against training time (without evaluations and compilation), and
a table of the time that each took to the error at which the worst ended. It wants a quiet machine.
"""

from __future__ import annotations

import json
import pathlib
from typing import NamedTuple

from absl import app
from matplotlib.figure import Figure

from benchmarks.runs import define_flags, run, workdir
from maemem.training.metrics import read_metrics

RECIPES: dict[str, dict[str, str]] = {
    "as the config": {},
    "no rotary embedding": {"model.encoder.rotary": "False"},
    "64 masked tokens decoded": {"pretrain.learner.decoded": "64"},
    "neither rotary nor all decoded": {
        "model.encoder.rotary": "False",
        "pretrain.learner.decoded": "64",
    },
}


class Curve(NamedTuple):
    """Held-out error while training."""

    minutes: list[float]
    errors: list[float]

    def minutes_to(self, error: float) -> float:
        """When the error was first that low."""
        return next(m for m, e in zip(*self, strict=True) if e <= error)


def main(argv: list[str]) -> None:
    del argv
    curves = {}
    for recipe, fields in RECIPES.items():
        name = recipe.replace(" ", "_").replace(",", "")
        curves[recipe] = curve(run(name, {"stages": "('pretrain',)", **fields}))
    draw(workdir() / "recipes.png", curves)
    print(table(curves))


def curve(folder: pathlib.Path) -> Curve:
    """The errors of a run, and the time that the steps up to each took."""
    training = json.loads((folder / "config.json").read_text())["config"]["pretrain"]
    minutes, points, last = 0.0, [], 0.0
    for row in read_metrics(folder / "pretrain" / "metrics.jsonl"):
        crops, last = (row["step"] - last) * training["batch_size"], row["step"]
        minutes += crops / row["crops_per_second"] / 60  # Its clock starts after compilation.
        if "eval_masked_mse" in row:
            points.append((minutes, row["eval_masked_mse"]))
    return Curve(*map(list, zip(*points, strict=True)))


def table(curves: dict[str, Curve]) -> str:
    """What each recipe came to, and how soon it was where the worst one ended, as Markdown."""
    goal = max(each.errors[-1] for each in curves.values())
    rows = [f"| recipe | minutes | error at the end | minutes to {goal:.3f} |", "|---|---|---|---|"]
    for recipe, each in curves.items():
        cells = (each.minutes[-1], each.errors[-1], each.minutes_to(goal))
        rows.append(f"| {recipe} | {cells[0]:.1f} | {cells[1]:.3f} | {cells[2]:.1f} |")
    return "\n".join(rows)


def draw(path: pathlib.Path, curves: dict[str, Curve]) -> None:
    """Draws held-out error against training time."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axis = figure.subplots()
    for recipe, each in curves.items():
        axis.plot(each.minutes, each.errors, ".-", label=recipe)
    axis.set(xlabel="minutes of training", ylabel="held-out masked error")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    define_flags()
    app.run(main)
