"""What is recorded of work under way, and whose record is refused."""

import json
import pathlib

import pytest

from maemem.data.stores import ledger
from maemem.durable import write_durably
from maemem.geometry import blocks

EVERY = list(blocks((4, 6, 5), (2, 3, 5)))
IDENTITY = {"source": "a.npy", "block_zyx": [2, 3, 5]}


@pytest.fixture
def partial(tmp_path):
    """The folder of a result under way, that the test alone works on."""
    with ledger.held(tmp_path / "a.zarr.partial", tmp_path / "a.zarr", wait=False):
        yield tmp_path / "a.zarr.partial"


def test_a_finished_block_is_one_small_file_and_is_seen_by_all(partial):
    finished = ledger.claim(partial, IDENTITY)
    assert finished.missing(EVERY) == EVERY
    finished.add(EVERY[2])
    finished.add(EVERY[2])  # Two workers may do the same.
    assert ledger.claim(partial, IDENTITY).missing(EVERY) == [EVERY[0], EVERY[1], EVERY[3]]
    (file,) = pathlib.Path(finished.place.path).iterdir()
    assert (file.name, file.read_bytes()) == ("2-4_0-3_0-5", b"")


def test_steps_have_records_of_their_own(partial):
    finished = ledger.claim(partial, IDENTITY)
    finished.step("one").add(EVERY[0])
    assert finished.step("two").missing(EVERY) == finished.missing(EVERY) == EVERY
    assert finished.step("one").missing(EVERY) == EVERY[1:]


def test_another_ones_record_is_refused_with_the_difference_named(partial):
    ledger.claim(partial, IDENTITY).add(EVERY[0])
    with pytest.raises(
        ValueError, match=r"block_zyx was \[2, 3, 5\] and is \[4, 3, 5\]; checkpoint was None"
    ):
        ledger.claim(partial, {**IDENTITY, "block_zyx": [4, 3, 5], "checkpoint": "c"})
    with pytest.raises(ValueError, match=r"source was a\.npy and is None"):
        ledger.claim(partial, {"block_zyx": [2, 3, 5]})


def test_blocks_recorded_under_another_identity_do_not_count(partial):
    """Even where the file that names the identity was exchanged."""
    ledger.claim(partial, IDENTITY).add(EVERY[0])
    other = {**IDENTITY, "source": "b.npy"}
    (partial / ".conversion/identity.json").write_text(json.dumps(other))
    assert ledger.claim(partial, other).missing(EVERY) == EVERY


@pytest.mark.parametrize("damage", ["", "[1]", '{"source": "a'])
def test_a_damaged_identity_is_refused(partial, damage):
    ledger.claim(partial, IDENTITY)
    (partial / ".conversion/identity.json").write_text(damage)
    with pytest.raises(ValueError, match=r"is damaged .*and begin again"):
        ledger.claim(partial, IDENTITY)


def test_what_a_kill_left_of_a_file_is_not_in_the_result(partial, monkeypatch):
    ledger.claim(partial, IDENTITY)
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write_durably(partial / "zarr.json", "{}")
    write_durably(partial / "zarr.json", "{}")
    target = partial.with_name("a.zarr")
    ledger.publish(partial, target)
    assert [path.name for path in target.iterdir()] == ["zarr.json"]


def killed(*_):
    raise KeyboardInterrupt
