"""How thresholds are chosen, and that tuning and segmenting are one path."""

import json
import math
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from maemem import layout
from maemem.assembly.networks import target as target_of
from maemem.assembly.volumes import open_raw, open_truth, read_truth
from maemem.blockwise.predict import predict_volume
from maemem.blockwise.segment import cut_region
from maemem.blockwise.store import open_labels
from maemem.config import affinity, bcd, markers, mutex, waterz
from maemem.scores.contract import Column
from maemem.scores.registry import make_selected
from maemem.stages import thresholds
from maemem.stages.segment import write_labels
from maemem.stages.thresholds import best_of, decide_thresholds, open_decoded
from tests import runs


def write_prediction(config, workdir):
    """What a network might say of the validation volume: its targets, with noise."""
    volume = open_raw(config, config.data.validation.labelled, workdir)
    entry = config.data.validation.labelled
    labels = open_truth(config, entry, workdir, volume).read(volume.region)
    asked = target_of(config)
    maps, _ = asked.targets({"labels": jnp.asarray(labels.astype(np.int32))[None]})
    noise = np.random.default_rng(0).normal(size=maps.shape)
    noisy = np.clip(0.1 + 0.8 * np.asarray(maps) + 0.1 * noise, 0, 1).astype(np.float32)
    predict_volume(
        lambda crops: noisy,
        volume,
        layout.prediction_path(workdir, "validation", "labelled"),
        region=volume.region,
        window_zyx=labels.shape,
        stride_zyx=labels.shape,
        batch_size=1,
        channels=asked.channels,
        identity={"network": "made up"},
        progress=False,
    )


@pytest.mark.parametrize(("better", "best"), [("lower", "low"), ("higher", "high")])
def test_the_best_thresholds_are_those_that_the_direction_says(better, best):
    column = Column("made_up", "made up", better)
    scores = {"middle": 0.3, "low": 0.2, "high": 0.4, "empty": {"low": 0.0, "high": 1.0}[best]}
    assert best_of(scores | {"unknown": math.nan}, {"empty"}, column) == best
    assert best_of({"unknown": math.nan, "empty": 0.5}, {"empty"}, column) == "empty"
    assert best_of({"first": 0.5, "second": 0.5}, set(), column) == "first"


@pytest.mark.parametrize(
    ("section", "target"),
    [
        (waterz(), affinity()),
        (mutex(), affinity(offsets="lee")),
        (markers(), bcd()),
        (markers(distance=False), bcd(distance=False)),
    ],
    ids=["waterz", "mutex", "markers", "markers without distance"],
)
def test_tuned_scores_are_those_of_segmenting_with_these_thresholds(tmp_path, section, target):
    """In blocks smaller than the volume, of which a part is scored."""
    config = runs.config()
    with config.unlocked():
        config.target, config.segment = target, section
        config.segment.update({"block_zyx": (8, 32, 32), "halo_zyx": (2, 8, 8), "smallest": 8})
        config.segment.grid = {n: v[:2] for n, v in section.grid.to_dict().items()}
        config.data.validation.labelled.scored = "1:7, 0:50, 9:64"
    write_prediction(config, tmp_path)
    decide_thresholds(config, tmp_path)
    record = json.loads((tmp_path / "segment" / "tuned.json").read_text())
    assert not (tmp_path / "segment" / "tuning").exists()
    tried = record["tried"]["network"]
    assert len(tried) == math.prod(len(v) for v in config.segment.grid.values())
    read, stored = open_decoded(config, tmp_path, "validation", "labelled", "network")
    truth, box = read_truth(config, tmp_path, config.data.validation.labelled)
    score, column = make_selected(config.evaluate, config.segment.select_by)
    for number, each in enumerate(tried[:: max(1, len(tried) // 3)]):
        thresholds = {name: value for name, value in each.items() if name != column.name}
        path = tmp_path / f"{number}.zarr"
        write_labels(config, "network", thresholds, read, stored, path)
        evidence = score.evidence.part(truth, open_labels(path).read(box))
        expected = score.values(evidence)[column.name]
        assert each[column.name] == pytest.approx(expected, nan_ok=True)


def test_a_workdir_may_be_a_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config, workdir = runs.config(segment__baselines=()), pathlib.Path("runs/mine")
    write_prediction(config, workdir)
    decide_thresholds(config, workdir)
    assert (tmp_path / "runs" / "mine" / "segment" / "tuned.json").exists()


def kill_at_the_second_cut(monkeypatch) -> list[int]:
    """Ends a tuning once, when it cuts a second time; counts how often it cuts."""
    cut = []

    def counted(*arguments, **options):
        cut.append(1)
        if len(cut) == 2:
            raise KeyboardInterrupt
        return cut_region(*arguments, **options)

    monkeypatch.setattr(thresholds, "cut_region", counted)
    return cut


@pytest.mark.parametrize(
    "change",
    [
        {"evaluate__adapted_rand__ignore_background": False},
        {"data__validation__labelled__scored": "1:7, 0:50, 9:64"},
    ],
    ids=["scores", "region"],
)
def test_what_was_tried_otherwise_is_tried_again(tmp_path, monkeypatch, change):
    before = runs.config(segment__grid__low=(0.0, 0.1), segment__baselines=())
    after = runs.config(segment__grid__low=(0.0, 0.1), segment__baselines=(), **change)
    fresh, killed = tmp_path / "fresh", tmp_path / "killed"
    for workdir in (fresh, killed):
        write_prediction(after, workdir)
    decide_thresholds(after, fresh)
    kill_at_the_second_cut(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        decide_thresholds(before, killed)
    decide_thresholds(after, killed)
    assert layout.tuned_path(killed).read_text() == layout.tuned_path(fresh).read_text()


def test_a_killed_tuning_goes_on(tmp_path, monkeypatch):
    config = runs.config(segment__grid__low=(0.0, 0.1), segment__baselines=())
    write_prediction(config, tmp_path)
    cut = kill_at_the_second_cut(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        decide_thresholds(config, tmp_path)
    decide_thresholds(config, tmp_path)
    assert len(cut) == 3  # Two ways to cut, of which the second was begun twice.
    killed = (tmp_path / "segment" / "tuned.json").read_text()
    (tmp_path / "segment" / "tuned.json").unlink()
    decide_thresholds(config, tmp_path)
    assert (tmp_path / "segment" / "tuned.json").read_text() == killed
