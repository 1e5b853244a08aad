"""Volumes in buckets: read, exported to, and what is said where that fails."""

import numpy as np
import pytest

from maemem.data.export import export
from maemem.data.stores import formats, ledger
from maemem.data.stores.volumes import open_url, open_volume
from tests import buckets, runs
from tests.blockwise.volumes import SIZE, grey_values, stored_volume

SHAPE = (70, 90, 150)
SMALL = {"memory_bytes": 1 << 22, "progress": False}


@pytest.fixture(scope="module", params=[buckets.amazon, buckets.google], ids=["s3", "gs"])
def bucket(request):
    """The URL of a bucket, while the environment leads to it."""
    with pytest.MonkeyPatch.context() as patch, request.param() as (url, variables):
        for name, value in variables.items():
            patch.setenv(name, value)
        yield url


@pytest.fixture
def volume(tmp_path):
    """One on disk, of noise."""
    stored_volume(tmp_path / "a.zarr", grey_values(SHAPE))
    return tmp_path / "a.zarr"


def put(folder, url) -> str:
    """Copies a folder to a URL."""
    place = open_url(url)
    for path in folder.rglob("*"):
        if path.is_file():
            place.write(str(path.relative_to(folder)), path.read_bytes()).result(timeout=30)
    return url


def values(path) -> np.ndarray:
    return open_volume(str(path)).store.read().result(timeout=30)


def test_volumes_are_read_in_place(bucket, volume):
    url = put(volume, f"{bucket}/read.zarr")
    np.testing.assert_array_equal(values(url), grey_values(SHAPE))
    found = open_volume(url, region="1:4, :, 2:")
    assert found.voxel_size_nm == SIZE
    assert found.source.endswith("bucket/read.zarr/0")


def test_exports_are_the_same_as_in_a_folder(bucket, volume, tmp_path):
    export(str(volume), f"{bucket}/out", **SMALL)
    export(str(volume), str(tmp_path / "out"), **SMALL)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    place = open_url(f"{bucket}/out")
    assert {key.decode() for key in place.list().result()} == {
        str(path.relative_to(tmp_path / "out")) for path in files
    }
    for path in files:
        stored = place.read(str(path.relative_to(tmp_path / "out"))).result()
        assert stored.value == path.read_bytes()
    np.testing.assert_array_equal(values(f"{bucket}/out"), grey_values(SHAPE))
    with pytest.raises(FileExistsError, match="not overwritten"):
        export(str(volume), f"{bucket}/out", **SMALL)


def test_an_export_that_was_stopped_goes_on(bucket, volume, monkeypatch):
    added = []

    def add(finished, block, add=ledger.Finished.add):
        if len(added) == 3:
            raise KeyboardInterrupt
        added.append(block)
        add(finished, block)

    with monkeypatch.context() as patch:
        patch.setattr(ledger.Finished, "add", add)
        with pytest.raises(KeyboardInterrupt):
            export(str(volume), f"{bucket}/stopped", **SMALL)
    with pytest.raises(ValueError, match="is an unfinished conversion"):
        open_volume(f"{bucket}/stopped")
    with pytest.raises(ValueError, match="with other options: info was"):
        export(str(volume), f"{bucket}/stopped")
    again = []
    with monkeypatch.context() as patch:
        patch.setattr(ledger.Finished, "add", lambda _, block: again.append(block))
        export(str(volume), f"{bucket}/stopped", **SMALL)
    assert again, "some were missing"
    assert not set(again) & set(added), "nothing finished is made again"
    np.testing.assert_array_equal(values(f"{bucket}/stopped"), grey_values(SHAPE))


def test_what_is_put_into_a_bucket_again_has_another_stamp(bucket, volume):
    url = put(volume, f"{bucket}/stamped.zarr")
    stamp = open_volume(url).stamp
    assert open_volume(url).stamp == stamp
    metadata = volume / "zarr.json"
    metadata.write_text(metadata.read_text() + "\n")  # S3 tells two objects by their content alone.
    put(volume, url)
    assert open_volume(url).stamp != stamp


def test_nothing_there(bucket, volume):
    for url in (f"{bucket}/none", f"{bucket}-of-nobody/none"):
        with pytest.raises(FileNotFoundError, match=f"no volume at {url}: .* check the address"):
            open_volume(url)
    with pytest.raises(ValueError, match=r"bucket-of-nobody/out/ cannot be .*check the add"):
        export(str(volume), f"{bucket}-of-nobody/out", **SMALL)


def test_wrong_credentials_are_said_in_one_line(volume, monkeypatch):
    settings = pytest.importorskip("moto.settings")
    with buckets.amazon() as (url, variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)
        for attempt in (lambda: open_volume(f"{url}/a"), lambda: export(str(volume), f"{url}/a")):
            with pytest.raises(ValueError, match="PERMISSION_DENIED: InvalidAccessKeyId") as raised:
                attempt()
            assert "check the address and the credentials" in str(raised.value)
            assert "\n" not in str(raised.value)
            assert len(str(raised.value)) < 300


def test_no_answer_is_said_after_a_while(monkeypatch):
    monkeypatch.setattr(formats, "TIMEOUT_SECONDS", 0.5)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{runs.free_port()}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "mine")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with pytest.raises(ValueError, match=r"no answer from http://127.* in 0\.5 s; check"):
        open_volume("s3://bucket/a")


@pytest.mark.slow
@pytest.mark.parametrize("bucket", [buckets.amazon], indirect=True, ids=["s3"])
def test_a_run_trains_on_what_is_in_a_bucket(bucket, volume, tmp_path):
    url = put(volume, f"{bucket}/train.zarr")
    said = runs.run(tmp_path / "run", data__train__unlabelled__path=url, pretrain__steps=4)
    assert "bucket/train.zarr/0: 70x90x150 uint8 at" in said
    assert len(runs.metrics(tmp_path / "run")) == 4
