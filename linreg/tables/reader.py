"""From files to a table: which columns, which rows, and what was left out.

Shapes: a block is (n, C), n rows and the C columns that are read, targets first; NaN where a cell is missing.
"""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from linreg.errors import InputError
from linreg.files.blocks import Column
from linreg.files.parquet import CSVSource, ParquetFile, find_sources
from linreg.tables.table import Table


class TableReader:
    """The rows of one or several files, and what was left out of them.

    Args:
        path: a CSV file, which may be gzipped, a Parquet file, or a folder or pattern of such files.
        target: the column, or columns, to predict.
        features: the columns to predict from; None takes every other named column that holds numbers.
        missing: "drop" leaves out the rows with a missing cell in a used column, "error" refuses them.

    Raises:
        InputError: with file, line and column, for whatever is not a table of numbers.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        target: str | Sequence[str],
        features: Sequence[str] | None = None,
        missing: Literal["drop", "error"] = "drop",
    ) -> None:
        if missing not in ("drop", "error"):
            raise InputError(f"{path}: missing={missing!r}: 'drop' or 'error' is expected")
        self.path, self.missing, self.arguments = path, missing, (path, target, features, missing)
        self.files = find_sources(path)
        targets = _names(path, "target", target)
        self.num_targets = len(targets)
        self.columns = _choose(self.files[0], targets, None if features is None else _names(path, "features", features))
        self.num_read = self.num_dropped = 0
        self.missing_cells = np.zeros(len(self.columns), dtype=int)

    def blocks(self) -> Iterator[np.ndarray]:
        """All rows in order, (n, C) a block: targets, then features; NaN where missing or left out."""
        for file in self.files:
            for block in file.blocks(self.columns, self.missing == "error"):
                self.num_read += len(block)
                yield block
        if not self.num_read:
            raise InputError(f"{self.files[-1].path}, line 2: no row below the header")

    def again(self) -> "TableReader":
        """The same files, not read yet."""
        return TableReader(*self.arguments)

    def read(self, most: float = math.inf) -> Table | None:
        """The whole table in memory, as float64, in order; None if it has more than ``most`` cells."""
        values = _stack(self.blocks(), len(self.columns), most)
        if values is None:
            return None
        kept = self.resolve_columns()
        values = self.drop_incomplete_rows(values, kept)
        self.check_rows()
        return self.table(torch.from_numpy(values), kept)

    def resolve_columns(self) -> list[int]:
        """Says, once all rows were read, which of the columns hold numbers."""
        for column in self.columns:
            if column.odd and column.is_odd:
                raise column.odd
            if not column.has_number and column.text is None:
                if column.required:
                    where = f"{self.files[0].path}, line 2, column {column.name!r}"
                    raise InputError(f"{where}: no number in this line and below, every cell is missing")
                column.text = "no number in it"
        kept = [i for i, column in enumerate(self.columns) if column.text is None]
        if len(kept) == self.num_targets:
            raise InputError(f"{self.path} has no column of numbers besides the target: " + "; ".join(self.notes()))
        return kept

    def drop_incomplete_rows(self, values: np.ndarray, kept: list[int]) -> np.ndarray:
        """The rows (n, K) of a block without a missing cell in the kept columns; counts the others."""
        values = values if len(kept) == values.shape[1] else values[:, kept]
        missing = np.isnan(values)
        whole = ~missing.any(axis=1)
        if whole.all():
            return values
        self.num_dropped += int((~whole).sum())
        self.missing_cells[kept] += missing.sum(axis=0)
        return values[whole]

    def check_rows(self) -> None:
        """InputError if not one row was complete."""
        if self.num_dropped == self.num_read:
            raise InputError(f"{self.path}, line 2 and below: no complete row of numbers: " + "; ".join(self.notes()))

    def notes(self) -> list[str]:
        """What was left out or dropped, a line each."""
        names = self.files[0].names
        left_out = [f"{column.name!r} ({column.text})" for column in self.columns if column.text is not None]
        left_out += [f"column {i + 1} (no name)" for i, name in enumerate(names) if not name]
        notes = ["left out " + ", ".join(left_out)] if left_out else []
        if self.num_dropped:
            counts = zip(self.columns, self.missing_cells, strict=True)
            cells = ", ".join(f"{column.name!r} {n}" for column, n in counts if n)
            notes.append(f"dropped {self.num_dropped} of {self.num_read} rows for a missing cell in: {cells}")
        return notes

    def table(self, values: Tensor, kept: list[int]) -> Table:
        """The table of what ``drop_incomplete_rows`` let through, (N, K)."""
        names, split = [self.columns[i].name for i in kept], self.num_targets
        sides = values[:, split:], values[:, :split]
        return Table(*sides, names[split:], names[:split], self.num_read, self.notes(), is_judged=True)


def read_csv(
    path: str | os.PathLike[str],
    target: str | Sequence[str],
    features: Sequence[str] | None = None,
    missing: Literal["drop", "error"] = "drop",
) -> Table:
    """Reads the named columns of a CSV file, or of what else a ``TableReader`` takes, as numbers; see there."""
    table = TableReader(path, target, features, missing).read()
    assert table is not None, "without a limit all rows are read"
    return table


def memory() -> int:
    """The machine's, in bytes; where it does not say (Windows), more than any has."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 1 << 44


def _stack(blocks: Iterable[np.ndarray], width: int, most: float) -> np.ndarray | None:
    """All rows in one array that grows in place, where a list of blocks would take the memory twice."""
    values, n = np.empty((0, width)), 0
    for block in blocks:
        if (n + len(block)) * width > most:
            return None
        if n + len(block) > len(values):
            values.resize((max(n + len(block), int(1.1 * len(values))), width), refcheck=False)
        values[n : n + len(block)] = block
        n += len(block)
    values.resize((n, width), refcheck=False)
    return values


def _names(path: str | os.PathLike[str], role: str, names: Any) -> list[str]:
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, Sequence) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: {role}={names!r}: a column's name, or a list of different columns, is expected")
    return list(names)


def _choose(file: CSVSource | ParquetFile, targets: list[str], features: list[str] | None) -> list[Column]:
    """The columns to read: the targets, then the features."""
    places = {"target": [file.index(name, "target") for name in targets]}
    if features is None:
        places["features"] = [i for i, name in enumerate(file.names) if name and i not in places["target"]]
    else:
        places["features"] = [file.index(name, "features") for name in features]
    for role, indices in places.items():
        if len(set(indices)) < len(indices):
            raise InputError(f"{file.path}: {role}={[file.names[i] for i in indices]}: different columns are expected")
    overlap = sorted(set(places["target"]) & set(places["features"]))
    if overlap:
        name = file.names[overlap[0]]
        raise InputError(
            f"{file.path}: {name!r} is the target and among the features; a column can only be one of them"
        )
    return [
        Column(file.names[i], required=role == "target" or features is not None)
        for role, indices in places.items()
        for i in indices
    ]
