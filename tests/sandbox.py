"""A process of its own for a command line, and a folder for it to work in, amid what it must leave alone."""

import os
import re
import runpy
import shutil
import signal
import stat
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

MEMORY = 6 << 30  # of address space beyond what a process has when it starts


def start(arguments: list[str], folder: Path, limit: float) -> tuple[int | None, str, float]:
    """``python train.py ARGUMENTS`` in a forked process; its exit code (None: it had to be killed), output, seconds."""
    (folder / "../output").write_bytes(b"")
    began, child = time.monotonic(), os.fork()
    if not child:
        code: Any = 99
        try:
            os.setsid()  # what it starts ends with it
            os.chdir(folder)
            output = os.open("../output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for number in (1, 2):
                os.dup2(output, number)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.environ |= {"HOME": str(folder / "runs")}  # no cache of this machine is found, or made elsewhere
            limit_memory()
            sys.argv = [str(ROOT / "train.py"), *arguments]
            code = 0
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except BaseException:
            code = 1
            traceback.print_exc()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code & 255)
    ended = 0, 0
    try:
        while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < began + limit:
            time.sleep(0.005)
    finally:
        try:
            os.killpg(child, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):  # nothing is left of it, or it has not come to setsid
            if not ended[0]:
                os.kill(child, signal.SIGKILL)
        if not ended[0]:
            os.waitpid(child, 0)
    text = (folder / "../output").read_bytes().decode(errors="backslashreplace")
    return os.waitstatus_to_exitcode(ended[1]) if ended[0] else None, text, time.monotonic() - began


def limit_memory() -> None:
    import resource  # not on Windows

    pages = Path("/proc/self/statm")
    now = int(pages.read_text().split()[0]) * resource.getpagesize() if pages.exists() else 0
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))


def build(root: Path, bases: Path, number: int) -> None:
    """A folder to work in, with a run, amid files, folders and runs of others; a pipe hangs whoever reads it."""
    for folder in ("canary/folder/deep", "canary/empty", "downloads", "project/checkpoints", "work"):
        (root / folder).mkdir(parents=True)
    for name in ("secret.txt", "metrics.csv", "best.ckpt", "folder/a", "folder/deep/b", "folder/.hidden"):
        (root / "canary" / name).write_text("x,y\n1,2\n")
    for name in ("config.yaml", "metrics.json", "coefficients.csv"):
        (root / "project" / name).write_text("precious: true\n")
    (root / "canary/secret.txt").chmod(0o600)
    os.mkfifo(root / "canary/pipe")
    for name, target in (("link", "secret.txt"), ("dirlink", "folder"), ("dangling", "nowhere")):
        (root / "canary" / name).symlink_to(target)
    shutil.copytree(bases / f"{number}/runs", root / "work/runs")
    shutil.copytree(bases / "1/runs", root / "foreign/runs")
    shutil.copytree(bases / "configs", root / "work/configs")
    (root / "work/table.csv").write_bytes((bases / "1/table.csv").read_bytes())


def look(root: Path) -> dict[str, tuple[Any, ...]]:
    """What lies below a folder; names, kinds, modes, when each was changed, and when a file was read."""
    seen = {}
    for folder, folders, files in os.walk(root):
        for path in (Path(folder, name) for name in [*folders, *files]):
            info, name = path.lstat(), path.relative_to(root).as_posix()
            times = (info.st_mtime_ns, info.st_ctime_ns, info.st_size)
            if stat.S_ISDIR(info.st_mode) and name.startswith("work"):  # in which a run makes its own folder
                times = ()
            seen[name] = (info.st_mode, info.st_ino, *times, info.st_atime_ns if stat.S_ISREG(info.st_mode) else 0)
    return seen


def forget_reads(root: Path) -> None:
    """Lets the next read of each file show: most file systems note a read if the last one is older than the file."""
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            os.utime(path, ns=(0, path.stat().st_mtime_ns))


def harm(before: dict[str, Any], after: dict[str, Any], own: str, may_read: str) -> list[str]:
    """What is not as it was, or was read, outside of a run's own folder."""
    found = [
        f"made {name}" for name in after.keys() - before.keys() if not name.startswith("work/runs/") or ".tmp" in name
    ]
    found = [text for text in found if text not in ("made work/predictions.csv", "made output")]
    for name in before.keys() - {"output", "work", "work/runs"}:
        if own and name.startswith(own):
            continue
        if name not in after:
            found.append(f"removed {name}")
        elif after[name][:-1] != before[name][:-1]:
            found.append(f"changed {name}")
        elif after[name][-1] != before[name][-1] and name.startswith(("canary", "foreign", "project")):
            found += [f"read {name}"] * (Path(name).name not in may_read)
    return sorted({re.sub(r"events\.out.*", "events", text) for text in found})
