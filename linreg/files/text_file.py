"""A file of text: whether it is one, its bytes unpacked, and whether it stayed the same while it was read."""

import gzip
import io
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from linreg.system.errors import InputError, did_you_mean

LONGEST = 1 << 24  # characters of a line: without a limit, a line without an end would fill the memory
FORMATS = {  # how files begin that are often taken for CSV
    b"PK\x03\x04": "a zip archive (an Excel workbook is one)",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"PAR1": "a Parquet file",
    b"%PDF": "a PDF",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}


class TextFile:
    """A regular file of text in UTF-8, plain or gzipped."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not isinstance(path, str | os.PathLike) or not str(path).strip() or "\0" in str(path):
            raise InputError(f"path={path!r}: the path of a CSV file is expected")
        if "://" in str(path):
            raise InputError(f"{path}: a local file is expected; download it first")
        self.path = Path(path)
        with self.explained():
            mode = self.path.stat().st_mode
            if not stat.S_ISREG(mode):  # before it is opened: a FIFO would wait, /dev/zero has no end
                kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
                raise InputError(f"{self.path}: a CSV file is expected, this is {kind}")
            if self.path.resolve().parts[1:2] in (("proc",), ("sys",)):  # some of which wait when they are read
                raise InputError(f"{self.path}: a CSV file is expected, this is one of the system's own")
            self._before = self._state()
            self.num_bytes = self.path.stat().st_size
            with self.path.open("rb") as file:
                head = file.read(1 << 12)
                file.seek(-min(self.num_bytes, 1 << 16), os.SEEK_END)
                padded = self.num_bytes > 1 << 16 and not any(file.read(1 << 16))
        for start, kind in FORMATS.items():
            if head.startswith(start):
                remedy = "let its name end in .parquet" if start == b"PAR1" else "export it as CSV"
                raise InputError(f"{self.path}: a CSV file is expected, this is {kind}; {remedy}")
        self.zipped = head.startswith(b"\x1f\x8b")
        if self.zipped and padded:  # which gzip would skip a byte at a time
            raise InputError(f"{self.path}: ends in NUL bytes below the gzip data; is the file whole?")
        if not self.zipped and b"\0" in head.partition(b"\n")[0]:  # at once: a line of NULs may have no end
            raise InputError(f"{self.path}, line 1: holds a NUL byte; a text file in UTF-8 is expected")

    def open_bytes(self) -> io.BufferedIOBase:
        """The file's bytes, unpacked if it is gzipped."""
        return gzip.open(self.path) if self.zipped else self.path.open("rb")

    def open_text(self) -> io.TextIOWrapper:
        """The file's text; see ``as_text``."""
        return self.as_text(self.open_bytes(), 1)

    @staticmethod
    def as_text(stream: Any, line: int) -> io.TextIOWrapper:
        """Text from that line on, its line ends as they are; a byte that is not UTF-8 comes as a lone surrogate."""
        encoding = "utf-8-sig" if line == 1 else "utf-8"
        return io.TextIOWrapper(stream, encoding=encoding, errors="surrogateescape", newline="")

    def check_unchanged(self) -> None:
        """InputError if the path leads to another file than at first, or this one was written to since."""
        if self._state() != self._before:
            raise InputError(f"{self.path} changed while it was read; try again when nothing writes to it")

    def _state(self) -> tuple[int, ...] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turns whatever goes wrong between the disk and the text into an InputError."""
        try:
            yield
        except InputError:
            if hasattr(self, "_before"):
                self.check_unchanged()  # else it would be blamed for what another program is writing
            raise
        except FileNotFoundError:
            raise InputError(f"{self.path}: no such file{_way_out(self.path)}") from None
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(f"{self.path}: cannot be read, its gzip data are cut off or damaged: {error}") from None
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read: {error.strerror or error}") from None


def _way_out(path: Path) -> str:
    """The remedy for a path that leads to no file."""
    if path.is_symlink():
        return f" (a link to nothing, {os.readlink(path)})"
    if str(path).startswith("~"):
        return "; ~ is not expanded here, give the whole path"
    try:
        return did_you_mean(path.name, [other.name for other in path.parent.iterdir()])
    except OSError:
        return ""
