"""What tells two volumes at one place from each other, and what does not."""

import functools
import http.server
import os
import shutil
import threading

import numpy as np
import pytest

from maemem.data.convert import convert
from maemem.data.export import export
from maemem.data.stores.volumes import open_volume
from tests.blockwise.volumes import grey_values, stored_volume

SHAPE = (6, 70, 90)


@pytest.fixture
def volume(tmp_path):
    """One on disk, of noise."""
    stored_volume(tmp_path / "a.zarr", grey_values(SHAPE))
    return tmp_path / "a.zarr"


def stamp(path) -> str:
    return open_volume(str(path)).stamp


def test_looking_at_a_volume_leaves_its_stamp(volume):
    before = stamp(volume)
    for path in volume.rglob("*"):
        os.utime(path, ns=(1, path.stat().st_mtime_ns))  # As if it had been read then.
    (volume / "notes.txt").touch()
    assert stamp(volume) == stamp(volume / "0") == stamp(f"file://{volume}") == before


def test_a_copy_with_its_times_has_the_same_stamp(volume, tmp_path):
    assert stamp(shutil.copytree(volume, tmp_path / "b.zarr")) == stamp(volume)


@pytest.mark.parametrize("name", ["zarr.json", "0/zarr.json"])
def test_what_was_written_again_has_another_stamp(volume, name):
    before = stamp(volume)
    written = (volume / name).stat().st_mtime_ns
    os.utime(volume / name, ns=(written, written + 1_000_000))
    assert stamp(volume) != before
    os.utime(volume / name, ns=(written, written))
    assert stamp(volume) == before


def test_an_export_has_a_stamp_of_its_own(volume, tmp_path):
    export(str(volume), str(tmp_path / "out"), progress=False)
    before = stamp(tmp_path / "out")
    assert before != stamp(volume)
    os.utime(tmp_path / "out/info", ns=(1, 1))
    assert stamp(tmp_path / "out") != before


def test_parts_and_coarser_views_keep_the_stamp(volume):
    whole = open_volume(str(volume))
    assert (
        whole.cut("1:3, :, :").stamp == whole.binned((1, 2, 2), "mean").stamp == whole.stamp != ""
    )


class Silent(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and tells no generation of its files."""

    def log_message(self, *_):
        pass


def test_a_server_that_tells_no_generation_is_known_by_the_metadata(volume, tmp_path):
    handler = functools.partial(Silent, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/a.zarr"
        before = stamp(url)
        assert stamp(url) == before
        metadata = (volume / "zarr.json").read_text()
        (volume / "zarr.json").write_text(metadata.replace("raw", "new"))
        assert stamp(url) != before
        server.shutdown()


def test_a_conversion_of_a_volume_that_was_replaced_is_refused(volume, tmp_path, monkeypatch):
    options = {"chunk_zyx": (2, 32, 32), "shard_zyx": (2, 32, 32), "progress": False}
    source, output = str(volume), str(tmp_path / "out.zarr")
    with monkeypatch.context() as patch:
        patch.setattr("maemem.data.stores.ledger.publish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            convert(source, output, **options)
    stored_volume(volume, np.zeros(SHAPE, np.uint8))
    with pytest.raises(ValueError, match=r"another input .*: stamp was \w{16} and is \w{16}\. "):
        convert(source, output, **options)


def interrupted(*_):
    raise KeyboardInterrupt
