"""What is kept beside a run."""

import os
import subprocess
import sys

import pytest

COMPILE = """
import jax, pathlib
from maemem.workdir import cache_compilations
cache_compilations(pathlib.Path("run"))
jax.jit(lambda x: x * 2 + 1)(3.0)
"""


@pytest.mark.parametrize(("named", "kept"), [("", "run/cache/compiled"), ("mine", "mine")])
def test_compilations_are_kept_beside_the_run_or_where_jax_is_told(tmp_path, named, kept):
    inherited = {k: v for k, v in os.environ.items() if "CACHE" not in k}
    variables = {"JAX_COMPILATION_CACHE_DIR": named} if named else {}
    subprocess.run(
        [sys.executable, "-c", COMPILE], cwd=tmp_path, env=inherited | variables, check=True
    )
    folders = {path.parent for path in tmp_path.rglob("*-cache")}
    assert folders == {tmp_path / kept}
