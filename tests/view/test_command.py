"""The command writes a state, and says what is missing."""

import importlib.util
import json

import pytest
from absl import flags
from absl.testing import flagsaver

from maemem.view import __main__ as command


@pytest.fixture(autouse=True)
def _parsed():
    flags.FLAGS.mark_as_parsed()


def test_a_state_without_errors(workdir, tmp_path):
    state = str(tmp_path / "state.json")
    with flagsaver.flagsaver(url_prefix="http://host", errors=0, state=state):
        command.show(workdir)
    layers = json.loads((tmp_path / "state.json").read_text())["layers"]
    assert [layer["name"] for layer in layers][-1] == "segmentation", "no errors were asked for"


def test_a_state_needs_an_address(workdir):
    with (
        flagsaver.flagsaver(state="state.json"),
        pytest.raises(ValueError, match=r"--url_prefix .* http://localhost:9000"),
    ):
        command.show(workdir)


def test_without_neuroglancer_it_says_how_to_get_it(workdir, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'maemem\[view\]'"):
        command.show(workdir)
