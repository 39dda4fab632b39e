"""What a CSV file means: one definition, for training and for prediction alike.

UTF-8 text; a header line with the columns' names; cells separated by a comma, or by a tab or semicolon where the
header holds no comma; quotes as in RFC 4180; every row as wide as the header; decimal points. What does not fit is
refused with its file, line and column: a guess would be silently wrong.
"""

import contextlib
import csv
import io
import itertools
import os
import re
import unicodedata
from collections import Counter, deque
from collections.abc import Generator, Iterator
from functools import cached_property, partial

from linreg.files.cells import NUMBER, Spelling
from linreg.files.text_file import LONGEST, TextFile
from linreg.system.errors import InputError, did_you_mean

SAMPLE, SAMPLE_OF_MANY = 1_000, 50  # rows that tell what cells look like; of each of several files but the first
NOT_TEXT = re.compile("[\0\udc80-\udcff]")  # a NUL, or a byte that is not UTF-8


class CSVFile(TextFile):
    """A CSV file whose header has been read: ``names``, ``delimiter``, and its rows on demand."""

    sample = SAMPLE

    def __init__(self, path: str | os.PathLike[str], spelling: Spelling | None = None) -> None:
        super().__init__(path)
        self.spelling = spelling or Spelling()
        self.names: list[str] = []
        self.delimiter = ","
        with self.explained(), self.open_text() as text:
            first = next(self._lines(text, 1), "")
        if not first.strip():
            raise InputError(f"{self.path}, line 1: a header line with the columns' names is expected, found nothing")
        unquoted = re.sub('"[^"]*"', "", first)
        self.delimiter = next((d for d in (",\t;" if self.spelling.decimal == "." else "\t;,") if d in unquoted), ",")
        with self.explained(), self.open_text() as text:
            records = self._records(text, 1)
            self.names = [name.strip() for name in next(records)[1]]
            records.close()
        self._check_header()
        self._positions = {_form(name): i for i, name in enumerate(self.names) if name}

    def _check_header(self) -> None:
        named = [name for name in self.names if name]
        if all(NUMBER.fullmatch(name) for name in named):
            found = "only numbers" if named else "only empty ones"
            raise InputError(f"{self.path}, line 1: a header with the columns' names is expected, found {found}")
        for name in named:
            if "\ufeff" in name:
                raise self.error(1, name, "a byte-order mark inside a column's name; save the file as UTF-8 again")
        twice = [repr(name) for name, count in Counter(map(_form, named)).items() if count > 1]
        if twice:
            raise InputError(f"{self.path}, line 1: each column needs its own name, twice there: {', '.join(twice)}")

    def index(self, name: str, role: str) -> int:
        """The position of a column; InputError names the nearest one if there is none."""
        if _form(name) in self._positions:
            return self._positions[_form(name)]
        names = [name for name in self.names if name]
        shown = [name[:40] if name[:40].isprintable() else repr(name[:40]) for name in names[:20]]
        hint = did_you_mean(name, names) or f"; it has: {', '.join(shown)}{', ...' * (len(names) > 20)}"
        if self.names[0].lower().startswith(("# ", "sep=")):
            hint += " (a comment, or Excel's sep=, is no header: take the lines above the columns' names out)"
        elif len(names) == 1:
            hint += " (the first line has to be the header, its names separated by a comma, a tab or a semicolon)"
        raise self.error(1, None, f"no column {name!r} {role}{hint}")

    def rows_of(
        self, text: io.TextIOWrapper, first: int, seen: list[str] | None = None
    ) -> Iterator[tuple[int, list[str]]]:
        """The rows of a part of the file that begins with line ``first``, each with the number of its own first line.

        In ``seen`` are the lines that a row is made of, until the next one is asked for.
        """
        width, blank = len(self.names), None
        for line, cells in itertools.islice(self._records(text, first, seen), int(first == 1), None):
            if not cells:
                blank = line
            elif len(cells) != width:
                found = f"{len(cells)} cell{'s' * (len(cells) > 1)} where the header has {width} columns"
                if len(cells) > width:
                    raise self.error(line, None, f"{found} (an unquoted separator or a decimal comma in a cell?)")
                lacking = f"none for {self.names[len(cells)]!r}"
                raise self.error(line, None, f"{found}, {lacking} (a cut-off line?); it begins with {cells[0][:40]!r}")
            elif blank and width == 1:
                raise self.error(blank, self.names[0], "a blank line; write NA for a missing cell")
            else:
                yield line, cells

    @cached_property
    def first_rows(self) -> list[tuple[int, list[str]]]:
        """The first rows with their lines, fewer where these are very wide; up to the one that cannot be read."""
        found = list[tuple[int, list[str]]]()
        with contextlib.suppress(InputError), self.open_text() as text:  # which is raised where all rows are read
            found.extend(itertools.islice(self.rows_of(text, 1), min(self.sample, 1 + 100_000 // len(self.names))))
        return found

    def error(self, line: int, column: str | None, message: str) -> InputError:
        where = f"line {line}" + (f", column {column!r}" if column else "")
        return InputError(f"{self.path}, {where}: {message}")

    def _records(
        self, text: io.TextIOWrapper, first: int, seen: list[str] | None = None
    ) -> Generator[tuple[int, list[str]], None, None]:
        line = first
        with self.explained():
            reader = csv.reader(self._lines(text, first, seen), delimiter=self.delimiter, strict=True)
            try:
                for cells in reader:
                    yield line, cells
                    line = first + reader.line_num
                    if seen:
                        seen.clear()
            except csv.Error as error:
                raise self._bad_cell(line, first - 1 + reader.line_num, str(error)) from None

    def _lines(self, text: io.TextIOWrapper, first: int, seen: list[str] | None = None) -> Iterator[str]:
        for number, line in enumerate(iter(partial(text.readline, LONGEST), ""), first):
            if line.endswith("\r"):
                message = "ends in a lone carriage return; save it with \\n or \\r\\n line ends"
                raise self.error(number, self._column_at(number, line[:-1]), message)
            if ("\0" in line or not line.isascii()) and (found := NOT_TEXT.search(line)):
                byte = ord(found[0]) & 0xFF
                what = f"byte 0x{byte:02x} is not UTF-8" if byte else "holds a NUL byte"
                before = line[: found.start()]
                raise self.error(number, self._column_at(number, before), f"{what}; save the file as text in UTF-8")
            if len(line) == LONGEST and not line.endswith("\n"):
                raise self.error(number, None, f"no line end in {LONGEST:,} characters; is the file whole?")
            if seen is not None:
                seen.append(line)
            yield line

    def _column_at(self, line: int, before: str) -> str | None:
        """The column that a file has come to after the beginning of a line, which may lie inside a quoted cell."""
        if not self.names:
            return None
        with self.open_text() as text:
            lines = itertools.chain(itertools.islice(text, line - 1), [before])
            try:
                record = deque(csv.reader(lines, delimiter=self.delimiter), maxlen=1).pop()
            except csv.Error:
                return None
        return self.names[max(len(record), 1) - 1] if len(record) <= len(self.names) else None

    def _bad_cell(self, first: int, last: int, reason: str) -> InputError:
        """Says which cell of the lines first to last the csv module could not take apart."""
        with self.open_text() as text:
            record = "".join(itertools.islice(text, first - 1, last))
        end, limit = re.escape(self.delimiter), csv.field_size_limit()
        cell = re.compile(rf'("(?:[^"]|"")*"|(?!")[^{end}\r\n]*){end}')
        start = position = 0
        while (found := cell.match(record, start)) and len(found[1]) <= limit:
            start, position = found.end(), position + 1
        why = f"is longer than {limit:,} characters (a quote that is never closed?)"
        if "expected after" in reason:
            why = "goes on after its closing quote; a quote inside quotes has to be doubled"
        elif "end of data" in reason:
            why = "has a quote that is never closed"
        column = self.names[position] if position < len(self.names) else None
        return self.error(first + record.count("\n", 0, start), column, f"{record[start : start + 20]!r}... {why}")


def _form(name: str) -> str:
    """One spelling of a name for the two that Unicode has for an accented letter, which look the same."""
    return unicodedata.normalize("NFC", name)
