"""Files that appear whole or not at all."""

import itertools
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from linreg.system.errors import RunError


def atomic_write(path: Path, content: bytes | memoryview) -> None:
    """Writes a file at once, as by ``replacing``; RunError if it cannot be written."""
    try:
        with replacing(path) as file:
            file.write(content)
    except OSError as error:
        raise RunError(f"{path} could not be written: {error.strerror}; what was there before is intact") from error


@contextmanager
def replacing(path: Path, mode: str = "xb", **how: Any) -> Iterator[IO[Any]]:
    """A new file beside a path, which it replaces once it is whole: a kill or a full disk leaves what was there.

    So does an exception in the block within. OSError if it cannot be made, written or renamed.
    """
    with suppress(OSError):
        for leftover in leftovers(path.parent, re.escape(path.name[:32])):
            if leftover.is_file() and not leftover.is_symlink():
                leftover.unlink()
    for temporary in temporaries(path):
        with suppress(FileExistsError):
            file = temporary.open(mode, **how)  # "x" follows no link
            break
    try:
        yield file
        file.flush()
        os.fsync(file.fileno())
        file.close()
        os.replace(temporary, path)
    except BaseException:  # not in any case: once it is renamed, another thread may take the name
        with suppress(OSError):  # what it still holds may have no room
            file.close()
        with suppress(OSError):
            temporary.unlink()
        raise
    with suppress(PermissionError):  # Windows opens no folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # else a power cut may undo the renaming
        finally:
            os.close(folder)


def temporaries(path: Path) -> Iterator[Path]:
    """Names beside a path for what is to replace it; they say which process of which machine is at work on it."""
    for number in itertools.count():
        yield path.with_name(f".{path.name[:32]}.{_machine()}.{os.getpid()}-{number}.tmp")


def leftovers(folder: Path, name: str) -> Iterator[Path]:
    """The temporaries of a name (a regular expression) in a folder whose process, one of this machine, is dead."""
    pattern = re.compile(rf"\.{name}\.{re.escape(_machine())}\.(\d{{1,19}})-\d+\.tmp", re.ASCII)
    for path in folder.iterdir():
        if (found := pattern.fullmatch(path.name)) and _is_dead(int(found[1])):
            yield path


def _machine() -> str:
    """What tells apart the machines, and the containers of one, that share a folder: each counts its own processes."""
    space = 0
    with suppress(OSError):
        space = os.stat("/proc/self/ns/pid").st_ino
    return f"{platform.node()[:64]}-{space}".replace("/", "_")


def _is_dead(process: int) -> bool:
    """Whether no process has that number; no where that cannot be asked: on Windows signal 0 would be Ctrl-C."""
    if os.name != "posix":
        return False
    try:
        os.kill(process, 0)
    except (OSError, OverflowError) as error:
        return isinstance(error, ProcessLookupError)
    return False
