"""A workdir to look at."""

import json
import pathlib

import pytest

from maemem.config import Config
from tests import results


@pytest.fixture(scope="session")
def config() -> Config:
    return results.config().lock()


@pytest.fixture(scope="session")
def workdir(config, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Segmented, with one merge; nobody may change it."""
    folder = tmp_path_factory.mktemp("seen run")
    results.leave(config, folder)
    (folder / "config.json").write_text(json.dumps({"config": config.to_dict()}))
    return folder
