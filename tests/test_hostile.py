"""Nothing that is read from a disk or the network is executed."""

import ast
import json
import re

import pytest

from tests.runs import REPOSITORY

FOLDERS = ("maemem", "launch", "colab", "benchmarks", "configs")
SOURCES = sorted(
    path
    for folder in FOLDERS
    for path in (REPOSITORY / folder).rglob("*")
    if path.suffix in (".py", ".ipynb", ".sh")
)
EXECUTING = {
    *("eval", "exec", "compile", "__import__", "runpy.run_path", "runpy.run_module"),
    *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.load", "pandas.read_pickle"),
}
# They unpickle what they read.
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
SHELLS = {"sh", "bash", "dash", "zsh", "ksh"}
PROGRAM = rf"(?:[\w./~-]*/)?(?:{'|'.join(SHELLS)}|python[\d.]*)"  # What executes its input.
SHELL = {
    "evaluates": r"\beval\b",
    "executes what it pipes": rf"\|&?\s*(?:sudo\s+|env\s+|exec\s+)*{PROGRAM}(?![\w./-])",
    "executes what a command says": rf"(?:\bsource|(?:^|\s)\.|{PROGRAM})\s+<\(",
    "executes a text made here": rf"(?<![\w./-]){PROGRAM}\s+-\w*c\b",
    "fetches without a checksum": r"\b(?:curl|wget)\b",
}


def full_names(tree):
    """What the names that a module imports stand for, such as `np.load` for `numpy.load`."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {each.asname: each.name for each in node.names if each.asname}
        if isinstance(node, ast.ImportFrom):
            found |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
    return found


def offences(tree):
    """What a module does that may execute what it reads, in words."""
    full = full_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            yield from (f"imports {name}" for name in names if name.split(".")[0] in MODULES)
        if isinstance(node, ast.Name | ast.Attribute):  # Called, or given to what calls it.
            first, dot, rest = ast.unparse(node).partition(".")
            name = (full.get(first, first) + dot + rest).removeprefix("builtins.")
            if name in EXECUTING or name.startswith(("os.exec", "os.spawn")):
                yield f"names {name}"
            if name == "shutil.unpack_archive":
                yield "unpacks paths as they are"
        if isinstance(node, ast.Call):
            first, dot, rest = ast.unparse(node.func).partition(".")
            called = full.get(first, first) + dot + rest
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if given.get("shell", "False") != "False":
                yield "starts a shell"
            if given.get("allow_pickle", "False" if called != "numpy.load" else "") != "False":
                yield "does not forbid pickles"
            if called.endswith((".extract", ".extractall")) and given.get("filter") != "'data'":
                yield "unpacks paths as they are"
        if isinstance(node, ast.List | ast.Tuple):
            words = [each.value for each in node.elts if isinstance(each, ast.Constant)]
            words = [str(word).rsplit("/", 1)[-1] for word in words]
            if SHELLS & set(words) and any(re.fullmatch(r"-\w*c", word) for word in words):
                yield "starts a shell"


def shell_offences(text):
    """The same of a script, whose comments do not count."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for offence, pattern in SHELL.items():
        if re.search(pattern, "\n".join(lines)):
            yield offence


def cells(notebook):
    """Of each cell of code, its Python and the lines that IPython gives to a shell."""
    for cell in json.loads(notebook)["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] != "code":
            continue
        if text.startswith("%%"):
            yield "", text
        else:
            ours = re.compile(r"^(\s*)[!%](.*)$", re.M)
            yield ours.sub(r"\1pass", text), "\n".join(line for _, line in ours.findall(text))


def all_offences(path):
    """What a file does that may execute what it reads, whichever language it is in."""
    text = path.read_text()
    if path.suffix == ".sh":
        return list(shell_offences(text))
    parts = [(text, "")] if path.suffix == ".py" else list(cells(text))
    return [
        offence
        for code, shell in parts
        for offence in (*offences(ast.parse(code)), *shell_offences(shell))
    ]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_no_module_executes_what_it_reads(path):
    assert not all_offences(path)


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from dill import loads",
        "eval(text)",
        "map(eval, texts)",
        "import builtins as b; b.exec(text)",
        "os.system(text)",
        "from os import system; system(text)",
        "from os import system as run; run(text)",
        "import os as o; o.execv(path, [])",
        "subprocess.run(text, shell=True)",
        "subprocess.run(['bash', '-c', text])",
        "subprocess.run(('/bin/sh', '-ec', text))",
        "import runpy; runpy.run_path(path)",
        "from torch import load; load(path)",
        "import yaml as y; y.load(text)",
        "import numpy; numpy.load(path)",
        "import numpy as np; np.load(path)",
        "import numpy as np; np.load(path, allow_pickle=True)",
        "from numpy import load as read; read(path)",
        "read(path, allow_pickle=True)",
        "archive.extractall(folder)",
        "archive.extract(name, folder)",
        "import shutil as s; s.unpack_archive(path)",
    ],
)
def test_the_look_for_it_finds_it(code):
    assert list(offences(ast.parse(code)))


@pytest.mark.parametrize(
    "text",
    [
        "curl -LsSf https://example.org/install.sh | sh",
        "cat script | sudo bash -s -- --yes",
        "cat script | ~/bin/python3 -",
        "bash <(cat script)",
        "source <(cat script)",
        ". <(cat script)",
        'sh -c "$(cat script)"',
        'eval "$line"',
        "wget --quiet https://example.org/program",
    ],
)
def test_the_look_for_it_finds_it_in_scripts_and_notebooks(tmp_path, text):
    assert list(shell_offences(f"set -e\n{text}\n"))
    for source in (f"if fetch:\n    !{text}\n", f"%%bash\n{text}\n"):
        path = tmp_path / "a.ipynb"
        path.write_text(json.dumps({"cells": [{"cell_type": "code", "source": [source]}]}))
        assert all_offences(path)


def test_the_look_for_it_lets_pass_what_is_well():
    code = """
import numpy as np, subprocess, re, torch
np.load(path, allow_pickle=False)
re.compile("a")
model.eval()
archive.extractall(folder, filter="data")
subprocess.run(["bash", "colab/install.sh"])
"""
    assert not list(offences(ast.parse(code)))
    text = "# curl x | sh\nbash install.sh\nsource .venv/bin/activate\nmake | kubectl create\n"
    assert not list(shell_offences(f"{text}python -m maemem.main | tee log.sh\n"))


def test_every_row_of_the_table_has_its_test():
    text = (REPOSITORY / "docs" / "reliability.md").read_text()
    named = set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text))
    assert len(named) > 40
    for path, name in named:
        assert re.search(rf"^def {name}\(", (REPOSITORY / path).read_text(), re.M), (path, name)
    rows = [line for line in text.splitlines() if line.startswith("| ") and "| test |" not in line]
    assert all("`tests/" in row for row in rows)
