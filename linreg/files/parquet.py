"""Where rows come from: a CSV or Parquet file, or all such files of a folder or of a pattern, in their names' order."""

import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from linreg.errors import InputError, did_you_mean
from linreg.files.blocks import ROWS, Column, CSVBlocks, fits, import_arrow
from linreg.files.csv_text import CSVFile

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")


class ParquetFile:
    """A Parquet file: ``names``, and the values of its columns of numbers in blocks."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if import_arrow() is None:
            raise InputError(f'{path}: Parquet files need pyarrow: python -m pip install -e ".[fast]"')
        from pyarrow import ArrowException, parquet, types

        try:
            self.file = parquet.ParquetFile(self.path)
        except (ArrowException, OSError) as error:
            raise InputError(f"{path}: no Parquet file that can be read: {error}") from None
        self.names = self.file.schema_arrow.names
        self.not_numbers = {
            field.name: str(field.type)
            for field in self.file.schema_arrow
            if not (types.is_integer(field.type) or types.is_floating(field.type))
        }
        self.num_cells = self.file.metadata.num_rows * len(self.names)

    def index(self, name: str, role: str) -> int:
        """The position of a column; InputError names the did_you_mean one if there is none."""
        if name not in self.names:
            raise InputError(f"{self.path}: no column {name!r} for the {role}{did_you_mean(name, self.names)}")
        return self.names.index(name)

    def blocks(self, columns: list[Column], refuse_missing: bool) -> Iterator[np.ndarray]:
        """As ``CSVBlocks`` does for a CSV file; a null and a NaN are missing cells."""
        for column in columns:
            self.index(column.name, "table")
            kind = self.not_numbers.get(column.name)
            if kind and column.required:
                raise InputError(f"{self.path}, column {column.name!r}: a column of numbers is expected, not of {kind}")
            column.text = column.text or kind
        wanted = [i for i, column in enumerate(columns) if column.text is None]
        first = 1
        for batch in self.file.iter_batches(ROWS, columns=[columns[i].name for i in wanted]):
            values = np.full((batch.num_rows, len(columns)), np.nan)
            for i in wanted:
                values[:, i] = batch.column(columns[i].name).cast("float64", safe=False).to_numpy(zero_copy_only=False)
                columns[i].has_number = columns[i].has_number or not np.isnan(values[:, i]).all()
            wrong = ~fits(values, exponents=False) & ~(np.isnan(values) & (not refuse_missing))
            for row, i in np.argwhere(wrong[:, wanted])[:1]:
                name, value = columns[wanted[i]].name, values[row, wanted[i]]
                raise InputError(
                    f"{self.path}, row {first + row}, column {name!r}: {value} is more than float64 can hold"
                )
            first += batch.num_rows
            yield values


class CSVSource(CSVFile):
    """A CSV file as a source of rows."""

    @property
    def num_cells(self) -> int:
        """About how many cells it holds, at 8 bytes each, or 3 where it is packed."""
        return self.num_bytes // (3 if self.zipped else 8)

    def blocks(self, columns: list[Column], refuse_missing: bool) -> Iterator[np.ndarray]:
        """See ``CSVBlocks``."""
        return iter(CSVBlocks(self, columns, refuse_missing))


def find_sources(path: str | os.PathLike[str]) -> list[CSVSource | ParquetFile]:
    """The files behind a path, a folder or a pattern such as ``data/2024-*.csv``, all with the same columns."""
    text = path if isinstance(path, str) else str(path) if isinstance(path, os.PathLike) else ""
    if os.path.isdir(text):
        paths: list[Any] = sorted(p for p in glob.glob(os.path.join(glob.escape(text), "*")) if p.endswith(SUFFIXES))
        if not paths:
            raise InputError(f"{text}: a CSV file is expected, this is a folder without any {', '.join(SUFFIXES)}")
    elif os.path.lexists(text) or not glob.has_magic(text):
        paths = [text or path]
    else:
        if sum(map(glob.has_magic, Path(text).parts)) > 3:
            raise InputError(f"{text}: a pattern in at most 3 parts of a path is expected; more may match for hours")
        paths = sorted(glob.glob(text))
        if not paths:
            raise InputError(f"{text}: no file has such a name")
    sources = [ParquetFile(path) if str(path).endswith(".parquet") else CSVSource(path) for path in paths]
    for source in sources[1:]:
        different = sorted(set(source.names) ^ set(sources[0].names))
        if different:
            raise InputError(
                f"{source.path}: other columns than in {sources[0].path}: {', '.join(map(repr, different[:10]))}"
            )
    return sources
