"""Fixtures: the command line, in this process for speed and in one of its own where that matters."""

import csv
import os
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from linreg.main import main

ROOT = Path(__file__).parents[1]
Train = Callable[..., tuple[int, str]]
Process = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the configs of a clone, as the current one."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def train(workplace: Path, capfd: pytest.CaptureFixture[str]) -> Train:
    """Runs a command line in this process; returns the exit code, and what was printed to either stream."""

    def run(*args: object) -> tuple[int, str]:
        capfd.readouterr()
        if args[:1] == ("--ckpt_path",):
            time.sleep(1)  # TensorBoard orders event files by the second in their names; a process takes 3 to start
        filters = warnings.filters[:]
        try:
            code = main([str(arg) for arg in args])
        except SystemExit as stop:
            code = stop.code
        warnings.filters[:] = filters
        return code, "".join(capfd.readouterr())

    return run


def command(*args: object) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), *map(str, args)]


def read_rows(path: str | Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def process(workplace: Path) -> Process:
    """Runs ``python train.py`` as a user does."""

    def run(*args: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command(*args), capture_output=True, text=True, timeout=120, check=False)

    return run


@pytest.fixture(autouse=True)
def _threads() -> None:
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
