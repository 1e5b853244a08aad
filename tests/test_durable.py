"""Records outlive a machine that stops: what takes an old file's place is on the disk before."""

import os

import pytest

from maemem.training.metrics import MetricWriter
from maemem.workdir import claim_workdir
from tests import runs


def claim(folder):
    claim_workdir(runs.config(), folder, ())
    return folder / "config.json"


def forget_rows(folder):
    MetricWriter(folder, 0).close()
    return folder / "metrics.jsonl"


@pytest.mark.parametrize("write", [claim, forget_rows])
def test_a_record_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch, write):
    done, sync, replace = [], os.fsync, os.replace

    def noted_sync(descriptor):
        done.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))
        sync(descriptor)

    def noted_replace(draft, path):
        done.append(("replace", str(draft), str(path)))
        replace(draft, path)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "replace", noted_replace)
    path = write(tmp_path)
    (_, draft, _) = next(entry for entry in done if entry[0] == "replace")
    folder = str(tmp_path)
    assert done == [("sync", draft), ("replace", draft, str(path)), ("sync", folder)]
    assert [each.name for each in tmp_path.iterdir() if each.suffix == ".draft"] == []
