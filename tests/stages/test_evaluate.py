"""Scores of labels that were decoded from a made-up prediction: how bright each voxel is."""

import dataclasses
import json
import re
import shutil
from collections import Counter
from typing import ClassVar

import numpy as np
import pytest

from maemem import layout
from maemem.assembly.volumes import open_raw, open_scored
from maemem.blockwise.predict import predict_volume
from maemem.blockwise.store import read_labels
from maemem.geometry import Box
from maemem.reporting.card import Card, write_card
from maemem.reporting.page import Findings, render
from maemem.scores import SCORES
from maemem.scores.contract import Column, Evidence
from maemem.scores.registry import compare, make_scores
from maemem.stages import evaluate, segment
from maemem.stages.thresholds import methods
from tests import runs

SETS = ("validation", "test")


def brightness(crops):
    return np.repeat(crops[..., None] / np.float32(255), 3, -1)


@pytest.fixture(scope="module")
def segmented(tmp_path_factory):
    """A workdir in which the stage segment has run."""
    workdir, config = tmp_path_factory.mktemp("segmented"), runs.config()
    for name in SETS:
        raw = open_raw(config, config.data[name].labelled, workdir)
        predict_volume(
            brightness,
            raw,
            layout.prediction_path(workdir, name, "labelled"),
            region=Box((0, 0, 0), raw.shape_zyx),
            window_zyx=(4, 32, 32),
            stride_zyx=(4, 32, 32),
            batch_size=4,
            channels=("z-1", "y-1", "x-1"),
            identity={"network": "brightness"},
            progress=False,
        )
    segment.run(config, workdir)
    return workdir


@pytest.fixture
def workdir(segmented, tmp_path):
    return shutil.copytree(segmented, tmp_path / "copy")


def scores_of(workdir):
    return json.loads(layout.scores_path(workdir).read_text())


def test_scores_are_those_of_the_labels_against_the_truth(workdir):
    config = runs.config(segment__block_zyx=(3, 40, 27))
    evaluate.run(config, workdir)
    found = scores_of(workdir)
    assert found["networks"] == ["brightness"]
    assert found["thresholds"] == json.loads(layout.tuned_path(workdir).read_text())["thresholds"]
    for name in SETS:
        read, box = open_scored(config, workdir, config.data[name].labelled)
        scores = found["sets"][name]["labelled"]
        of_method = {layout.NETWORK: scores, **scores.pop("baselines")}
        assert set(of_method) == {layout.NETWORK, *config.segment.baselines}
        for method, row in of_method.items():
            labels = read_labels(layout.labels_path(workdir, name, "labelled", method), box)
            wanted = compare(make_scores(config.evaluate), read(box), labels)
            assert row == pytest.approx(wanted, nan_ok=True)


def test_a_volume_without_labels_has_no_scores(workdir, caplog):
    evaluate.run(runs.config(data__test__labelled__labels=""), workdir)
    found = scores_of(workdir)["sets"]
    assert found["test"] == {}
    assert list(found["validation"]) == ["labelled"]
    assert "test volume labelled has no labels" in caplog.text


def test_a_second_run_writes_the_same(workdir):
    evaluate.run(runs.config(), workdir)
    before = layout.scores_path(workdir).read_bytes()
    evaluate.run(runs.config(), workdir)
    assert layout.scores_path(workdir).read_bytes() == before


def test_the_test_set_is_scored_with_one_set_of_thresholds(workdir):
    evaluate.run(runs.config(), workdir)
    path = layout.tuned_path(workdir)
    path.write_text(path.read_text() + "\n")
    with pytest.raises(ValueError, match="the test set is scored once"):
        evaluate.run(runs.config(), workdir)


@pytest.mark.parametrize("lost", ["tuned", "labels", "prediction"])
def test_what_is_missing_is_named(workdir, lost):
    if lost == "tuned":
        layout.tuned_path(workdir).unlink()
    else:
        found = {"labels": layout.labels_path, "prediction": layout.prediction_path}[lost]
        shutil.rmtree(found(workdir, "test", "labelled"))
    with pytest.raises(FileNotFoundError, match="tuned.json" if lost == "tuned" else "labelled"):
        evaluate.run(runs.config(), workdir)
    assert not layout.scores_path(workdir).exists()


def test_the_table_has_a_line_for_each_volume_and_method():
    own, other = {"voi_split": 0.5, "ap": 1.0}, {"voi_split": 0.25, "ap": float("nan")}
    volumes = {"first": {**own, "baselines": {"fragments": other}}}
    lines = evaluate.table({"validation": {}, "test": volumes}).splitlines()
    assert [re.split("  +", line.strip()) for line in lines] == [
        ["set", "volume", "method", "VOI split ↓", "AP ↑"],
        ["test", "first", "network", "0.5000", "1.0000"],
        ["test", "first", "fragments", "0.2500", "nan"],
    ]


@dataclasses.dataclass(frozen=True)
class Filled:
    """A score of its own evidence: how much of the truth's foreground is in some object.

    Attributes:
      of: the whole, as a number.
    """

    columns: ClassVar = (Column("filled", "filled foreground", "higher"),)
    compares: ClassVar = "labels"
    evidence: ClassVar = Evidence(
        part=lambda truth, pieces: Counter(pieces[truth > 0].tolist()),
        merge=lambda parts: sum(parts, Counter()),
        rename=lambda counts, names: sum(
            (Counter({int(names[old]): count}) for old, count in counts.items()), Counter()
        ),
    )

    of: float = 100.0

    def values(self, counts, /):
        return {"filled": self.of * (1 - counts[0] / counts.total())}


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_another_score_is_tuned_by_evaluated_and_shown(workdir, monkeypatch, better):
    column = Column("filled", "filled foreground", better)
    monkeypatch.setattr(Filled, "columns", (column,))
    monkeypatch.setitem(SCORES, "filled", Filled)
    config = runs.config(segment__select_by="filled", segment__block_zyx=(3, 40, 27))
    assert config.evaluate.filled.of == 100
    config.evaluate.filled.of = 10.0
    shutil.rmtree(workdir / "segment")
    segment.run(config, workdir)
    tuned = json.loads(layout.tuned_path(workdir).read_text())
    tried = [row["filled"] for row in tuned["tried"][layout.NETWORK]]
    assert tuned["scores"][layout.NETWORK] == {"higher": max, "lower": min}[better](tried)
    assert min(tried) < max(tried) <= 10
    evaluate.run(config, workdir)
    scores = scores_of(workdir)
    for method in methods(config):
        own = scores["sets"]["test"]["labelled"]
        row = own if method == layout.NETWORK else own["baselines"][method]
        read, box = open_scored(config, workdir, config.data.test.labelled)
        labels = read_labels(layout.labels_path(workdir, "test", "labelled", method), box)
        inside = labels[read(box) > 0] > 0
        assert row["filled"] == pytest.approx(10 * inside.mean())
    assert column.heading in evaluate.table(scores["sets"]).splitlines()[0]
    page = render(Findings(title="run", scores=scores))
    assert f"<dt>{column.heading}</dt>" in page, "it is one of the large figures"
    assert f">{column.heading}</th>" in page
    card = Card(
        **dict.fromkeys(("name", "licence", "data", "citation", "version"), "made up"),
        stage="finetune",
        voxel_size_nm=(30, 6, 6),
        config=config.to_dict(),
        scores=scores,
        thresholds=tuned["thresholds"],
    )
    assert f"| {column.heading} |" in write_card(card)
