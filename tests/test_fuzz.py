"""A few checkpoints, configs and command lines changed at random, and whether the fuzz would see what it looks for."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, posix

pytestmark = posix


@pytest.mark.slow
def test_a_few_of_each_kind() -> None:
    """The long form is ``python -m tests.fuzz --cases 200``; each case ends in time, so this does."""
    command = [sys.executable, "-m", "tests.fuzz", "--cases", "12"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        output, _ = process.communicate()
    finally:
        process.terminate()  # which ends the case that it plays, too
        process.wait()
    assert process.returncode == 0, output


def test_the_fuzz_sees_harm(tmp_path: Path) -> None:
    from tests.sandbox import forget_reads, harm, look

    for name in ("canary/read", "canary/changed", "canary/gone", "canary/mode", "canary/kept", "work/runs/base/a"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    forget_reads(tmp_path)
    before = look(tmp_path)
    assert harm(before, look(tmp_path), "", "") == []
    (tmp_path / "canary/changed").write_text("something")
    (tmp_path / "canary/gone").unlink()
    (tmp_path / "canary/mode").chmod(0o400)
    (tmp_path / "work/predictions.csv").touch()
    (tmp_path / "work/runs/new").mkdir()
    (tmp_path / "work/runs/new/.x.tmp").touch()
    (tmp_path / "work/else").touch()
    (tmp_path / "work/runs/base/a").write_text("a run's own")
    found = ["changed canary", "changed canary/changed", "changed canary/mode", "removed canary/gone"]
    found = sorted([*found, "made work/else", "made work/runs/new/.x.tmp"])
    assert harm(before, look(tmp_path), "work/runs/base", "") == found
    assert "changed work/runs/base/a" in harm(before, look(tmp_path), "", "")
    (tmp_path / "canary/read").read_text()
    if (tmp_path / "canary/read").stat().st_atime:  # the file system notes reads
        assert "read canary/read" in harm(before, look(tmp_path), "", "")
        assert "read canary/read" not in harm(before, look(tmp_path), "", "canary/read")


@pytest.mark.parametrize(
    ("code", "output", "part"),
    [
        (0, "all is well\n", ""),
        (2, "device 1\nerror: no such file\n", ""),
        (2, "error: no such file\nand more\n", "exit code 2 with 1 error lines"),
        (1, "", "exit code 1 with 0 error lines"),
        (2, "error: a\nerror: b\n", "2 error lines"),
        (-11, "", "exit code -11"),
        (143, "error: stopped\n", "exit code 143"),
        (None, "error: x\n", "hang"),
        (
            1,
            'Traceback (most recent call last):\n  File "linreg/cli.py", line 7, in fit\nKeyError: 5\n',
            "linreg/cli.py:7",
        ),
        (2, "error: \x1b[31m\n", "terminal escape"),
    ],
)
def test_the_fuzz_sees_a_bad_end(code: int | None, output: str, part: str) -> None:
    from tests.fuzz import judge

    assert (part in str(judge(code, output))) if part else judge(code, output) == []


def test_a_process_is_ended(tmp_path: Path) -> None:
    from tests.sandbox import start

    (tmp_path / "work").mkdir()
    assert start(["--no_such_flag"], tmp_path / "work", 0)[0] is None
