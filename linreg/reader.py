"""What a CSV file means: one definition, for training and for prediction alike.

UTF-8 text; a header line with the columns' names; cells separated by a comma, or by a tab or semicolon where the
header holds no comma; quotes as in RFC 4180; every row as wide as the header; decimal points. What does not fit is
refused with its file, line and column: a guess would be silently wrong.
"""

import csv
import gzip
import io
import math
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from linreg.errors import InputError, nearest

MISSING = ("", "NA", "N/A", "NaN", "nan", "NULL", "null")  # what R, pandas, SQL and spreadsheets write for "no value"
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
LARGEST = 1e150  # beyond it, or below its inverse, a value's square, and so its variance, does not fit float64


def parse_number(cell: str) -> float:
    """The number in a cell, NaN for a missing one; ValueError says why it is neither."""
    text = cell.strip(" \t")
    if NUMBER.fullmatch(text):
        value = float(text)
        if not (value == 0 or 1 / LARGEST < abs(value) < LARGEST):
            raise ValueError(
                f"is not 0 and not between {1 / LARGEST:g} and {LARGEST:g} in size: float64 cannot square it"
            )
        return value
    if text in MISSING:
        return math.nan
    if re.fullmatch(r"[+-]?\d+,\d+", text):
        raise ValueError("has a decimal comma or a thousands separator: write it with a decimal point only")
    raise ValueError("is not a number")


class CSVFile:
    """A CSV file whose header has been read: ``names``, ``delimiter``, and its rows on demand."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self.before = self.path.stat()
            if not stat.S_ISREG(self.before.st_mode):
                raise InputError(f"{self.path}: a CSV file is expected, this is not a regular file")
            with self.open_bytes() as stream, _as_text(stream, 1) as text:
                first = text.readline()
        except FileNotFoundError:
            raise InputError(f"{self.path}: no such file{nearest(self.path.name, _siblings(self.path))}") from None
        except UnicodeDecodeError:
            raise self._not_utf8() from None
        except (OSError, EOFError) as error:
            raise InputError(f"{self.path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
        if not first.strip():
            raise InputError(f"{self.path}, line 1: a header line with the columns' names is expected, found nothing")
        unquoted = re.sub('"[^"]*"', "", first)
        self.delimiter = next((d for d in ",\t;" if d in unquoted), ",")
        with self.open_bytes() as stream:
            records = self._records(stream, 1)
            self.names = [name.strip() for name in next(records)[1]]
            self.body = next(records, (2, []))[0]  # the line below the header, which may be one of several lines
            records.close()
        self._check_header()

    def _check_header(self) -> None:
        named = [name for name in self.names if name]
        if all(NUMBER.fullmatch(name) for name in named):
            raise InputError(f"{self.path}, line 1: a header with the columns' names is expected, found only numbers")
        twice = sorted({name for name in named if named.count(name) > 1})
        if twice:
            raise InputError(f"{self.path}, line 1: each column needs its own name, twice there: {', '.join(twice)}")

    def index(self, name: str, role: str) -> int:
        """The position of a column; InputError names the nearest one if there is none."""
        if name not in self.names or not name:
            hint = nearest(name, self.names) or f"; it has: {', '.join(filter(None, self.names[:20]))}"
            raise InputError(f"{self.path}: no column {name!r} for the {role}{hint}")
        return self.names.index(name)

    def rows(self, stream: io.BufferedIOBase, line: int) -> Iterator[tuple[int, list[str]]]:
        """Each row with its line number, as wide as the header; blank lines are no rows.

        Args:
            stream: bytes of the file, from the beginning of a row on.
            line: the line number of that row.
        """
        width, blank = len(self.names), None
        for number, cells in self._records(stream, line):
            if not cells:
                blank = number
            elif len(cells) != width:
                hint = "a cut-off line?" if len(cells) < width else "an unquoted separator in a cell?"
                raise self.error(number, None, f"{len(cells)} cells where the header has {width} columns ({hint})")
            elif blank and width == 1:
                raise self.error(blank, self.names[0], "a blank line; write NA for a missing cell")
            else:
                yield number, cells

    def all_rows(self) -> Iterator[tuple[int, list[str]]]:
        """The rows of the whole file."""
        with self.open_bytes() as stream:
            for _ in range(self.body - 1):
                stream.readline()
            yield from self.rows(stream, self.body)
        self.check_unchanged()

    def check_unchanged(self) -> None:
        """InputError if the file was written to since its header was read."""
        after = self.path.stat()
        if (self.before.st_size, self.before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise InputError(f"{self.path} changed while it was read; try again when nothing writes to it")

    def error(self, line: int, column: str | None, message: str) -> InputError:
        where = f"line {line}" + (f", column {column!r}" if column else "")
        return InputError(f"{self.path}, {where}: {message}")

    def _records(self, stream: io.BufferedIOBase, line: int) -> Iterator[tuple[int, list[str]]]:
        first = line - 1
        try:
            with _as_text(stream, line) as text:
                reader = csv.reader(self._lines(text, line), delimiter=self.delimiter, strict=True)
                for cells in reader:
                    yield line, cells
                    line = first + reader.line_num + 1
        except UnicodeDecodeError:
            raise self._not_utf8() from None
        except csv.Error as error:
            raise self.error(first + reader.line_num, None, f"not valid CSV: {error}") from None
        except (OSError, EOFError) as error:
            raise InputError(f"{self.path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None

    def _lines(self, text: io.TextIOWrapper, first: int) -> Iterator[str]:
        for number, line in enumerate(text, first):
            if line.endswith("\r"):
                raise self.error(number, None, "ends in a lone carriage return; save it with \\n or \\r\\n line ends")
            if "\0" in line:
                raise self.error(number, None, "holds a NUL byte; is this a text file?")
            yield line

    def open_bytes(self) -> io.BufferedIOBase:
        """The file's bytes, unpacked if it is gzipped."""
        with self.path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        return gzip.open(self.path) if zipped else self.path.open("rb")

    def _not_utf8(self) -> InputError:
        with self.open_bytes() as file:
            for number, line in enumerate(file, 1):
                try:
                    line.decode("utf-8-sig")
                except UnicodeDecodeError as error:
                    byte = line[error.start]
                    return self.error(number, None, f"byte 0x{byte:02x} is not UTF-8; save the file as UTF-8")
        return InputError(f"{self.path} is not UTF-8; save the file as UTF-8")


@contextmanager
def _as_text(stream: io.BufferedIOBase, line: int) -> Iterator[io.TextIOWrapper]:
    text = io.TextIOWrapper(stream, encoding="utf-8-sig" if line == 1 else "utf-8", newline="")
    try:
        yield text
    finally:
        text.detach()  # the stream is closed by whom it belongs to


def _siblings(path: Path) -> list[str]:
    return [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
