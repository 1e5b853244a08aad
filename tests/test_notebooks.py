"""The notebooks run from top to bottom, and what is kept of them is fit to be kept."""

import base64
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import nbformat
import pytest
import tifffile
from nbclient import NotebookClient

from maemem.data.sets.synthetic import make_tissue
from maemem.notebook import watch
from tests import runs

COLAB = runs.REPOSITORY / "colab"
NAMES = sorted(path.stem for path in COLAB.glob("*.ipynb"))

FIELDS = [f"{name}={value}" for name, value in runs.TINY.items() if name != "stages"]
MAIN = shlex.join(f"--config.{field}" for field in FIELDS)
ARMS = shlex.join(f"--set={field}" for field in FIELDS)


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(COLAB / f"{name}.ipynb", as_version=4)


def code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def pictures(notebook: nbformat.NotebookNode) -> list[bytes]:
    """The PNGs that a notebook shows."""
    shown = [o.get("data", {}) for cell in code(notebook) for o in cell.outputs]
    return [base64.b64decode(data["image/png"]) for data in shown if "image/png" in data]


def execute(name: str, folder: pathlib.Path, parameters: str) -> nbformat.NotebookNode:
    """Runs a copy of a notebook that lies as in a checkout, with other parameters."""
    for part in ("configs", "benchmarks", "maemem"):
        (folder / part).symlink_to(runs.REPOSITORY / part)
    (folder / "colab").mkdir()
    notebook = read(name)
    (cell,) = (c for c in code(notebook) if "parameters" in c.metadata.get("tags", ()))
    cell.source += f"\n{parameters}"
    client = NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(folder / "colab")}}
    )
    return client.execute()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_kept_is_small_whole_and_of_no_machine(name):
    path = COLAB / f"{name}.ipynb"
    text = path.read_text()
    assert path.stat().st_size < 1_000_000
    assert not re.search(r"/(tmp|home|root|work|Users|content)/", text)
    notebook = read(name)
    nbformat.validate(notebook)
    cells = code(notebook)
    assert not [o for cell in cells for o in cell.outputs if o.output_type == "error"]
    # Of one run from top to bottom.
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert pictures(notebook)


@pytest.mark.parametrize("name", NAMES)
def test_they_hold_no_logic_of_their_own(name):
    sources = "\n".join(cell.source for cell in code(read(name)))
    assert not re.search(r"^\s*(def|class|for|while|try|with|lambda)\b", sources, re.MULTILINE)


def test_a_command_may_end_after_its_last_word():
    watch("bash -c 'exec >&- 2>&-; sleep 0.5'")


@pytest.mark.skipif(not (runs.REPOSITORY / ".git").exists(), reason="this is no clone")
@pytest.mark.parametrize("accelerator", [False, True])
def test_on_colab_they_fetch_and_install_maemem(tmp_path, accelerator):
    (setup,) = {code(read(name))[1].source for name in NAMES}  # The same in all of them.
    programs = {"pip": 'echo "$*" >> installed'} | ({"nvidia-smi": ""} if accelerator else {})
    for name, script in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / ".gitconfig").write_text("[safe]\n  directory = *\n")  # Whoever owns this clone.
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path)}
    parameters = (
        f"import os; os.environ.update({environment!r})\nREPOSITORY = 'file://{runs.REPOSITORY}'"
    )
    cells = [nbformat.v4.new_code_cell(source) for source in (parameters, setup)]
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(nbformat.v4.new_notebook(cells=cells), timeout=60, resources=where).execute()
    wanted = "jax[cuda12]" if accelerator else "jax"
    installed = (tmp_path / "maemem" / "installed").read_text()
    assert installed == f"install --quiet .[view] {wanted}\n"
    assert (tmp_path / "maemem" / "maemem" / "main.py").exists()


def test_a_checkout_whose_libraries_are_missing_is_not_taken_for_installed():
    guard = (
        "import importlib.util"
        + code(read(NAMES[0]))[1].source.partition("import importlib.util")[2]
    )
    command = [sys.executable, "-S", "-c", guard]  # Without what is installed.
    done = subprocess.run(command, cwd=runs.REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("maemem is not installed: give REPOSITORY")


@pytest.mark.slow
def test_pretraining(tmp_path):
    found = execute("pretrain", tmp_path, f"SETTINGS = {MAIN!r}")
    reconstruction = tmp_path / "runs" / "colab_pretrain" / "pretrain" / "held_out.png"
    assert reconstruction.read_bytes() in pictures(found)
    assert len(pictures(found)) == 2


@pytest.mark.slow
def test_fine_tuning(tmp_path):
    test = runs.TINY["data.test.labelled.path"]
    found = execute("finetune", tmp_path, f"SETTINGS = {MAIN!r}; ARMS = {ARMS!r}; TEST = {test!r}")
    assert len(pictures(found)) == 3
    tables = [o.get("data", {}).get("text/markdown", "") for c in code(found) for o in c.outputs]
    assert any("| test | labelled | scratch |" in table for table in tables)


@pytest.mark.slow
def test_a_volume_of_your_own(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "trained")
    tifffile.imwrite(
        tmp_path / "mine.tif", make_tissue((8, 64, 64), (30.0, 6.0, 6.0), seed=7).image
    )
    before = (tmp_path / "mine.tif").read_bytes()
    own = "TIFF = 'mine.tif'; MODEL = 'trained'"
    found = execute("own_volume", tmp_path, f"SETTINGS = {MAIN!r}; PART = ':, :, :'; {own}")
    assert (tmp_path / "mine.tif").read_bytes() == before
    assert len(pictures(found)) == 2  # No model was trained.
    links = [o.get("data", {}).get("text/markdown", "") for c in code(found) for o in c.outputs]
    assert any("(https://" in link and "9000" in link for link in links)
