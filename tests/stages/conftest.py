"""Runs that several files of tests look at."""

import pathlib

import pytest

from tests import runs


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A pre-training run that nobody disturbed; nobody may change it."""
    workdir = tmp_path_factory.mktemp("pretrained run")
    runs.run(workdir)
    return workdir
