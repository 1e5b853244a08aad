"""Runs that several files of tests look at."""

import pathlib
from collections.abc import Callable

import pytest

from tests import runs


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A pre-training run that nobody disturbed; nobody may change it."""
    workdir = tmp_path_factory.mktemp("pretrained run")
    runs.run(workdir)
    return workdir


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], pathlib.Path]:
    """Finds a long run of a stage that nobody disturbed, made when first asked for."""
    made = {}

    def find(stage: str) -> pathlib.Path:
        if stage not in made:
            made[stage] = tmp_path_factory.mktemp(f"long {stage}")
            runs.run(made[stage], **runs.LONG[stage])
        return made[stage]

    return find
