"""Files that appear whole or not at all, and the leftovers of a process that was killed."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from linreg import RunError
from linreg.system.atomic import atomic_write, leftovers, replacing, temporaries
from tests.conftest import posix


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def of_process(path: Path, process: int, number: int = 0) -> Path:
    """The name of another process's temporary."""
    ours = next(temporaries(path)).name
    return path.with_name(ours.replace(f".{os.getpid()}-0.", f".{process}-{number}."))


@posix
def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    path, other = tmp_path / "t.json", tmp_path / "precious"
    other.write_text("kept")
    first = next(temporaries(path))
    for planted in (first, path.with_name(f".t.json.{os.getpid()}.tmp")):
        planted.symlink_to(other)
    atomic_write(path, b"new")
    assert (path.read_bytes(), path.is_symlink(), other.read_text()) == (b"new", False, "kept")
    assert first.is_symlink()
    first.unlink()
    first.symlink_to(tmp_path / "gone")
    atomic_write(path, b"newer")
    assert path.read_bytes() == b"newer"
    assert not (tmp_path / "gone").exists()


@pytest.mark.slow
@posix
def test_a_killed_process_leaves_nothing_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    code = "import os, signal, sys; from pathlib import Path; from linreg.system.atomic import replacing\n"
    code += "with replacing(Path(sys.argv[1])) as f: f.write(b'half'); f.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    assert subprocess.run([sys.executable, "-c", code, path], check=False).returncode == -signal.SIGKILL
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".t.json.")]
    atomic_write(path, b"whole")
    assert list(tmp_path.iterdir()) == [path]


@posix
def test_only_our_own_leftovers_of_the_same_target_go(tmp_path: Path) -> None:
    path, dead = tmp_path / "t.json", dead_process()
    linked, folder = of_process(path, dead, 1), of_process(path, dead, 2)
    stay = [of_process(tmp_path / "u.json", dead), of_process(path, os.getppid()), tmp_path / ".t.json.tmp"]
    ours = of_process(path, dead)
    stay += [ours.with_name("x" + ours.name), ours.with_name(ours.name + "x"), tmp_path / f".t.json.{dead}.tmp"]
    stay += [ours.with_name(ours.name.replace(f".{dead}-", f"x.{dead}-")), tmp_path / "tXjson"]  # of another machine
    stay += [ours.with_name(ours.name.replace("t.json", "tXjson"))]
    for file in (ours, *stay):
        file.write_text("half")
    linked.symlink_to(stay[0])
    folder.mkdir()
    atomic_write(path, b"whole")
    assert sorted(tmp_path.iterdir()) == sorted([path, linked, folder, *stay])
    assert sorted(leftovers(tmp_path, "t[.]json")) == [linked, folder]


def test_what_fails_half_way_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("old")

    def interrupted() -> None:
        with replacing(path, "x", newline="", encoding="utf-8") as file:
            file.write("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("t.csv", "old")]
    with replacing(path, "x", newline="", encoding="utf-8") as file:
        file.write("é\n")
        assert path.read_text() == "old"
    assert [(p.name, p.read_text("utf-8")) for p in tmp_path.iterdir()] == [("t.csv", "é\n")]
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunError, match=r"folder could not be written: .*intact"):
        atomic_write(tmp_path / "folder", b"")
    with pytest.raises(RunError, match="No such file"):
        atomic_write(tmp_path / "none/t.csv", b"")
    assert len(list(tmp_path.iterdir())) == 2


def test_threads_that_write_the_same_file(tmp_path: Path) -> None:
    def write(content: bytes) -> None:
        for _ in range(50):
            atomic_write(tmp_path / "t", content)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, [b"0" * 10_000, b"1" * 10_000, b"2" * 10_000, b"3" * 10_000]))
    (path,) = tmp_path.iterdir()
    assert (path.name, path.stat().st_size, len(set(path.read_bytes()))) == ("t", 10_000, 1)


def test_a_folder_that_cannot_be_opened_is_not_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As none can on Windows."""

    def refuse(path: Path, *flags: int) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("linreg.system.atomic.os.open", refuse)
    atomic_write(tmp_path / "t.json", b"whole")
    assert (tmp_path / "t.json").read_bytes() == b"whole"


@posix
@pytest.mark.parametrize("name", ["x" * 250, "é" * 120, "a\nb", "[a-z]*", ".tmp"])
def test_a_name_of_any_kind(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    of_process(path, dead_process()).write_text("half")
    atomic_write(path, b"whole")
    assert list(tmp_path.iterdir()) == [path]
