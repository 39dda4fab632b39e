"""From a CSV file to numbers, a block of lines at a time: fast where it is plain, exact where there is doubt."""

import io
import os
import zlib
from array import array
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import isnan, nan
from typing import Any

import numpy as np

from linreg.errors import InputError
from linreg.files.cells import EXACT, LARGEST, MISSING, NUMBER, TextCell, parse_number
from linreg.files.csv_text import CSVFile
from linreg.files.text_file import LONGEST

FIRST, BLOCK = 1 << 16, 1 << 20  # bytes; larger blocks leave the processor's cache
THREADS = min(os.cpu_count() or 1, 4)
SAMPLE = 1_000  # cells that tell a column of text from one of numbers with a text cell on top
ROWS = 65_536  # of a block from the exact reader, at most
PLAIN = b"0123456789.+-eE \r\n"


@dataclass
class Column:
    """A column to read, and what is known of it so far."""

    name: str
    required: bool  # named by the user, so text in it is an error
    has_number: bool = False
    text: str | None = None  # why it is left out
    hole: InputError | None = None  # its first missing cell, where that is an error
    odd: InputError | None = None  # its first cell of text, should the others be numbers
    sample: tuple[int, int] = (0, 0)  # of a column of text: cells of text and numbers among the first 1,000 or so

    @property
    def is_odd(self) -> bool:
        """Whether what is taken for text is a column of numbers but for one cell, or but for a tenth of them."""
        text, numbers = self.sample
        return numbers > 0 and text <= max(1, (text + numbers) // 10)


class CSVBlocks:
    """Iterates over the columns' values in blocks (n, C) of float64, NaN where a cell is missing or a column left out.

    Whole lines are parsed by pyarrow, on several threads, or without it by numpy. Whatever these do not take for plain
    numbers, or might take for something else than ``cells`` says, goes through the csv module, which knows its place.

    Args:
        file: the file.
        columns: the columns to read, C; what becomes known of them is noted there.
        refuse_missing: whether a missing cell is an error.

    Raises:
        InputError: with file, line and column, for whatever is not a number where one is expected.
    """

    def __init__(self, file: CSVFile, columns: list[Column], refuse_missing: bool = False) -> None:
        self.file, self.columns, self.refuse_missing = file, columns, refuse_missing
        self.positions = [file.index(column.name, "table") for column in columns]
        self.arrow: Any = import_arrow() if file.num_bytes > BLOCK else None  # importing it takes as long as 10 MB

    def __iter__(self) -> Iterator[np.ndarray]:
        parse, threads = (self._by_arrow, THREADS) if self.arrow else (self._by_numpy, 1)
        waiting: deque[tuple[Future[np.ndarray | None], bytes, int]] = deque()
        line, size = 1, FIRST
        with self.file.explained(), self.file.open_bytes() as stream, ThreadPoolExecutor(threads) as pool:
            while True:
                start, (block, whole) = stream.tell(), next_block(stream, size)
                if block and whole:
                    waiting.append((pool.submit(parse if line > 1 else lambda header: None, block), block, line))
                    line += np.count_nonzero(np.frombuffer(block, np.uint8) == 10)  # 5 times as fast as block.count
                while waiting and (len(waiting) > threads or not (block and whole)):
                    yield from self._settle(*waiting.popleft())
                if not whole:
                    stream.seek(start)
                    yield from self._exactly(stream, line)
                if not (block and whole):
                    break
                size = BLOCK
        self.file.check_unchanged()

    def _settle(self, future: "Future[np.ndarray | None]", block: bytes, line: int) -> Iterator[np.ndarray]:
        values = future.result()
        if values is None:
            yield from self._exactly(io.BytesIO(block), line)
            return
        for column, has_number in zip(self.columns, ~np.isnan(values).all(axis=0), strict=True):
            column.has_number = column.has_number or (bool(has_number) and column.text is None)
            if column.hole and column.has_number:
                raise column.hole
        yield values

    def _by_arrow(self, block: bytes) -> np.ndarray | None:
        """A block's values; None at the least doubt."""
        if b'"' in block or b"\0" in block or len(self.file.names) == 1:
            return None
        if b"\r" in block and block.count(b"\r") != block.count(b"\r\n"):
            return None
        pa, csv = self.arrow, self.arrow.csv
        names = [str(i) for i in range(len(self.file.names))]
        numbers = [i for i, column in enumerate(self.columns) if column.text is None]
        types = {str(self.positions[i]): pa.float64() for i in numbers}
        try:
            if not block.isascii():
                block.decode()
            table = csv.read_csv(
                pa.py_buffer(block),
                csv.ReadOptions(use_threads=False, block_size=len(block) + 1, column_names=names),
                csv.ParseOptions(delimiter=self.file.delimiter, quote_char=False),
                csv.ConvertOptions(
                    check_utf8=False, column_types=types, include_columns=list(types), null_values=MISSING
                ),
            )
        except (pa.ArrowInvalid, UnicodeDecodeError):
            return None
        values, num_missing = np.full((table.num_rows, len(self.columns)), nan), 0
        for i, column in zip(numbers, table.columns, strict=True):
            values[:, i] = column.to_numpy()
            num_missing += column.null_count
        certain = fits(values, exponents=b"e-" in block or b"E-" in block).sum()
        if certain + num_missing != table.num_rows * len(numbers) or (num_missing and self.refuse_missing):
            return None
        return values

    def _by_numpy(self, block: bytes) -> np.ndarray | None:
        """A block's values if it holds nothing but plain numbers; None at the least doubt."""
        if len(self.file.names) == 1 or block.translate(None, PLAIN + self.file.delimiter.encode()):
            return None
        if block.count(b"\r") != block.count(b"\r\n") or not block.strip():
            return None
        try:
            values = np.loadtxt(io.BytesIO(block), delimiter=self.file.delimiter, comments=None, ndmin=2)
        except ValueError:
            return None
        if values.shape[1] != len(self.file.names) or any(column.text for column in self.columns):
            return None
        return values[:, self.positions] if fits(values, b"e-" in block or b"E-" in block).all() else None

    def _exactly(self, stream: io.BufferedIOBase, line: int) -> Iterator[np.ndarray]:
        values, width = array("d"), len(self.columns)
        with self.file.as_text(stream, line) as text:
            for number, cells in self.file.rows_of(text, line):
                for column, at in zip(self.columns, self.positions, strict=True):
                    values.append(self._number(number, column, cells[at]))
                if len(values) == ROWS * width:
                    yield np.frombuffer(values).reshape(-1, width)
                    values = array("d")
        if values:
            yield np.frombuffer(values).reshape(-1, width)

    def _number(self, line: int, column: Column, cell: str) -> float:
        """The number in a cell, NaN if it is missing, or if the column is text, which its first cell decides."""
        if column.text is not None:
            text, numbers = column.sample
            if text + numbers < SAMPLE and (cell := cell.strip(" \t")) not in MISSING:
                is_number = NUMBER.fullmatch(cell) is not None
                column.sample = text + (not is_number), numbers + is_number
            return nan
        remedy = "" if column.required else "; choose the columns with --data.features"
        try:
            value = parse_number(cell)
        except ValueError as reason:
            if column.required or column.has_number or not isinstance(reason, TextCell):
                raise self.file.error(line, column.name, f"{cell[:80]!r} {reason}{remedy}") from None
            column.text, column.sample = f"text: {cell[:80]!r} in line {line}", (1, 0)
            column.odd = self.file.error(line, column.name, f"{cell[:80]!r} is text in a column of numbers{remedy}")
            return nan
        if isnan(value) and self.refuse_missing:
            missing = self.file.error(line, column.name, f"a missing cell ({cell!r}), see --data.missing")
            column.hole = column.hole or missing
        column.has_number = column.has_number or not isnan(value)
        if column.hole and (column.has_number or column.required):
            raise column.hole
        return value


def next_block(stream: io.BufferedIOBase, size: int) -> tuple[bytes, bool]:
    """Some lines, and whether they can be read by themselves: no quoted cell goes on, the file does not break off."""
    try:
        block = stream.read(size)
        block += (rest := stream.readline(LONGEST - size))
    except (OSError, EOFError, zlib.error):
        return b"", False
    even = b'"' not in block or all(row.count(b'"') % 2 == 0 for row in block.split(b"\n"))
    return block, even and len(rest) < LONGEST - size


def fits(values: np.ndarray, exponents: bool) -> np.ndarray:
    """Which values are beyond doubt; the others, and NaN, are for the exact reader to judge.

    Args:
        values: of a block.
        exponents: whether it holds negative ones, so that a 0 may be what is too small for float64.
    """
    size = np.abs(values)
    return ((size == 0) & (not exponents)) | ((size > 1 / LARGEST) & (size < EXACT))


def import_arrow() -> Any:
    """Pyarrow where it is installed: an extra of 170 MB, which reads a large file 3 to 4 times as fast as numpy."""
    try:
        import pyarrow.csv
    except ImportError:
        return None
    return pyarrow
