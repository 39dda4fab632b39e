"""From a CSV file to tensors: which columns, which rows, and what was left out."""

import io
import os
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isnan
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from linreg.cells import EXACT, LARGEST, TextCell, parse_number
from linreg.errors import InputError
from linreg.reader import CSVFile


@dataclass
class Table:
    """Rows in file order: float64 ``x`` (N, D) and ``y`` (N, T), and what is known about their columns."""

    x: Tensor
    y: Tensor
    feature_names: list[str]
    target_names: list[str]
    num_read: int  # rows of the source; N of them are here
    notes: list[str] = field(default_factory=list)  # what was left out or dropped, one line each
    true_coef: Tensor | None = None  # (T, D), where the table was made from known coefficients
    true_intercept: Tensor | None = None  # (T,)


@dataclass
class _Column:
    name: str
    index: int
    required: bool  # named by the user, so text in it is an error
    has_number: bool = False
    text: str | None = None  # why the column is left out
    hole: InputError | None = None  # its first missing cell


def read_csv(
    path: str | os.PathLike[str],
    target: str | Sequence[str],
    features: Sequence[str] | None = None,
    missing: Literal["drop", "error"] = "drop",
) -> Table:
    """Reads the named columns of a CSV file as numbers.

    Args:
        path: the file; it may be gzipped.
        target: the column, or columns, to predict.
        features: the columns to predict from; None takes every other named column that holds numbers.
        missing: "drop" leaves out the rows with a missing cell in a used column, "error" refuses them.

    Raises:
        InputError: with file, line and column, for whatever is not a table of numbers.
    """
    if missing not in ("drop", "error"):
        raise InputError(f"{path}: missing={missing!r}: 'drop' or 'error' is expected")
    file = CSVFile(path)
    targets = _names(path, "target", target)
    columns = _choose(file, targets, None if features is None else _names(path, "features", features))
    values = _read(file, columns, missing)
    kept = [i for i, column in enumerate(columns) if column.text is None]
    names = [columns[i].name for i in kept]
    left_out = [f"{column.name!r} ({column.text})" for column in columns if column.text is not None]
    left_out += [f"column {i + 1} (no name)" for i, name in enumerate(file.names) if not name]
    notes = ["left out " + ", ".join(left_out)] if left_out else []
    if len(kept) == len(targets):
        raise InputError(f"{path} has no column of numbers besides the target: " + "; ".join(notes))
    values = values[:, kept]
    whole = ~np.isnan(values).any(axis=1)
    if not whole.all():
        per_column = {name: int(n) for name, n in zip(names, np.isnan(values).sum(axis=0), strict=True) if n}
        counts = ", ".join(f"{name!r} {n}" for name, n in per_column.items())
        notes.append(f"dropped {int((~whole).sum())} of {len(whole)} rows for a missing cell in: {counts}")
    if not whole.any():
        raise InputError(f"{path}, line 2 and below: no complete row of numbers: " + "; ".join(notes))
    used = torch.from_numpy(values[whole])
    x, y = used[:, len(targets) :].contiguous(), used[:, : len(targets)].contiguous()
    return Table(x, y, names[len(targets) :], names[: len(targets)], len(whole), notes)


def _names(path: str | os.PathLike[str], role: str, names: Any) -> list[str]:
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, Sequence) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: {role}={names!r}: a column's name, or a list of different columns, is expected")
    return list(names)


def _choose(file: CSVFile, targets: list[str], features: list[str] | None) -> list[_Column]:
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
        _Column(file.names[i], i, required=role == "target" or features is not None)
        for role, indices in places.items()
        for i in indices
    ]


def _read(file: CSVFile, columns: list[_Column], missing: str) -> np.ndarray:
    try:
        values = _read_fast(file, columns)
    except (OSError, zlib.error):
        values = None  # the exact reader says what is wrong
    if values is None:
        values = _read_exactly(file, columns, missing)
    file.check_unchanged()
    return values


def _read_fast(file: CSVFile, columns: list[_Column]) -> np.ndarray | None:
    """All values at numpy's speed if the file is nothing but plain numbers; None at the least doubt."""
    if len(file.names) == 1:
        return None
    allowed = b"0123456789.+-eE \r\n" + file.delimiter.encode()
    chunks = []
    before = os.stat(file.path)
    try:
        with file.open_bytes() as lines:
            lines.readline()
            while block := b"".join(lines.readlines(1 << 22)):
                if block.translate(None, allowed) or block.count(b"\r") != block.count(b"\r\n"):
                    return None
                if not block.strip():
                    continue
                chunk = np.loadtxt(io.BytesIO(block), delimiter=file.delimiter, comments=None, ndmin=2)
                if chunk.shape[1] != len(file.names) or not fits(np.abs(chunk)).all():
                    return None
                chunks.append(chunk[:, [column.index for column in columns]])
    except (ValueError, OSError, EOFError):
        return None
    after = os.stat(file.path)
    unchanged = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    return np.concatenate(chunks) if chunks and unchanged else None


def fits(size: np.ndarray) -> np.ndarray:
    """Which absolute values are beyond doubt; the others, and NaN, are for the exact reader to judge."""
    return (size == 0) | ((size > 1 / LARGEST) & (size < EXACT))


def _read_exactly(file: CSVFile, columns: list[_Column], missing: str) -> np.ndarray:
    """All values, NaN where missing, a row at a time; knows where it is when something is wrong."""
    values = array("d")
    for line, cells in file.rows():
        for column in columns:
            cell = cells[column.index]
            if column.text is not None and cell[:1].isalpha():  # text in a column of text; half the time of parsing it
                values.append(float("nan"))
                continue
            value = _value(file, line, column, cell)
            if isnan(value) and column.text is None and missing == "error":
                column.hole = column.hole or file.error(
                    line, column.name, f"a missing cell ({cell!r}), see --data.missing"
                )
                if column.required or column.has_number:
                    raise column.hole
            column.has_number = column.has_number or not isnan(value)
            if column.hole and column.has_number:
                raise column.hole
            values.append(value)
    if not values:
        raise InputError(f"{file.path}, line 2: no row below the header")
    for column in columns:
        if not column.has_number and column.text is None:
            if column.required:
                raise file.error(2, column.name, "no number in this line and below, every cell is missing")
            column.text = "no number in it"
    return np.frombuffer(values).reshape(-1, len(columns))


def _value(file: CSVFile, line: int, column: _Column, cell: str) -> float:
    """The number in a cell, NaN if it is missing or of a column of text; a column that holds both is refused."""
    remedy = "" if column.required else "; choose the columns with --data.features"
    try:
        value = parse_number(cell)
    except ValueError as reason:
        if column.required or column.has_number or not isinstance(reason, TextCell):
            raise file.error(line, column.name, f"{cell[:80]!r} {reason}{remedy}") from None
        column.text = column.text or f"text: {cell[:80]!r} in line {line}"
        return float("nan")
    if column.text is not None and not isnan(value):
        raise file.error(line, column.name, f"{cell!r} is a number in a column with {column.text}{remedy}")
    return value
