"""Runtime checks of shapes and dtypes, and the real data where it is at hand."""

import os
import pathlib
import tempfile

import pytest
from jaxtyping import install_import_hook

from tests import annotations

# The import itself is wanted: from here on, annotations of these packages are checked when called.
_CHECKED = (
    "models",
    "learners",
    "segmentation",
    "scores",
    "data.samples.augment",
    "data.samples.intensities",
    "data.samples.warps",
)
install_import_hook([f"maemem.{name}" for name in _CHECKED], f"{annotations.__name__}.check")

REPOSITORY = pathlib.Path(__file__).parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """Lets all tests, and the runs that they start, compile fast and share what XLA compiled."""
    cache = getattr(config, "cache", None)  # None by `-p no:cacheprovider`.
    compiled = cache.mkdir("compiled") if cache else pathlib.Path(tempfile.gettempdir(), "maemem")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(compiled))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    # Most of a tiny run is compilation, and code that is not polished compiles far faster.
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")


@pytest.fixture(scope="session")
def repository() -> pathlib.Path:
    """The checkout that is tested."""
    return REPOSITORY


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
    """The folder of real EM, from the environment or beside the checkout."""
    folder = pathlib.Path(os.environ.get("MAEMEM_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real EM at {folder}; set MAEMEM_DATA to a folder that has fib25/ and vnc/")
    return folder


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, str]:
    """A run of all stages, and what it printed; nobody may change it."""
    from tests import runs  # Whose own imports come after the hook.

    workdir = tmp_path_factory.mktemp("whole run")
    return workdir, runs.run(workdir, stages=runs.ALL)
