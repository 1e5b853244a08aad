"""The card of a model folder: model, training data, scores, licence."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from maemem.geometry import format_zyx
from maemem.layout import WORKDIR
from maemem.scores.registry import columns


@dataclasses.dataclass(frozen=True)
class Card:
    """The content of a card.

    Attributes:
      name: of the model.
      stage: that trained it, `pretrain` or `finetune`.
      licence: of the weights.
      data: what it was trained on, as the exporter describes it.
      citation: what to cite; may be empty.
      voxel_size_nm: of the training volumes, before binning, z y x.
      config: all fields, by section.
      scores: of the stage evaluate, or None.
      thresholds: of the stage segment, by method, or None.
      version: of maemem.
    """

    name: str
    stage: str
    licence: str
    data: str
    citation: str
    voxel_size_nm: Sequence[float]
    config: Mapping[str, Any]
    scores: Mapping[str, Any] | None
    thresholds: Mapping[str, Any] | None
    version: str


def write_card(card: Card) -> str:
    """The card as Markdown."""
    fine_tuned = card.stage == "finetune"
    what = "segments" if fine_tuned else "has learnt to see, without labels,"
    parts = [
        f"# {card.name}\n\nA network of maemem {card.version} that {what} volume electron "
        f"microscopy.",
        f"## How to load it\n\n{_segmenting(card) if fine_tuned else _encoder()}",
        f"## What it was trained on\n\n{card.data}\n\n{_volumes(card)}",
        f"## What it is\n\n{_network(card)}",
    ]
    if fine_tuned:
        parts.append(f"## Scores\n\n{_scores(card)}")
    parts.append(f"## Licence\n\n{card.licence}")
    if card.citation:
        parts.append(f"## Citation\n\n{card.citation}")
    return "\n\n".join(parts) + "\n"


def _segmenting(card: Card) -> str:
    size = "x".join(f"{nm:g}" for nm in card.voxel_size_nm)
    return (
        '```python\nimport maemem\n\nmodel = maemem.load("FOLDER")\n'
        "labels = model.segment(volume)  # raw intensities [z y x] to objects [z y x]\n```\n\n"
        f"Volumes should have voxels of about {size} nm (z, y, x). To go on from it: "
        f"`--config.finetune.encoder=FOLDER`. {_large(card)}"
    )


def _large(card: Card) -> str:
    if not card.thresholds:
        return (
            "No thresholds were tuned, so `segment` refuses, and `model.predict(volume)` gives "
            "probabilities."
        )
    return (
        "Larger ones than memory:\n\n"
        "    python -m maemem.main --config=maemem:apply:FOLDER --workdir=runs/large \\\n"
        "        --config.data.test.volume.path=large.zarr"
    )


def _encoder() -> str:
    return (
        "Fine-tuning starts from it with `--config.finetune.encoder=FOLDER`, with the fields of "
        "`model` as in `config.json`."
    )


def _volumes(card: Card) -> str:
    lines = ["| volume | region | labels |", "|---|---|---|"]
    for name, entry in card.config["data"]["train"].items():
        labels = "used" if entry["labels"] and card.stage == "finetune" else "none"
        lines.append(f"| {name} | {entry['region'] or 'all'} | {labels} |")
    return "\n".join(lines)


def _network(card: Card) -> str:
    config, training = card.config, card.config[card.stage]
    model = config["model"]
    started = training["encoder"].replace(WORKDIR, "pre-training in the same run")
    rows = {
        "crop": f"{format_zyx(config['data']['crop_zyx'])} voxels",
        "encoder": _described(model["encoder"]),
        "learner": _described(training["learner"]),
        "training": f"{training['steps']} steps of {training['batch_size']} crops",
        "encoder started from": started or "scratch",
    }
    if card.stage == "finetune":
        rows |= {
            "segmenter": _described(model["segmenter"]),
            "target": _described(config["target"]),
        }
    if card.thresholds:
        rows["thresholds"] = f"`{json.dumps(card.thresholds)}`"
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines, "", "All fields are in `config.json`."])


def _described(section: Mapping[str, Any]) -> str:
    """A section of a config in words: its kind, and its fields."""
    fields = {name: value for name, value in section.items() if name != "kind"}
    return ", ".join([section["kind"], *(f"{name} {value}" for name, value in fields.items())])


def _scores(card: Card) -> str:
    if card.scores is None:
        return "It was not scored."
    named = columns()
    lines: list[str] = []
    for name, volumes in card.scores["sets"].items():
        for volume, scores in volumes.items():
            own = {key: value for key, value in scores.items() if key != "baselines"}
            if not lines:
                names = [named[key].heading if key in named else key for key in own]
                lines = ["| | " + " | ".join(names) + " |", "|---" * (1 + len(own)) + "|"]
            numbers = " | ".join(f"{value:.4f}" for value in own.values())
            lines.append(f"| {name} {volume} | {numbers} |")
    note = (
        "↓ lower is better, ↑ higher is better. Thresholds were tuned on the validation volumes "
        "and then frozen."
    )
    return "\n".join([*lines, "", note]) if lines else "No volume had labels to score by."
