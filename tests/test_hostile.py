"""Nothing that is read from a disk or the network is executed."""

import ast
import re

import pytest

from tests.runs import REPOSITORY

SOURCES = sorted((REPOSITORY / "maemem").rglob("*.py"))
BUILTINS = {"eval", "exec", "compile", "__import__"}
METHODS = {"os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "yaml.full_load"}
# They unpickle what they read.
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def offences(tree):
    """What a module does that may execute what it reads, in words."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            yield from (f"imports {name}" for name in names if name.split(".")[0] in MODULES)
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if called in BUILTINS | METHODS:
                yield f"calls {called}"
            if given.get("shell", "False") != "False":
                yield "starts a shell"
            if given.get("allow_pickle", "False" if called != "np.load" else "") != "False":
                yield "does not forbid pickles"
            if called.endswith(".extractall") and given.get("filter") != "'data'":
                yield "unpacks paths as they are"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_no_module_executes_what_it_reads(path):
    assert list(offences(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from dill import loads",
        "eval(text)",
        "os.system(text)",
        "subprocess.run(text, shell=True)",
        "np.load(path, allow_pickle=True)",
        "np.load(path)",
        "archive.extractall(folder)",
    ],
)
def test_the_look_for_it_finds_it(code):
    assert list(offences(ast.parse(code)))
    assert not list(offences(ast.parse("np.load(path, allow_pickle=False); re.compile('a')")))


def test_every_row_of_the_table_has_its_test():
    text = (REPOSITORY / "docs" / "reliability.md").read_text()
    named = set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text))
    assert len(named) > 40
    for path, name in named:
        assert re.search(rf"^def {name}\(", (REPOSITORY / path).read_text(), re.M), (path, name)
    rows = [line for line in text.splitlines() if line.startswith("| ") and "| test |" not in line]
    assert all("`tests/" in row for row in rows)
