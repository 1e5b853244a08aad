"""The stage shows what is on disk, and names what is not."""

import json
import pathlib
import re

import numpy as np
import pytest

from maemem import pictures
from maemem.assembly.volumes import open_raw, read_truth
from maemem.blockwise.store import read_labels
from maemem.config import Config, volume
from maemem.stages import report
from tests import results


@pytest.fixture
def config() -> Config:
    return results.config()


def page(workdir: pathlib.Path) -> str:
    return (workdir / "report" / "index.html").read_text(encoding="utf-8")


def test_a_segmented_workdir(config, tmp_path):
    large, small, voxels = results.leave(config, tmp_path)
    report.run(config.lock(), tmp_path)
    text = page(tmp_path)
    for heading in ("Scores", "Segmentation", "Splits and merges", "Prediction", "Learning"):
        assert f"<h2>{heading}</h2>" in text
    assert text.count("<img ") == 4
    assert "tissue, voxels 2:8, 0:64, 8:60" in text
    found = re.search(
        rf'<tr><td>1</td><td>merge</td><td class="number">{small}</td>'
        rf'<td class="number">{large}</td><td class="number">{voxels:,}</td>'
        rf'<td class="number">(\d+), (\d+), (\d+)</td>',
        text,
    )
    assert found, "the merge that was made is the first error"
    z, y, x = (int(n) for n in found.groups())
    truth, scored = read_truth(config, tmp_path, config.data.test.tissue)
    at = tuple(a - b for a, b in zip((z, y, x), scored.start_zyx, strict=True))
    assert truth[at] == small, "its place is one in the whole volume"
    assert "finetune, to step 2. Last: loss 1, eval_loss 1.5, eval_x 0.5." in text
    assert "Not in this workdir: reconstruction, config, versions." in text
    assert len(text) < 5e6


def test_pictures_show_the_scored_part(config, tmp_path, monkeypatch):
    results.leave(config, tmp_path)
    entry = config.data.test.tissue
    truth, scored = read_truth(config, tmp_path, entry)
    raw = np.asarray(open_raw(config, entry, tmp_path).store[scored.slices])
    labels = read_labels(tmp_path / "segment" / "test" / "tissue.zarr", scored)
    drawn = []

    def record(*arrays, **named):
        drawn.append((*arrays, named))
        return draw(*arrays, **named)

    draw = pictures.draw_segmentation
    monkeypatch.setattr(pictures, "draw_segmentation", record)
    report.run(config, tmp_path)
    assert len(drawn) == 2
    for image, segments, _, named in drawn:
        np.testing.assert_array_equal(image, raw)
        np.testing.assert_array_equal(named["truth"], truth)
        pairs = set(zip(labels.ravel().tolist(), segments.ravel().tolist(), strict=True))
        assert len(pairs) == len(np.unique(labels)) == len(np.unique(segments))
        assert named["errors"].shape == truth.shape
        assert set(np.unique(named["errors"])) == {0, 2}
    assert len(drawn[0][2]) == 3, "three sections"
    assert [label[:7] for label in drawn[1][2]] == ["1 (z = "], "one error"


def test_it_is_made_anew(config, tmp_path):
    (tmp_path / "timings.json").write_text(json.dumps({"pretrain": 1.0}))
    report.run(config, tmp_path)
    (tmp_path / "timings.json").write_text(json.dumps({"pretrain": 9.0}))
    report.run(config, tmp_path)
    assert "9.0 s" in page(tmp_path)
    assert [file.name for file in (tmp_path / "report").iterdir()] == ["index.html"]


def test_an_empty_workdir_is_said_to_be_so(config, tmp_path):
    report.run(config, tmp_path)
    assert "Not in this workdir: scores, segmentation" in page(tmp_path)


def test_a_damaged_result_is_named(config, tmp_path):
    (tmp_path / "timings.json").write_text("{")
    with pytest.raises(ValueError, match=r"timings\.json cannot be read"):
        report.run(config, tmp_path)


@pytest.mark.parametrize("unlabelled", [-1, 9])
def test_negative_labels_are_unlabelled_in_scores_as_in_training(config, tmp_path, unlabelled):
    ids = np.resize(np.array([0, -1, -300, 5, 9], np.int16), (8, 64, 64))
    np.save(tmp_path / "ids.npy", ids)
    entry = volume(results.TISSUE, labels=str(tmp_path / "ids.npy"), unlabelled=unlabelled)
    entry.voxel_size_nm = (30.0, 6.0, 6.0)
    truth, _ = read_truth(config, tmp_path, entry)
    np.testing.assert_array_equal(truth == -1, (ids < 0) | (ids == unlabelled))
    assert truth.min() == -1
