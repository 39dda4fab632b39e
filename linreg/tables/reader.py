"""From files to a table: which columns, which rows, and what was left out.

Shapes: a block is (n, C), n rows and the C columns that are read, targets first; NaN where a cell is missing.
"""

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from linreg.files.cells import MAYBE_MISSING, Spelling
from linreg.files.columns import DATE, Categories, as_missing, choose, expand
from linreg.files.doubts import IDENTIFIER, codes, dates, row_numbers, thousands
from linreg.files.sources import find_sources
from linreg.system.errors import InputError


class TableReader:
    """The rows of one or several files, or of a frame, and what was left out of them; for what is given see CSVData."""

    def __init__(
        self,
        path: Any,
        target: str | Sequence[str] | None,
        features: Sequence[str] | None = None,
        missing: Literal["drop", "error"] = "drop",
        categories: Categories = None,
        exclude: str | Sequence[str] | None = None,
        decimal: str = ".",
        missing_values: str | Sequence[str | float] | None = None,
    ) -> None:
        if missing not in ("drop", "error"):
            raise InputError(f"{path}: missing={missing!r}: 'drop' or 'error' is expected")
        self.missing = missing
        self.arguments = (path, target, features, missing, categories, exclude, decimal, missing_values)
        self.files = find_sources(path, Spelling(decimal, missing_values))
        self.path = path if isinstance(path, str | os.PathLike) else self.files[0].path
        if target is None:
            names = ", ".join(self.files[0].names)
            raise InputError(f"{self.path}: --data.target says what to predict, one of: {names}")
        targets = self._names("target", target)
        chosen = None if features is None else self._names("features", features)
        left_out = () if exclude is None else self._names("exclude", exclude)
        if not (categories is None or categories == "all" or isinstance(categories, Mapping)):
            categories = self._names("categories", categories)
        self.categories = categories
        self.columns = choose(self.files[0], targets, chosen, categories, left_out)
        self.num_targets = len(targets)
        self.num_read = self.num_dropped = 0
        self.kept: list[int] = []
        self.no_amounts: dict[str, str] = {}
        self.missing_cells = np.zeros(len(self.columns), dtype=int)

    def _names(self, role: str, names: Any) -> list[str]:
        names = [names] if isinstance(names, str) else names
        if not isinstance(names, Sequence) or not names or not all(isinstance(name, str) for name in names):
            found = f"{self.path}: {role}={names!r}"
            raise InputError(f"{found}: a column's name, or a list of different columns, is expected")
        return list(names)

    def blocks(self) -> Iterator[np.ndarray]:
        """All rows in order, (n, C) a block: targets, then features; NaN where missing or left out."""
        for file in self.files:
            for block, _ in file.blocks(self.columns, self.missing == "error"):
                self.num_read += len(block)
                yield block
        if not self.num_read:
            raise InputError(f"{self.files[-1].path}, line 2: no row below the header")

    def again(self) -> "TableReader":
        """The same files, not read yet."""
        return TableReader(*self.arguments)

    def read(self, most: float = math.inf) -> np.ndarray | None:
        """All complete rows in memory, (N, K) of float64, in order; None if they have more than ``most`` cells."""
        room = min(sum(file.num_cells for file in self.files), 1 << 24) // len(self.files[0].names)  # rows; it may grow
        values = _stack(self.blocks(), np.empty((room, len(self.columns))), most)
        if values is None:
            return None
        self.resolve_columns()
        if len(values) * self.width > most:
            return None
        features = {i: self.columns[i] for i in self.kept[self.num_targets :]}
        self.no_amounts = dates(values, features) | row_numbers(values, features)
        values = self.expand(self.drop_incomplete_rows(values))
        self.check_rows()
        return values

    def resolve_columns(self) -> None:
        """Decides, once all rows were read, which of the columns are kept."""
        for column in self.columns:
            column.check_odd()
            if not column.has_value and column.text is None:
                if column.required:
                    where = f"{self.files[0].path}, line 2, column {column.name!r}"
                    what = "number" if column.levels is None else "text"
                    raise InputError(f"{where}: no {what} in this line and below, every cell is missing")
                column.text = "no number in it"
            elif column.levels is not None and len(column.levels) == 1:
                column.text = f"always {next(iter(column.levels))!r}"
        self.kept = [i for i, column in enumerate(self.columns) if column.text is None]
        if len(self.kept) == self.num_targets:
            raise InputError("; ".join([f"{self.path} has no column of numbers besides the target", *self.notes()]))

    @property
    def width(self) -> int:
        """How many columns the kept ones become, K."""
        return sum(len(self.columns[i].names()) for i in self.kept)

    def drop_incomplete_rows(self, values: np.ndarray) -> np.ndarray:
        """The kept columns of a block, and of it the rows without a missing cell there; counts the others."""
        values = values if len(self.kept) == values.shape[1] else values[:, self.kept]
        missing = np.isnan(values)
        whole = ~missing.any(axis=1)
        if whole.all():
            return values
        self.num_dropped += int((~whole).sum())
        self.missing_cells[self.kept] += missing.sum(axis=0)
        return values[whole]

    def places(self, rows: list[int]) -> dict[int, str]:
        """The file and line of some of the complete rows, each by its number; the files are read once more."""
        found, first = dict[int, str](), 0
        for file in self.files if rows else ():
            for block, lines in file.blocks(self.columns, False, keep=True):
                whole = np.flatnonzero(~np.isnan(block[:, self.kept]).any(axis=1))
                found |= {row: lines.place(int(whole[row - first])) for row in rows if 0 <= row - first < len(whole)}
                first += len(whole)
        return found

    def expand(self, values: np.ndarray) -> np.ndarray:
        """The kept columns of some rows with a column of 0 and 1 for each level, (n, K)."""
        return expand(values, [self.columns[i] for i in self.kept])

    def check_rows(self) -> None:
        """InputError if not one row was complete."""
        if self.num_dropped == self.num_read:
            raise InputError(f"{self.path}, line 2 and below: no complete row of numbers: " + "; ".join(self.notes()))

    def notes(self) -> list[str]:
        """What was left out or dropped, a line each."""
        left_out = [f"{column.name!r} ({column.text})" for column in self.columns if column.text is not None]
        left_out += [f"column {i + 1} (no name)" for i, name in enumerate(self.files[0].names) if not name]
        way = "; --data.categories makes text a feature" * any("text: " in each for each in left_out)
        notes = [f"left out {', '.join(left_out)}{way}"] if left_out else []
        numbers = {column.name: column for i in self.kept if (column := self.columns[i]).levels is None}
        why = self.no_amounts | dict.fromkeys(codes(self.files[0], numbers), ", though it has leading zeros")
        for column in numbers.values():
            reason = "" if IDENTIFIER.fullmatch(column.name) else why.get(column.name)
            if not column.required and reason is not None:
                ways = f"--data.exclude '[{column.name}]', or --data.categories if it tells kinds apart"
                notes.append(f"{column.name!r} counts as a number{reason}; if it is only a name, {ways}")
        notes += thousands(self.files, dict.fromkeys(numbers, 0.0))
        for name, levels in self.levels.items():
            shown = ", ".join(map(repr, levels[1:11])) + ", ..." * (len(levels) > 11)
            notes.append(f"{name!r} has the levels {levels[0]!r}, left out as the reference, {shown}")
            if 2 * sum(DATE.fullmatch(level) is not None for level in levels) > len(levels):
                notes[-1] += f"; these are dates, which --data.exclude '[{name}]' leaves out"
            if marks := [level for level in levels if MAYBE_MISSING.fullmatch(level)]:
                mark = " or ".join(map(repr, marks))
                notes.append(f"{name!r}: if {mark} stands for a missing cell, give {as_missing(marks)}")
            first = {level.casefold(): level for level in reversed(levels)}
            pairs = ((first[level.casefold()], level) for level in levels)
            if alike := [f"{one!r} and {other!r}" for one, other in pairs if one != other]:
                notes.append(f"{name!r}: {', '.join(alike[:3])} differ by capitals only, and count as two levels")
        if self.num_dropped:
            counts = zip(self.columns, self.missing_cells, strict=True)
            holes = [(column.name, n, column.is_target) for column, n in counts if n]
            cells = ", ".join(f"{name!r} {n}" for name, n, _ in holes)
            notes.append(f"dropped {self.num_dropped} of {self.num_read} rows for a missing cell in: {cells}")
            if sparse := [name for name, n, is_target in holes if 2 * n > self.num_read and not is_target]:
                notes[-1] += f"; --data.exclude '[{', '.join(sparse)}]' keeps more of them"
        return notes

    @property
    def levels(self) -> dict[str, list[str]]:
        """The levels of each category, the first of which has no column."""
        columns = [column for column in self.columns if column.levels is not None and column.text is None]
        return {column.name: column.ordered() for column in columns}

    def names(self) -> tuple[list[str], list[str]]:
        """The names of the features and of the targets."""
        names = [name for i in self.kept for name in self.columns[i].names()]
        return names[self.num_targets :], names[: self.num_targets]


def _stack(blocks: Iterable[np.ndarray], values: np.ndarray, most: float) -> np.ndarray | None:
    """All rows in the place that was made for about as many, where a list of blocks would take the memory twice."""
    (_, width), n = values.shape, 0
    for block in blocks:
        if (n + len(block)) * width > most:
            return None
        if n + len(block) > len(values):
            values.resize((max(n + len(block), int(1.1 * len(values))), width), refcheck=False)
        values[n : n + len(block)] = block
        n += len(block)
    values.resize((n, width), refcheck=False)
    return values
