"""Downloads from a server that breaks off, changes its mind, or is slow."""

import hashlib

import numpy as np
import pytest

from maemem.data.sets.download import download
from tests.data.homes import open_home

CONTENT = np.random.default_rng(0).bytes(2_500_000)
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.fixture
def home():
    with open_home() as server:
        server.files["a.zip"] = CONTENT
        yield server


def get(home, path, checksum=SHA256, **options):
    download(home.url("a.zip"), path, checksum, **{"pause_s": 0.01, "patience_s": 5, **options})


@pytest.mark.parametrize("kind", ["sha256", "md5", None])
def test_a_good_server(home, tmp_path, kind):
    checksum = f"{kind}:{hashlib.new(kind, CONTENT).hexdigest()}" if kind else None
    get(home, tmp_path / "new/a.zip", checksum)
    assert (tmp_path / "new/a.zip").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.zip"]
    assert home.ranges == [None]


def test_a_connection_that_breaks_off_is_taken_up_where_it_was(home, tmp_path):
    home.breaks_after = 20 * 65536
    get(home, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert home.ranges == [None, "bytes=1310720-"]


def test_a_truncated_file_is_an_error_and_is_gone_on_with_by_another_run(home, tmp_path):
    home.breaks_after = 10 * 65536
    with pytest.raises(OSError, match=r"broke off 2 times, .* after 1310720 bytes"):
        get(home, tmp_path / "a.zip", attempts=2)
    assert not (tmp_path / "a.zip").exists()
    assert (tmp_path / "a.zip.part").read_bytes() == CONTENT[:1_310_720]
    home.breaks_after = None
    get(home, tmp_path / "a.zip")
    assert home.ranges[-1] == "bytes=1310720-"
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_two_versions_of_a_file_are_never_mixed(home, tmp_path):
    home.breaks_after = 1_000_000
    with pytest.raises(OSError, match="broke off"):
        get(home, tmp_path / "a.zip", attempts=1)
    home.breaks_after = None
    home.files["a.zip"] = CONTENT[::-1]
    get(home, tmp_path / "a.zip", None)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT[::-1]


def test_a_server_that_names_no_version_is_asked_for_all_of_it(home, tmp_path):
    home.versions, home.breaks_after = False, 1_000_000
    with pytest.raises(OSError, match="broke off 2 times"):
        get(home, tmp_path / "a.zip", attempts=2)
    home.breaks_after = None
    get(home, tmp_path / "a.zip")
    assert home.ranges == [None, None, None]
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_part_that_is_longer_than_the_file(home, tmp_path):
    (tmp_path / "a.zip.part").write_bytes(CONTENT + CONTENT)
    (tmp_path / "a.zip.part.version").write_text("anything")
    home.statuses = [416]
    get(home, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing(home, tmp_path):
    with pytest.raises(ValueError, match=f"not the file that it was.*{'0' * 64}"):
        get(home, tmp_path / "a.zip", f"sha256:{'0' * 64}")
    assert not list(tmp_path.iterdir())


def test_what_is_not_there_is_asked_for_once(home, tmp_path):
    with pytest.raises(OSError, match="404 Not Found"):
        download(home.url("b.zip"), tmp_path / "b.zip", None)
    assert home.ranges == [None]


def test_a_busy_server_is_asked_again(home, tmp_path):
    home.statuses = [503, 429]
    get(home, tmp_path / "a.zip")
    assert len(home.ranges) == 3


def test_a_slow_server_is_waited_for_and_a_silent_one_is_not(home, tmp_path):
    home.piece_pause_s = 0.01  # A second in all, more than the patience between two pieces.
    get(home, tmp_path / "a.zip", patience_s=0.5)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    home.piece_pause_s = 2
    with pytest.raises(OSError, match=r"broke off 2 times, .* timed out"):
        get(home, tmp_path / "b.zip", patience_s=0.2, attempts=2)


def test_nobody_listens(tmp_path):
    with open_home() as home:
        pass
    with pytest.raises(OSError, match="broke off 2 times"):
        get(home, tmp_path / "a.zip", attempts=2)
