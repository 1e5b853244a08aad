"""The report of a run, as one HTML page that needs nothing outside it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from maemem.geometry import Zyx
from maemem.layout import NETWORK
from maemem.pictures import ERROR_COLOURS
from maemem.reporting.errors import Spot
from maemem.reporting.markup import Html, element, join, page, picture, section, table, text
from maemem.scores import SCORES
from maemem.scores.registry import columns


@dataclasses.dataclass(frozen=True)
class Panel:
    """A picture with what is to be said of it.

    Attributes:
      png: the file.
      caption: below the picture; the first sentence stands for it where it cannot be seen.
      paper: whether its ground must be white.
      wide: whether it loses too much on a narrow screen, and rather scrolls there.
    """

    png: bytes
    caption: str
    paper: bool = False
    wide: bool = False


@dataclasses.dataclass(frozen=True)
class VolumeErrors:
    """The largest errors in a volume.

    Attributes:
      volume: its name, and which part of it was compared.
      spots: in voxels of what was compared.
      offset_zyx: where that begins in the whole volume, in voxels.
      voxel_size_nm: z y x.
      panel: of the first spots, numbered from 1.
    """

    volume: str
    spots: Sequence[Spot]
    offset_zyx: Zyx
    voxel_size_nm: tuple[float, float, float]
    panel: Panel | None


@dataclasses.dataclass(frozen=True)
class Findings:
    """What there is to report; empty is what the workdir does not hold.

    Attributes:
      title: of the page.
      scores: as the evaluation wrote them: `sets` holds set, volume, then scores by name; a nested
        mapping holds those of another method.
      tuned: what the scores were made with: thresholds, in nested mappings.
      segmentations: pictures of label volumes.
      errors: a volume each.
      predictions: pictures of what the network predicts.
      learning: pictures of curves.
      reconstructions: pictures of held-out crops.
      timings: seconds, by stage.
      record: the config, the versions of the libraries and the commit.
    """

    title: str
    scores: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tuned: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    segmentations: Sequence[Panel] = ()
    errors: Sequence[VolumeErrors] = ()
    predictions: Sequence[Panel] = ()
    learning: Sequence[Panel] = ()
    reconstructions: Sequence[Panel] = ()
    timings: Mapping[str, float] = dataclasses.field(default_factory=dict)
    record: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def render(findings: Findings) -> str:
    """The page.

    Whatever stands in the findings is shown as text, never as markup.
    """
    rows = list(score_rows(findings.scores.get("sets", {})))
    parts = {
        "Scores": _scores(rows, findings.tuned),
        "Segmentation": _pictures("Segmentation", findings.segmentations),
        "Splits and merges": _errors(findings.errors),
        "Prediction": _pictures("Prediction", findings.predictions),
        "Learning": _pictures("Learning", findings.learning),
        "Reconstruction": _pictures("Reconstruction", findings.reconstructions),
        "Timings": _timings(findings.timings),
        "Config": _config(findings.record.get("config", {})),
        "Versions": _versions(findings.record),
    }
    missing = [title.lower() for title, part in parts.items() if not part]
    header = element("header", join([element("h1", text(findings.title)), _chief(rows)]))
    body = [header, *(part for part in parts.values() if part)]
    if missing:
        body.append(element("p", text(f"Not in this workdir: {', '.join(missing)}."), "faint"))
    return page(findings.title, join(body))


def score_rows(
    tree: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, str, str], dict[str, float]]]:
    """Scores in nested mappings, as rows.

    Args:
      tree: set, volume, then scores by name, and further mappings with those of other methods;
        a level called `baselines` goes without saying.
      path: the names above the tree.

    Yields:
      set, volume and method; and the scores by name, which are numbers or, where there is none,
      None.
    """
    leaves = {name: value for name, value in tree.items() if not isinstance(value, Mapping)}
    if leaves:
        names = [name for name in path if name != "baselines"] + [""] * 2
        yield (names[0], names[1], " / ".join(names[2:-2]) or NETWORK), leaves
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from score_rows(value, (*path, name))


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, whose names are joined by dots."""
    flat = {}
    for name, value in tree.items():
        nested = isinstance(value, Mapping)
        flat |= flatten(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return flat


def _number(value: object) -> str:
    """A score as text; a dash where there is none."""
    if isinstance(value, float):
        return f"{value:.3f}" if math.isfinite(value) else str(value)
    return "–" if value is None else str(value)


def _chief(rows: Sequence) -> Html:
    """The first column of each score in large figures, of the test set if it was scored."""
    sets = [place[0] for place, _ in rows]
    chosen = "test" if "test" in sets else sets[-1] if sets else ""
    blocks = []
    for (name, volume, method), scores in rows:
        if name != chosen or method != NETWORK:
            continue
        others = {p[2]: s for p, s in rows if p[:2] == (name, volume) and p[2] != NETWORK}
        cards = []
        for first in (score.columns[0] for score in SCORES.values()):
            if scores.get(first.name) is None:
                continue
            beside = [f"{m} {_number(s[first.name])}" for m, s in others.items() if first.name in s]
            lines = [element("dt", text(first.heading))]
            lines += [element("dd", text(_number(scores[first.name])))]
            lines += [element("dd", text(line)) for line in beside]
            cards.append(element("div", join(lines)))
        blocks.append(element("p", text(f"{volume}, {name}"), "faint"))
        blocks.append(element("dl", join(cards), "chief") if cards else Html(""))
    return join(blocks)


def _scores(rows: Sequence, tuned: Mapping[str, Any]) -> Html:
    if not rows:
        return Html("")
    present = {name for _, scores in rows for name in scores}
    named = {name: column.heading for name, column in columns().items() if name in present}
    named |= {name: name for name in sorted(present - set(named))}
    headings = ["set", "volume", "method", *named.values()]
    cells = [[*place, *(_number(scores.get(name)) for name in named)] for place, scores in rows]
    own = [i for i, (place, _) in enumerate(rows) if place[2] == NETWORK]
    parts = [table(headings, cells, numeric_from=3, strong=own)]
    parts.append(element("p", text("↓ lower is better, ↑ higher is better."), "faint"))
    if tuned:
        parts.append(element("h3", text("Tuned on the validation set, then frozen")))
        parts.append(table(["field", "value"], flatten(tuned).items()))
    return section("Scores", *parts)


def _pictures(title: str, panels: Sequence[Panel]) -> Html:
    return section(title, *map(_panel, panels)) if panels else Html("")


def _panel(panel: Panel) -> Html:
    kind = " ".join(name for name in ("paper", "wide") if getattr(panel, name))
    return picture(panel.png, panel.caption.split(". ")[0], text(panel.caption), kind)


def _errors(volumes: Sequence[VolumeErrors]) -> Html:
    if not volumes:
        return Html("")
    meanings = (
        "split: voxels of an object that are not in its main segment",
        "merge: voxels of a segment that are not of its main object",
        "both: a piece of one object in the segment of another",
    )
    keys = [
        Html(f'<span class="key" style="background: {colour}"></span>{text(meaning)}<br>')
        for colour, meaning in zip(ERROR_COLOURS[1:], meanings, strict=True)
    ]
    parts = [element("p", join(keys))]
    for volume in volumes:
        parts.append(element("h3", text(volume.volume)))
        if not volume.spots:
            parts.append(element("p", text("No voxel is split or merged.")))
            continue
        parts.append(_spot_table(volume))
        if volume.panel:
            parts.append(_panel(volume.panel))
    return section("Splits and merges", *parts)


def _spot_table(volume: VolumeErrors) -> Html:
    headings = ["", "error", "true id", "segment", "voxels", "voxel z, y, x", "nm z, y, x"]
    rows = []
    for i, spot in enumerate(volume.spots, 1):
        at = [a + b for a, b in zip(spot.centre_zyx, volume.offset_zyx, strict=True)]
        nm = [round(n * size) for n, size in zip(at, volume.voxel_size_nm, strict=True)]
        where = [", ".join(map(str, place)) for place in (at, nm)]
        rows.append([i, spot.kind, spot.truth, spot.predicted, f"{spot.voxels:,}", *where])
    return table(headings, rows, numeric_from=2)


def _timings(timings: Mapping[str, float]) -> Html:
    if not timings:
        return Html("")
    rows = [(stage, _duration(seconds)) for stage, seconds in timings.items()]
    total = ("all", _duration(sum(timings.values())))
    return section(
        "Timings", table(["stage", "time"], [*rows, total], numeric_from=1, strong=[len(rows)])
    )


def _duration(seconds: float) -> str:
    """Seconds as `1 h 2 min`, `3 min 16 s` or `4.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole % 60} s"


def _config(config: Mapping[str, Any]) -> Html:
    if not config:
        return Html("")
    flat = flatten(config)
    fields = table(["field", "value"], flat.items(), kind="config")
    summary = element("summary", text(f"{len(flat)} fields"))
    return section("Config", element("details", join([summary, fields])))


def _versions(record: Mapping[str, Any]) -> Html:
    versions = dict(record.get("versions") or {})
    if record.get("commit"):
        versions["commit"] = record["commit"]
    return section("Versions", table(["", ""], versions.items())) if versions else Html("")
