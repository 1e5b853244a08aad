"""From an encoder to scores: all stages in one run, and what they refuse."""

import json
import logging
import re
import shutil

import numpy as np
import pytest

from maemem.blockwise.store import open_prediction, read_labels
from maemem.config import bcd, markers
from maemem.geometry import blocks
from maemem.scores.contingency import contingency
from maemem.stages import evaluate, predict, segment, train
from maemem.stages.predict import network_digest
from maemem.stages.thresholds import check_thresholds, methods
from maemem.training.checkpoint import read_parameters
from tests import runs


@pytest.fixture
def workdir(whole, tmp_path):
    """A copy of it, to do harm to."""
    return shutil.copytree(whole[0], tmp_path / "copy")


@pytest.mark.slow
def test_all_stages_leave_their_results_and_the_report_is_named(whole):
    workdir, printed = whole
    assert f"report: {workdir}/report/index.html" in printed.splitlines()[-1]
    assert "parameters matched, of encoder" in printed
    for name in ("validation", "test"):
        stored = open_prediction(workdir / "predict" / name / "labelled.zarr")
        assert stored.channels == ("z-1", "y-1", "x-1")
        assert stored.region.shape_zyx == (8, 64, 64)
        for method in ("", ".fragments", ".intensity"):
            labels = read_labels(workdir / "segment" / name / f"labelled{method}.zarr")
            assert labels.shape == (8, 64, 64)
    scores = json.loads((workdir / "evaluate" / "scores.json").read_text())
    assert scores["networks"] == [network_digest(workdir)]
    own = scores["sets"]["test"]["labelled"]
    assert own["baselines"].keys() == {"fragments", "intensity"}
    assert 0 <= own["adapted_rand"] <= 1
    timings = json.loads((workdir / "timings.json").read_text())
    assert list(timings) == ["pretrain", "finetune", "predict", "segment", "evaluate", "report"]
    page = (workdir / "report" / "index.html").read_text()
    assert f"{own['adapted_rand']:.3f}" in page
    rows = [
        json.loads(line)
        for line in (workdir / "finetune" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert [row["step"] for row in rows if "eval_loss" in row] == [2, 4]


@pytest.mark.slow
def test_what_tuning_chose_is_the_best_that_it_tried(whole):
    tuned = json.loads((whole[0] / "segment" / "tuned.json").read_text())
    tried = tuned["tried"]["network"]
    assert len(tried) == 2 * 2 * 8
    assert tuned["select_by"] == "adapted_rand"
    best = min(tried, key=lambda row: row["adapted_rand"])
    assert tuned["scores"]["network"] == best["adapted_rand"]
    chosen = tuned["thresholds"]["network"]
    assert {**chosen, "adapted_rand": best["adapted_rand"]} == best
    assert tuned["thresholds"]["fragments"] == {name: chosen[name] for name in ("low", "high")}


@pytest.mark.slow
def test_other_thresholds_than_the_frozen_ones_are_refused(workdir):
    path = workdir / "segment" / "tuned.json"
    tuned = json.loads(path.read_text())
    tuned["thresholds"]["network"]["threshold"] = 0.123
    path.write_text(json.dumps(tuned))
    before = (workdir / "evaluate" / "scores.json").read_text()
    with pytest.raises(ValueError, match="made with other thresholds than those in segment/tuned"):
        segment.run(runs.config(), workdir)
    with pytest.raises(ValueError, match="the test set is scored once"):
        evaluate.run(runs.config(), workdir)
    (workdir / "evaluate" / "scores.json").unlink()
    with pytest.raises(ValueError, match="made with other thresholds than those in segment/tuned"):
        evaluate.run(runs.config(), workdir)
    assert before


def edit(path, change):
    """Changes the JSON of a file."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def own(metadata):
    """What is kept beside a result of what it was made of."""
    return metadata["attributes"]["maemem"]["attributes"]


MADE = {"validation": "segment/tuned.json", "test": "segment/test/labelled.zarr"}


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE)
def test_what_was_made_of_another_prediction_is_refused(workdir, name):
    path = workdir / "predict" / name / "labelled.zarr/zarr.json"
    edit(path, lambda content: own(content).update(network="another"))
    message = rf"{MADE[name]} was made of another .*: network was \w{{16}} and is another\. Bring"
    before = files(workdir)
    for stage in (segment, evaluate):
        with pytest.raises(ValueError, match=message):
            stage.run(runs.config(), workdir)
    assert files(workdir) == before


@pytest.mark.slow
def test_labels_that_were_made_otherwise_are_refused(workdir):
    for stage in (segment, evaluate):
        with pytest.raises(ValueError, match=r"settings was .*'smallest': 8.* and is .*: 9"):
            stage.run(runs.config(segment__smallest=9), workdir)


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE)
def test_what_does_not_say_of_which_prediction_it_was_made_is_refused(workdir, name):
    path = workdir / MADE[name]
    if name == "validation":
        edit(path, lambda content: content.pop("predictions"))
        (workdir / "evaluate/scores.json").unlink()  # It would be missed first.
    else:
        edit(path / "zarr.json", lambda content: own(content).pop("prediction"))
    for stage in (segment, evaluate):
        with pytest.raises(ValueError, match=f"{MADE[name]} does not say which prediction"):
            stage.run(runs.config(), workdir)


@pytest.mark.slow
@pytest.mark.parametrize("seen", ["segment", "evaluate"])
def test_tuning_again_after_the_test_set_was_seen_is_refused(workdir, seen):
    (workdir / "segment" / "tuned.json").unlink()
    other = {"segment": workdir / "evaluate", "evaluate": workdir / "segment" / "test"}[seen]
    shutil.rmtree(other)
    with pytest.raises(ValueError, match="tuning again after having seen the test set"):
        segment.run(runs.config(), workdir)
    assert not (workdir / "segment" / "tuned.json").exists()


@pytest.mark.slow
def test_a_second_run_keeps_everything(workdir):
    before = files(workdir)
    # As a run leaves it that is killed right after it has given a result its name.
    for folder in ("predict/test/labelled.zarr", "segment/test/labelled.zarr"):
        (workdir / folder / ".conversion").mkdir()
        (workdir / folder / ".conversion/lock").touch()
    for stage in (predict, segment, evaluate):
        stage.run(runs.config(), workdir)
    assert files(workdir) == before


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_where_nothing_can_be_scored_there_are_no_baselines(tmp_path, monkeypatch):
    (tmp_path / "segment").mkdir()
    (tmp_path / "segment" / "tuned.json").write_text("{}")
    config = runs.config(data__test__labelled__labels="")
    tuned = {method: {} for method in methods(config)}
    done = []
    monkeypatch.setattr(segment, "tuned_thresholds", lambda *_, **__: tuned)
    monkeypatch.setattr(segment, "_segment", lambda *given: done.append((given[2], given[4])))
    segment.run(config, tmp_path)
    network, *baselines = tuned
    assert baselines
    assert done == [*(("validation", method) for method in tuned), ("test", network)]


@pytest.mark.slow
def test_workers_leave_the_same_bytes(whole, workdir):
    names = ("predict", "segment", "evaluate")
    for name in names:
        shutil.rmtree(workdir / name)
    for stage in (predict, segment, evaluate):
        stage.run(runs.config(runtime__workers="local:2"), workdir)
    for name in names:
        assert files(workdir / name) == files(whole[0] / name)


def test_evaluate_tells_how_far_it_is(caplog, monkeypatch):
    monkeypatch.setattr("maemem.logs._LOG_EVERY_SECONDS", -1)
    ones = np.ones((2, 2, 2), int)
    parts = list(blocks((4, 4, 2), (2, 2, 2)))
    with caplog.at_level(logging.INFO, logger="maemem"):
        tables = list(evaluate._counted(lambda part: contingency(ones, ones), parts, map))
    assert len(tables) == len(caplog.messages) == 4
    last = caplog.messages[-1]
    assert re.fullmatch(r"counted 4 of 4 blocks, .* blocks/s, 0:00:00 left", last)


@pytest.mark.slow
def test_arms_differ_in_the_start_of_the_encoder_and_in_nothing_else(whole, tmp_path):
    """The first step has a learning rate of 0, so its checkpoint holds what the run began with."""
    encoder = str(whole[0])
    for arm, path in (("scratch", ""), ("pretrained", encoder)):
        config = runs.config(finetune__encoder=path, finetune__steps=2)
        train.run(config, tmp_path / arm, "finetune")
    scratch, _ = read_parameters(
        tmp_path / "scratch" / "finetune" / "checkpoints" / "1", "finetune"
    )
    other, _ = read_parameters(
        tmp_path / "pretrained" / "finetune" / "checkpoints" / "1", "finetune"
    )
    source, _ = read_parameters(whole[0], "pretrain")
    assert_same(other["encoder"], source["encoder"])
    with pytest.raises(AssertionError):
        assert_same(scratch["encoder"], source["encoder"])
    assert scratch.keys() == other.keys()
    for name in scratch.keys() - {"encoder"}:
        assert_same(scratch[name], other[name])
    rows = [
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted(tmp_path.glob("*/finetune/metrics.jsonl"))
    ]
    rates = [[row["learning_rate"] for row in arm] for arm in rows]
    assert rates[0] == rates[1]


@pytest.mark.slow
def test_a_frozen_encoder_stays_as_it_was_pre_trained(whole, tmp_path):
    config = runs.config(
        finetune__encoder=str(whole[0]),
        finetune__optimizer__frozen=("encoder",),
        finetune__steps=2,
    )
    train.run(config, tmp_path, "finetune")
    trained, _ = read_parameters(tmp_path, "finetune")
    source, _ = read_parameters(whole[0], "pretrain")
    assert_same(trained["encoder"], source["encoder"])
    start, _ = read_parameters(tmp_path / "finetune" / "checkpoints" / "1", "finetune")
    with pytest.raises(AssertionError):
        assert_same(trained["head"], start["head"])


@pytest.mark.parametrize("inside", ["", "pretrain/checkpoints", "pretrain/checkpoints/8"])
def test_an_encoder_that_was_pre_trained_with_another_patch_is_refused(
    pretrained, tmp_path, inside
):
    config = runs.config(
        finetune__encoder=str(pretrained / inside),
        model__encoder__patch_zyx=(4, 4, 4),
        model__encoder__heads=3,
        model__segmenter__channels=(4, 4),
    )
    with pytest.raises(ValueError, match=r"(?s)heads: 2 there, 3 now.*\[4, 4, 4\] now"):
        train.run(config, tmp_path, "finetune")


@pytest.mark.slow
@pytest.mark.parametrize("field", ["model.encoder.rotary", "target.kind"])
def test_a_segmenter_that_was_trained_otherwise_is_refused(whole, tmp_path, field):
    config = runs.config(
        predict__network=str(whole[0]), model__encoder__rotary=field != "model.encoder.rotary"
    )
    if field == "target.kind":  # With as many channels.
        config.target, config.segment = bcd(), markers()
    with pytest.raises(ValueError, match=rf"trained with another config(?s:.*) {field}: "):
        predict.run(config, tmp_path)


def test_a_volume_without_labels_cannot_be_learnt_from(tmp_path):
    config = runs.config(data__train__labelled__labels="")
    with pytest.raises(ValueError, match=re.escape("no volume of data.train has labels")):
        train.run(config, tmp_path, "finetune")


def test_labels_of_another_shape_are_refused(tmp_path):
    other = "synthetic:?shape_zyx=8,64,64&seed=2&show=neurites"
    config = runs.config(data__train__labelled__labels=other)
    with pytest.raises(ValueError, match=r"have shape zyx 8x64x64, and their volume .* 12x64x64"):
        train.run(config, tmp_path, "finetune")


SCORED = {"data__train__labelled__scored": "1:9,:,:"}


def scored_on(other):
    """The test set, by mistake, is the tissue of another one."""
    return {
        f"data__test__labelled__{field}": runs.TINY[f"data.{other}.labelled.{field}"]
        for field in ("path", "labels")
    }


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"data__test__labelled__path": "nowhere.zarr"}, "nowhere.zarr"),
        ({"data__test__labelled__labels": "synthetic:?shape_zyx=4,64,64&show=neurites"}, "4x64x64"),
        (
            {"data__test__labelled__region": "0:4,:,:", "data__test__labelled__scored": "1:6,:,:"},
            "leaves",
        ),
        (scored_on("train"), "'train' and 'test' share voxels"),
        (scored_on("validation"), "'validation' and 'test' share voxels"),
        ({"segment__grid__score": "('max',)"}, "segment.grid.score is ('max',)"),
        ({"segment__halo_zyx": "(0,8,8)"}, "three positive whole numbers"),
        ({"runtime__workers": "local"}, "empty, threads:N, local:N, slurm:N, or the address"),
        ({"finetune__encoder": "gs://a/b"}, "'gs://a/b'; expected: a folder, not a URL"),
        ({"predict__network": "s3://a/b"}, "'s3://a/b'; expected: a folder, not a URL"),
        ({"segment__grid__low": "(0.1, 0.99)"}, "expected: 0 <= low < high"),
        ({"segment__grid__threshold": "()"}, "one or more values of each"),
        ({"predict__window_zyx": "(4,36,36)"}, "a multiple of the patch (1, 8, 8)"),
    ],
)
def test_a_mistake_in_a_later_stage_is_found_before_training(tmp_path, overrides, message):
    with pytest.raises((ValueError, OSError), match=re.escape(message)):
        train.run(runs.config(**overrides), tmp_path, "finetune")
    assert not (tmp_path / "finetune").exists()


@pytest.mark.slow
def test_thresholds_are_not_tuned_on_nothing(whole, tmp_path):
    shutil.copytree(whole[0] / "predict", tmp_path / "predict")
    np.save(tmp_path / "nothing.npy", np.zeros((8, 64, 64), np.uint8))
    config = runs.config(
        data__validation__labelled__labels=str(tmp_path / "nothing.npy"),
        data__validation__labelled__voxel_size_nm="(30.,6.,6.)",
    )
    with pytest.raises(ValueError, match=r"no volume of data.validation \(labelled\) has anything"):
        segment.run(config, tmp_path)
    assert not (tmp_path / "segment" / "tuned.json").exists()


def assert_same(a, b):
    """The same parameters, bit for bit."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for name in a:
            assert_same(a[name], b[name])
    else:
        np.testing.assert_array_equal(a, b)


def test_nothing_is_trained_where_no_thresholds_could_be_tuned(tmp_path):
    empty = {"data__validation__labelled__labels": ""}
    printed = runs.run(tmp_path, status=1, stages=runs.ALL, **empty)
    assert "no volume of data.validation has labels" in printed.splitlines()[-1]
    assert not (tmp_path / "pretrain").exists()
    config = runs.config(stages=runs.ALL)
    with config.unlocked():
        config.data.validation = {}
    with pytest.raises(ValueError, match="thresholds cannot be tuned"):
        check_thresholds(config, tmp_path)
