"""The template as the beginning of another project: under another name, or installed beside its own files."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, completed, posix

RENAME = "git mv linreg houses && git grep -lI linreg | xargs perl -pi -e s/linreg/houses/g"
MODEL = """
from linreg import LinearRegression

class Net(LinearRegression):
    pass
"""


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Path]:
    """A clone of the template, as it is now."""
    parts = ("linreg", "configs", "tests", "train.py", "pyproject.toml", "README.md", "LICENSE", ".gitignore")
    for part in parts:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, tmp_path / "clone" / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (tmp_path / "clone").mkdir(exist_ok=True)
            shutil.copy(ROOT / part, tmp_path / "clone" / part)
    yield tmp_path / "clone"
    shutil.rmtree(tmp_path / "clone")


def run(arguments: list[object], folder: Path, path: Path) -> str:
    """What a process says that finds packages in a folder only, besides those that are installed."""
    os.chdir(folder)
    done = completed([str(each) for each in arguments], env=os.environ | {"PYTHONPATH": str(path)})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@posix
@pytest.mark.slow
def test_another_name_is_one_command(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (shutil.which("git") and shutil.which("perl")):
        pytest.skip("needs git and perl")
    monkeypatch.chdir(copy)
    subprocess.run("git init -q && git add -A", shell=True, check=True)
    subprocess.run(RENAME, shell=True, check=True)
    assert not [path for path in copy.rglob("*.py") if "linreg" in path.read_text(encoding="utf-8")]
    out = run([sys.executable, "train.py", "--max_epochs", 2], copy, copy)
    assert "run     runs/default/version_0" in out
    quick = ["-x", "-q", "-p", "no:cacheprovider", "tests/test_house.py", "tests/test_run.py", "-k"]
    run([sys.executable, "-m", "pytest", *quick, "law or print_config"], copy, copy)


@pytest.mark.slow
def test_installed_beside_another_project(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("setuptools", "70.1")  # the first that makes a wheel by itself, without build isolation
    monkeypatch.chdir(tmp_path)
    site, project = tmp_path / "site", tmp_path / "project"
    offline = ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    run([sys.executable, "-m", "pip", "install", "-q", *offline, "--target", site, copy], tmp_path, site)
    for folder in ("linreg", "configs"):
        sources = {path.relative_to(ROOT / folder).as_posix() for path in (ROOT / folder).rglob("*.[py]*[yl]")}
        there = site / "linreg" / ("configs" if folder == "configs" else "")
        assert {name for name in sources if not (there / name).exists()} == set()  # each room is in pyproject.toml
    (project / "parts").mkdir(parents=True)
    (project / "parts/__init__.py").touch()
    (project / "parts/net.py").write_text(MODEL)
    (project / "mine.py").write_text(MODEL)
    shutil.copy(ROOT / "train.py", project)
    run([sys.executable, "train.py", "--model", "parts.net.Net", "--max_epochs", 2], project, site)
    out = run([sys.executable, "-m", "linreg", "--model", "mine.Net", "--max_epochs", 2], project, site)
    assert "run     runs/default/version_1" in out
    out = run([sys.executable, "train.py", "test", "--ckpt_path", "last"], project, site)
    assert "mse/test" in out
    code = "from linreg import *; from mine import Net; print(run(Net(3), SyntheticData(), max_epochs=1).folder)"
    assert run([sys.executable, "-c", code], project, site).splitlines()[-1] == "runs/default/version_2"
