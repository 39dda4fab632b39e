"""From a CSV file to numbers, a block of lines at a time: fast where it is plain, exact where there is doubt."""

import io
import os
import zlib
from array import array
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from math import isnan, nan
from typing import Any

import numpy as np

from linreg.files.cells import TextCell
from linreg.files.columns import Column
from linreg.files.csv_text import CSVFile
from linreg.files.plain_lines import Found, PlainLines, Texts, import_arrow
from linreg.files.rows import TextRows
from linreg.files.text_file import LONGEST

FIRST, BLOCK = 1 << 16, 1 << 20  # bytes; larger blocks leave the processor's cache
THREADS = min(os.cpu_count() or 1, 4)
ROWS = 65_536  # of a block from the exact reader, at most
Block = tuple[np.ndarray, TextRows]


class CSVBlocks:
    """Iterates over the columns' values in blocks (n, C) of float64, NaN where a cell is missing or a column left out.

    What becomes known of the columns is noted in them. Beside each block come its rows as the file has them, which are
    none unless there is a use for them (``keep``). Whole lines are parsed by pyarrow, on several threads, or without it
    by numpy. Whatever these do not take for plain numbers, or might take for something else than ``cells`` says, goes
    through the csv module, which knows its place.
    """

    def __init__(self, file: CSVFile, columns: list[Column], refuse_missing: bool = False, keep: bool = False) -> None:
        self.file, self.columns, self.refuse_missing, self.keep = file, columns, refuse_missing, keep
        self.positions = [file.index(column.name, "in it") for column in columns]
        self.number = file.spelling.number
        self.plain = PlainLines(file, columns, self.positions, refuse_missing)
        self.by_arrow = file.num_bytes > BLOCK and import_arrow() is not None  # importing it takes as long as 10 MB

    def __iter__(self) -> Iterator[Block]:
        parse, threads = (self.plain.by_arrow, THREADS) if self.by_arrow else (self.plain.by_numpy, 1)
        waiting: deque[tuple[Future[Found | None], bytes, int]] = deque()
        line, size = 1, FIRST
        with self.file.explained(), self.file.open_bytes() as stream, ThreadPoolExecutor(threads) as pool:
            while True:
                start, (block, whole) = stream.tell(), next_block(stream, size)
                if block and whole:
                    waiting.append((pool.submit(parse if line > 1 else lambda header: None, block), block, line))
                    line += np.count_nonzero(np.frombuffer(block, np.uint8) == 10)  # 5 times as fast as block.count
                # The first is settled at once, for what is text in it is for no thread to try as numbers.
                while waiting and (len(waiting) > threads or size == FIRST or not (block and whole)):
                    yield from self._settle(*waiting.popleft())
                if not whole:
                    stream.seek(start)
                    yield from self._exactly(stream, line)
                if not (block and whole):
                    break
                size = BLOCK
        self.file.check_unchanged()

    def _settle(self, future: "Future[Found | None]", block: bytes, line: int) -> Iterator[Block]:
        found = future.result()
        if found is None or not self._fill_in_levels(*found):
            yield from self._exactly(io.BytesIO(block), line)
            return
        has_value: Any = ~np.isnan(found[0]).all(axis=0)
        for column, has_one in zip(self.columns, has_value, strict=True):
            column.has_value = column.has_value or (bool(has_one) and column.text is None)
            if column.hole and column.has_value:
                raise column.hole
        yield found[0], TextRows(self.file.path, block if self.keep else b"", line)

    def _fill_in_levels(self, values: np.ndarray, texts: Texts) -> bool:
        """Puts the numbers of the levels in their columns; False at the least doubt."""
        for i, column in enumerate(self.columns):
            if column.levels is None:
                continue
            if i not in texts:  # that it is text was not known yet when the block was parsed
                return False
            different, which = texts[i]
            try:
                levels = [column.level(text, self.file.spelling) for text in different]
            except ValueError:
                return False
            values[:, i] = np.array(levels)[which]
            if self.refuse_missing and np.isnan(values[:, i]).any():
                return False
        return True

    def _exactly(self, stream: io.BufferedIOBase, line: int) -> Iterator[Block]:
        values, width, columns = array("d"), len(self.columns), list(zip(self.columns, self.positions, strict=True))
        seen, rows = list[str]() if self.keep else None, TextRows(self.file.path)
        with self.file.as_text(stream, line) as text:
            for number, cells in self.file.rows_of(text, line, seen):
                for column, at in columns:
                    values.append(self._value(number, column, cells[at]))
                if seen is not None:
                    rows.add(number, seen)
                if len(values) == ROWS * width:
                    yield np.frombuffer(values).reshape(-1, width), rows
                    values, rows = array("d"), TextRows(self.file.path)
        if values:
            yield np.frombuffer(values).reshape(-1, width), rows

    def _value(self, line: int, column: Column, cell: str) -> float:
        """The number in a cell, or that of its level, NaN if it is missing, or if its column is left out."""
        if column.odd is not None:
            column.count(cell, self.file.spelling)
        if column.text is not None:
            return nan
        try:
            value = self.number(cell) if column.levels is None else column.level(cell, self.file.spelling)
        except ValueError as reason:
            value = self._by_first_text(line, column, cell, reason)
        if self.refuse_missing and column.text is None and isnan(value):
            missing = self.file.error(line, column.name, f"a missing cell ({cell!r}), see --data.missing")
            column.hole = column.hole or missing
        if not column.has_value:
            column.has_value = not isnan(value)
        if column.hole and (column.has_value or column.required):
            raise column.hole
        return value

    def _by_first_text(self, line: int, column: Column, cell: str, reason: ValueError) -> float:
        """Makes a column whose first cell is text a category, or leaves it out; InputError if it is to be neither."""
        is_text = isinstance(reason, TextCell)
        if not is_text or column.has_value or (column.required and not column.may_be_text):
            remedy = column.remedy(is_text, cell[:80].strip())
            raise self.file.error(line, column.name, f"{cell[:80]!r} {reason}{remedy}") from None
        found = f"{cell[:80]!r} is text in a column of numbers{column.remedy(is_text, cell[:80].strip())}"
        column.odd, column.sample = self.file.error(line, column.name, found), (1, 0)
        if column.may_be_text:
            column.levels = {}
            return column.level(cell, self.file.spelling)
        column.text = f"text: {cell[:80]!r} in line {line}"
        return nan


def next_block(stream: io.BufferedIOBase, size: int) -> tuple[bytes, bool]:
    """Some lines, and whether they can be read by themselves: no quoted cell goes on, the file does not break off."""
    try:
        block = stream.read(size)
        block += (rest := stream.readline(LONGEST - size))
    except (OSError, EOFError, zlib.error):
        return b"", False
    even = b'"' not in block or all(row.count(b'"') % 2 == 0 for row in block.split(b"\n"))
    return block, even and len(rest) < LONGEST - size
