"""From a CSV file to numbers, a block of lines at a time: fast where it is plain, exact where there is doubt."""

import io
import os
from array import array
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from linreg.errors import InputError
from linreg.reader import LARGEST, MISSING, CSVFile, parse_number

BLOCK = 1 << 20  # bytes; what is larger leaves the processor's cache
THREADS = min(os.cpu_count() or 1, 4)
ROWS = 65_536  # of a block from the exact reader, at most
PLAIN = b"0123456789.+-eE \r\n"


@dataclass
class Column:
    """A column to read, and what is known of it so far."""

    name: str
    required: bool  # named by the user, so text in it is an error
    has_number: bool = False
    text: str | None = None  # why it is left out


class CSVBlocks:
    """Iterates over the columns' values in blocks (n, C) of float64, NaN where a cell is missing or a column left out.

    Whole lines are parsed by pyarrow, on several threads, or without it by numpy. Whatever these do not take for plain
    numbers, or might take for something else than ``reader`` says, goes through the csv module, which knows its place.

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
        self.arrow = import_arrow() if file.before.st_size > BLOCK else None  # importing it takes as long as 10 MB

    def __iter__(self) -> Iterator[np.ndarray]:
        parse, threads = (self._by_arrow, THREADS) if self.arrow else (self._by_numpy, 1)
        waiting: deque[tuple[Future[np.ndarray | None], bytes, int]] = deque()
        line = self.file.body
        with self.file.open_bytes() as stream, ThreadPoolExecutor(threads) as pool:
            for _ in range(line - 1):
                stream.readline()
            while True:
                start, (block, whole) = stream.tell(), self._next_block(stream)
                if block and whole:
                    waiting.append((pool.submit(parse, block), block, line))
                    line += np.count_nonzero(np.frombuffer(block, np.uint8) == 10)  # 5 times as fast as block.count
                while waiting and (len(waiting) > threads or not (block and whole)):
                    yield from self._settle(*waiting.popleft())
                if not whole:  # a cell may go on in the next block
                    stream.seek(start)
                    yield from self._exactly(stream, line)
                if not (block and whole):
                    break
        self.file.check_unchanged()

    def _next_block(self, stream: io.BufferedIOBase) -> tuple[bytes, bool]:
        """Some whole lines, and whether each holds whole cells."""
        try:
            block = stream.read(BLOCK)
            block += stream.readline()
        except (OSError, EOFError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{self.file.path}: cannot be read: {reason}") from None
        return block, b'"' not in block or all(line.count(b'"') % 2 == 0 for line in block.split(b"\n"))

    def _settle(self, future: "Future[np.ndarray | None]", block: bytes, line: int) -> Iterator[np.ndarray]:
        values = future.result()
        if values is None:
            yield from self._exactly(io.BytesIO(block), line)
            return
        for column, has_number in zip(self.columns, ~np.isnan(values).all(axis=0), strict=True):
            column.has_number = column.has_number or bool(has_number)
        yield values

    def _by_arrow(self, block: bytes) -> np.ndarray | None:
        """A block's values; None at the least doubt."""
        if b'"' in block or b"\0" in block or len(self.file.names) == 1:
            return None
        if b"\r" in block and block.count(b"\r") != block.count(b"\r\n"):
            return None
        pa, csv = self.arrow, self.arrow.csv
        wanted = [i for i, column in enumerate(self.columns) if column.text is None]
        names = [str(i) for i in range(len(self.file.names))]
        chosen = [names[self.positions[i]] for i in wanted]
        try:
            if not block.isascii():
                block.decode()
            table = csv.read_csv(
                pa.py_buffer(block),
                csv.ReadOptions(use_threads=False, block_size=len(block) + 1, column_names=names),
                csv.ParseOptions(delimiter=self.file.delimiter, quote_char=False),
                csv.ConvertOptions(
                    check_utf8=False,
                    column_types=dict.fromkeys(chosen, pa.float64()),
                    include_columns=chosen,
                    null_values=MISSING,
                ),
            )
        except (pa.ArrowInvalid, UnicodeDecodeError):
            return None
        values = np.full((table.num_rows, len(self.columns)), np.nan)
        for i, column in zip(wanted, table.columns, strict=True):
            values[:, i] = column.to_numpy()
        num_missing = sum(column.null_count for column in table.columns)
        if fits(values).sum() + num_missing != table.num_rows * len(wanted) or (num_missing and self.refuse_missing):
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
        return values[:, self.positions] if values.shape[1] == len(self.file.names) and fits(values).all() else None

    def _exactly(self, stream: io.BufferedIOBase, line: int) -> Iterator[np.ndarray]:
        values, width = array("d"), len(self.columns)
        for number, cells in self.file.rows(stream, line):
            values.extend(self._number(number, i, cells[at]) for i, at in enumerate(self.positions))
            if len(values) == ROWS * width:
                yield np.frombuffer(values).reshape(-1, width)
                values = array("d")
        if values:
            yield np.frombuffer(values).reshape(-1, width)

    def _number(self, line: int, i: int, cell: str) -> float:
        column = self.columns[i]
        if column.text is not None:
            return np.nan
        try:
            value = parse_number(cell)
        except ValueError as reason:
            if column.required or column.has_number:
                remedy = "" if column.required else " (or choose the columns with --data.features)"
                raise self.file.error(line, column.name, f"{cell!r} {reason}{remedy}") from None
            column.text = f"text: {cell!r} in line {line}"
            return np.nan
        if value != value and self.refuse_missing:
            raise self.file.error(line, column.name, f"a missing cell ({cell!r}), and missing is 'error'")
        column.has_number = column.has_number or value == value
        return value


def import_arrow() -> ModuleType | None:
    """Pyarrow where it is installed: an extra of 170 MB, which reads a large file about 6 times as fast as numpy."""
    try:
        import pyarrow.csv
    except ImportError:
        return None
    return pyarrow


def fits(values: np.ndarray) -> np.ndarray:
    """Which values can be squared; the others, and NaN, are for the exact reader to judge."""
    size = np.abs(values)
    return (size == 0) | ((size > 1 / LARGEST) & (size < LARGEST))
