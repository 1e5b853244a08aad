"""The command, its configs by name, and the wheel that carries them."""

import subprocess
import sys
import zipfile

import pytest

import maemem
from maemem.packaged import config_path, with_config_path
from tests.runs import REPOSITORY

NAMES = sorted(path.stem for path in (REPOSITORY / "configs").glob("*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_every_config_has_a_name(name):
    assert config_path(f"maemem:{name}") == str(REPOSITORY / f"maemem/configs/{name}.py")
    assert config_path(f"maemem:{name}:a,b") == str(REPOSITORY / f"maemem/configs/{name}.py:a,b")


def test_a_path_stays_one(tmp_path, monkeypatch):
    (tmp_path / "mine.py").touch()
    monkeypatch.chdir(tmp_path)
    assert config_path("mine.py:large") == "mine.py:large"
    assert config_path(f"{tmp_path}/mine.py") == f"{tmp_path}/mine.py"


@pytest.mark.parametrize("given", ["maemem:demoo", "maemem:", "maemem:../setup", "configs/no.py"])
def test_a_misspelt_name_lists_those_that_exist(given):
    with pytest.raises(ValueError, match=f"no config {given}; .*maemem:demo, maemem:finetune_"):
        config_path(given)


def test_only_the_value_of_config_is_a_name():
    demo = str(REPOSITORY / "maemem/configs/demo.py")
    rest = ["--workdir=maemem:demo", "--config.data.root=maemem:demo"]
    assert with_config_path(["m", "--config=maemem:demo", *rest]) == [
        "m",
        f"--config={demo}",
        *rest,
    ]
    assert with_config_path(["m", "--config", "maemem:demo"]) == ["m", "--config", demo]


def test_command_takes_names_from_any_folder(tmp_path):
    def start(config: str) -> subprocess.CompletedProcess:
        arguments = [f"--config={config}", "--workdir=w", "--config.stages=('none',)"]
        command = [sys.executable, "-m", "maemem.main", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    misspelt = start("maemem:demoo")
    assert misspelt.returncode == 1
    assert misspelt.stderr.startswith("error: there is no config maemem:demoo;")
    assert misspelt.stderr.count("\n") == 1
    assert "unknown stages ['none']" in start("maemem:finetune_vnc:neurites").stderr


def test_whoever_cites_it_cites_this_version():
    assert f"\nversion: {maemem.__version__}\n" in (REPOSITORY / "CITATION.cff").read_text()
    assert f"version = {{{maemem.__version__}}}" in (REPOSITORY / "README.md").read_text()


@pytest.mark.slow
def test_a_wheel_carries_the_package_and_the_configs(tmp_path):
    build = [sys.executable, "-m", "build", "--outdir", tmp_path, REPOSITORY]
    built = subprocess.run(build, capture_output=True, text=True)
    if "No matching distribution" in built.stdout or "NewConnectionError" in built.stdout:
        pytest.skip("building needs setuptools from a package index, and there is none")
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = tmp_path.glob(f"maemem-{maemem.__version__}-*.whl")
    assert (tmp_path / f"maemem-{maemem.__version__}.tar.gz").exists()
    with zipfile.ZipFile(wheel) as opened:
        entry_points = next(n for n in opened.namelist() if n.endswith("entry_points.txt"))
        assert "maemem = maemem.main:run" in opened.read(entry_points).decode()
        carried = set(opened.namelist())
    modules = {str(p.relative_to(REPOSITORY)) for p in (REPOSITORY / "maemem").rglob("*.py")}
    assert not modules - carried
    assert not {f"maemem/configs/{name}.py" for name in NAMES} - carried
