"""Columns that have types, and not only cells: of a Parquet file, or of a frame in memory."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from linreg.files.cells import Spelling
from linreg.files.columns import Column
from linreg.files.plain_lines import fits, import_arrow, take_apart
from linreg.files.rows import ArrowRows
from linreg.system.errors import InputError, did_you_mean

TEXTS = ("string", "large_string", "bool", "dictionary")  # as pyarrow calls the types whose values are levels
ROWS = 65_536  # of a batch, at most


class ArrowSource:
    """A ParquetFile or a Table of pyarrow as a source of rows: ``names``, and the values of its columns in blocks."""

    delimiter = ","  # of its rows as text
    first_rows = ()  # as they are written: none, for what has leading zeros, or parts thousands, is text here

    def __init__(self, path: Path, data: Any, spelling: Spelling) -> None:
        from pyarrow.types import is_decimal, is_floating, is_integer

        self.path, self.data, self.spelling = path, data, spelling
        self.is_file = hasattr(data, "schema_arrow")
        schema, num_rows = (data.schema_arrow, data.metadata.num_rows) if self.is_file else (data.schema, len(data))
        self.names = schema.names
        if twice := [name for name, count in Counter(self.names).items() if count > 1]:
            raise InputError(f"{path}: each column needs its own name, twice there: {', '.join(map(repr, twice))}")
        self.kinds = {field.name: str(field.type) for field in schema}
        self.numbers = {f.name for f in schema if is_integer(f.type) or is_floating(f.type) or is_decimal(f.type)}
        self.texts = {name for name, kind in self.kinds.items() if kind.startswith(TEXTS)}
        self.num_cells = num_rows * len(self.names)

    def _batches(self, names: list[str]) -> Iterator[Any]:
        """The rows in batches, with these columns."""
        from pyarrow import ArrowException

        if not self.is_file:
            yield from self.data.select(names).to_batches(ROWS)
            return
        try:
            yield from self.data.iter_batches(ROWS, columns=names)
        except (ArrowException, OSError) as error:
            raise InputError(f"{self.path}: damaged, or cut off: {error}") from None

    def index(self, name: str, role: str) -> int:
        """The position of a column; InputError names the nearest one if there is none."""
        if name not in self.names:
            raise InputError(f"{self.path}: no column {name!r} {role}{did_you_mean(name, self.names)}")
        return self.names.index(name)

    def blocks(
        self, columns: list[Column], refuse_missing: bool, keep: bool = False
    ) -> Iterator[tuple[np.ndarray, ArrowRows]]:
        """As ``CSVBlocks`` does for a CSV file."""
        for column in columns:
            self._take_kind(column)
        wanted = [i for i, column in enumerate(columns) if column.text is None]
        first = 1
        for batch in self._batches(self.names if keep else [columns[i].name for i in wanted]):
            values = np.full((batch.num_rows, len(columns)), np.nan)
            for i in wanted:
                values[:, i] = self._values(columns[i], batch, first)
                columns[i].has_value = columns[i].has_value or not np.isnan(values[:, i]).all()
            wrong = ~fits(values, exponents=False) & ~(np.isnan(values) & (not refuse_missing))
            for row, i in np.argwhere(wrong[:, wanted])[:1]:
                value = values[row, wanted[i]]
                what = "a null, see --data.missing"
                if value == value:
                    what = f"{value} is too large, or too small, for float64 to hold its digits and its square"
                raise self._error(columns[wanted[i]], first + row, what)
            yield values, ArrowRows(self.path, batch, first)
            first += batch.num_rows

    def _take_kind(self, column: Column) -> None:
        """Lets the type of a column decide what it is read as."""
        self.index(column.name, "in it")
        if column.levels is not None or column.name in self.numbers:
            return
        kind, is_text = self.kinds[column.name], column.name in self.texts
        if column.may_be_text and is_text:
            column.levels = {}
        elif column.required:
            expected = f"a column of numbers is expected, not of {kind}{column.remedy(is_text)}"
            raise InputError(f"{self.path}, column {column.name!r}: {expected}")
        column.text = None if column.levels is not None else "text: " * is_text + kind

    def _values(self, column: Column, batch: Any, first: int) -> np.ndarray:
        """A column's numbers, or those of its levels."""
        from pyarrow import ArrowException

        array = batch.column(column.name)
        if column.levels is None:
            return self.spelling.leave_out_missing(array.cast("float64", safe=False).to_numpy(zero_copy_only=False))
        try:
            different, which = take_apart(array)
        except ArrowException:
            raise self._error(column, first, f"text is expected, not {self.kinds[column.name]}") from None
        numbers = np.full(len(different), np.nan)
        for k in np.unique(which):  # a dictionary may hold what no row has
            try:
                numbers[k] = column.level(as_text(different[k]), self.spelling)
            except ValueError as reason:
                row = first + int(np.argmax(which == k))
                raise self._error(column, row, f"{as_text(different[k])!r} {reason}") from None
        return numbers[which]

    def _error(self, column: Column, row: int, message: str) -> InputError:
        return InputError(f"{self.path}, row {row}, column {column.name!r}: {message}")


def open_parquet(path: str | os.PathLike[str], spelling: Spelling) -> ArrowSource:
    """A Parquet file as a source of rows."""
    if import_arrow() is None:
        raise InputError(f'{path}: Parquet files need pyarrow: python -m pip install -e ".[fast]"')
    from pyarrow import ArrowException, parquet

    try:
        file = parquet.ParquetFile(Path(path), page_checksum_verification=True, pre_buffer=False)  # else all stays
        return ArrowSource(Path(path), file, spelling)
    except (ArrowException, OSError) as error:
        raise InputError(f"{path}: no Parquet file that can be read: {error}") from None


def open_frame(frame: Any, spelling: Spelling) -> ArrowSource:
    """A frame of pandas, without its index, of Polars or of pyarrow as a source of rows."""
    if import_arrow() is None:
        raise InputError('a frame needs pyarrow: python -m pip install -e ".[fast]"')
    from pyarrow import ArrowException, table

    try:
        rows = table(frame.reset_index(drop=True) if hasattr(frame, "reset_index") else frame)
    except (ArrowException, TypeError, ValueError) as error:
        raise InputError(f"the frame: no table of numbers and text: {error}") from None
    return ArrowSource(Path("the frame"), rows, spelling)


def as_text(value: Any) -> str | None:
    """A value as a CSV file would have it, a whole number without a decimal point; None for a missing one."""
    if isinstance(value, float) and value == value and abs(value) < 1 << 53 and value == int(value):
        return str(int(value))
    return None if value is None or value != value else str(value)
