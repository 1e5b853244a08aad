"""The page is whole, balanced HTML, loads nothing, and shows hostile text as text."""

import base64
import io
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from maemem import pictures
from maemem.reporting.errors import Spot
from maemem.reporting.page import Findings, Panel, VolumeErrors, flatten, render, score_rows

HOSTILE = (
    "</td><script>alert(1)</script><img src=x onerror=\"alert('2')\"> & <!-- <style> http://a.b"
)
VOID = {"meta", "img", "br"}


class Reader(HTMLParser):
    """Follows the tags of a page, and keeps its text, attributes and cells."""

    def __init__(self, page: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(page)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, "elements are nested"

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def findings(text: str = "tissue") -> Findings:
    """One of everything, with this text wherever there may be any."""
    png = pictures.draw_tiles({"z": {"raw": np.full((20, 20, 3), 9, np.uint8)}})
    panel = Panel(png, f"{text} drawn. And more.", wide=True)
    own = {"adapted_rand": 0.1234, "voi_split": 0.5, "ap50": None, text: 3}
    fragments = {"adapted_rand": 0.75, "recall": float("nan")}
    spot = Spot("merge", 4, 11, 12_345, (1, 2, 3))
    return Findings(
        title=f"run {text}",
        scores={
            "sets": {
                "validation": {text: {"adapted_rand": 0.1111}},
                "test": {text: {**own, "baselines": {f"{text} watershed": fragments}}},
            }
        },
        tuned={"network": {"threshold": 0.375, text: text}},
        segmentations=[panel],
        errors=[VolumeErrors(text, [spot], (100, 0, 10), (30.0, 6.0, 4.6), panel)],
        predictions=[panel],
        learning=[panel],
        reconstructions=[Panel(png, text, paper=True)],
        timings={"pretrain": 3723.0, "finetune": 196.2, text: 4.21},
        record={
            "config": {"data": {"root": text, text: {"path": "gs://bucket/a"}}, "seed": 0},
            "versions": {"jax": "0.10.2", "other": text},
            "commit": text,
        },
    )


def test_the_page_is_balanced_and_loads_nothing():
    page = render(findings())
    reader = Reader(page)
    assert page.startswith("<!DOCTYPE html>\n")
    names = {name for name, _ in reader.tags}
    assert {"html", "head", "title", "body", "table", "details"} <= names
    assert not names & {"script", "link", "iframe", "object", "base", "form"}
    for name, attributes in reader.tags:
        assert not {"href", "action", "data", "srcset"} & attributes.keys()
        assert not [key for key in attributes if key.startswith("on")]
        if name == "img":
            assert attributes["alt"]
    assert "http:" not in page
    assert "https:" not in page
    assert "url(" not in page


def test_pictures_are_in_the_page():
    images = [attributes for tag, attributes in Reader(render(findings())).tags if tag == "img"]
    assert len(images) == 5
    for attributes in images:
        head, data = (attributes["src"] or "").split(",")
        assert head == "data:image/png;base64"
        Image.open(io.BytesIO(base64.b64decode(data, validate=True))).verify()


def test_hostile_text_is_shown_and_never_becomes_markup():
    page, tame = render(findings(HOSTILE)), render(findings())
    reader = Reader(page)

    def shape(seen: Reader):
        return [(tag, sorted(attributes)) for tag, attributes in seen.tags]

    assert shape(reader) == shape(Reader(tame)), "the text changes no tag and no attribute"
    assert "<script" not in page.lower()
    assert "".join(reader.text).count(HOSTILE) >= 12
    assert ["data.root", HOSTILE] in reader.rows
    assert ["commit", HOSTILE] in reader.rows


def test_chief_scores_come_first_and_are_those_of_the_test_set():
    text = "".join(Reader(render(findings())).text)
    assert text.index("0.123") < text.index("Scores") < text.index("0.111")
    assert "tissue watershed 0.750" in text[: text.index("Scores")]


def test_scores_have_a_row_each_and_a_dash_where_there_is_none():
    rows = Reader(render(findings())).rows
    start = next(i for i, row in enumerate(rows) if "method" in row)
    heading, *body = rows[start : start + 4]
    assert heading == [
        *("set", "volume", "method", "adapted Rand error ↓", "recall ↑"),
        *("VOI split ↓", "AP-50 ↑", "tissue"),
    ]
    assert body == [
        ["validation", "tissue", "network", "0.111", "–", "–", "–", "–"],
        ["test", "tissue", "network", "0.123", "–", "0.500", "–", "3"],
        ["test", "tissue", "tissue watershed", "0.750", "nan", "–", "–", "–"],
    ]


def test_score_rows_follow_any_nesting():
    tree = {"test": {"a": {"x": 1.0, "baselines": {"b": {"x": 2.0, "deep": {"y": 3.0}}}}}}
    assert list(score_rows(tree)) == [
        (("test", "a", "network"), {"x": 1.0}),
        (("test", "a", "b"), {"x": 2.0}),
        (("test", "a", "b / deep"), {"y": 3.0}),
    ]
    assert list(score_rows({"test": {}})) == []


def test_spots_are_given_in_the_whole_volume():
    rows = Reader(render(findings())).rows
    assert ["1", "merge", "4", "11", "12,345", "101, 2, 13", "3030, 12, 60"] in rows


def test_timings_and_config_are_listed():
    rows = Reader(render(findings())).rows
    for row in (
        ["pretrain", "1 h 2 min"],
        ["finetune", "3 min 16 s"],
        ["tissue", "4.2 s"],
        ["all", "1 h 5 min"],
        ["data.tissue.path", "gs://bucket/a"],
        ["network.threshold", "0.375"],
        ["jax", "0.10.2"],
    ):
        assert row in rows
    assert flatten({"a": {"b": 1, "c": {}}, "d": 2}) == {"a.b": 1, "d": 2}


def test_what_is_absent_is_named_once():
    page = render(Findings(title="empty", timings={"pretrain": 1.0}))
    reader = Reader(page)
    assert [tag for tag, _ in reader.tags].count("section") == 1
    assert (
        "".join(reader.text)
        .rstrip()
        .endswith(
            "Not in this workdir: scores, segmentation, splits and merges, prediction, learning, "
            "reconstruction, config, versions."
        )
    )
    assert "Not in this workdir" not in render(findings())


def test_no_errors_is_said():
    errors = VolumeErrors("tissue", [], (0, 0, 0), (1.0, 1.0, 1.0), None)
    assert "No voxel is split or merged." in render(Findings(title="t", errors=[errors]))


def test_a_browser_shows_the_scores(tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium to open the page with; Debian's package is called chromium")
    page = tmp_path / "index.html"
    page.write_text(render(findings(HOSTILE)), encoding="utf-8")
    done = subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    seen = Reader(done.stdout)
    assert "adapted Rand error" in "".join(seen.text)
    assert any("0.123" in row for row in seen.rows)
    assert [tag for tag, _ in seen.tags].count("img") == 5
