"""From a CSV file to tensors: which columns, which rows, and what was left out."""

import io
import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isnan
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from linreg.errors import InputError
from linreg.reader import LARGEST, CSVFile, parse_number


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
        raise InputError(f"missing={missing!r}: 'drop' or 'error' is expected")
    file = CSVFile(path)
    targets = [target] if isinstance(target, str) else list(target)
    columns = _choose(file, targets, features)
    values = _read_fast(file, columns)
    if values is None:
        values = _read_exactly(file, columns, missing)
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
        raise InputError(f"{path} has no complete row of numbers: " + "; ".join(notes))
    used = torch.from_numpy(values[whole])
    x, y = used[:, len(targets) :].contiguous(), used[:, : len(targets)].contiguous()
    return Table(x, y, names[len(targets) :], targets, len(whole), notes)


def _choose(file: CSVFile, targets: list[str], features: Sequence[str] | None) -> list[_Column]:
    """The columns to read: the targets, then the features."""
    for role, names in (("target", targets), ("features", list(features or []))):
        if len(set(names)) < len(names) or (role == "target" and not names):
            raise InputError(f"{role}={names}: one or more different columns are expected")
    overlap = sorted(set(targets) & set(features or []))
    if overlap:
        raise InputError(f"{overlap[0]!r} is the target and among the features; a column can only be one of them")
    columns = [_Column(name, file.index(name, "target"), required=True) for name in targets]
    if features is None:
        others = [name for name in file.names if name and name not in targets]
        return columns + [_Column(name, file.names.index(name), required=False) for name in others]
    return columns + [_Column(name, file.index(name, "features"), required=True) for name in features]


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
    """Which absolute values can be squared; the others, and NaN, are for the exact reader to judge."""
    return (size == 0) | ((size > 1 / LARGEST) & (size < LARGEST))


def _read_exactly(file: CSVFile, columns: list[_Column], missing: str) -> np.ndarray:
    """All values, NaN where missing, a row at a time; knows where it is when something is wrong."""
    values = array("d")
    for line, cells in file.rows():
        for column in columns:
            cell = cells[column.index]
            try:
                value = float("nan") if column.text is not None else parse_number(cell)
            except ValueError as reason:
                if column.required or column.has_number:
                    remedy = "" if column.required else " (or choose the columns with --data.features)"
                    raise file.error(line, column.name, f"{cell!r} {reason}{remedy}") from None
                column.text = f"text: {cell!r} in line {line}"
                value = float("nan")
            if isnan(value) and column.text is None and missing == "error":
                raise file.error(line, column.name, f"a missing cell ({cell!r}), and missing is 'error'")
            column.has_number = column.has_number or not isnan(value)
            values.append(value)
    if not values:
        raise InputError(f"{file.path} has no row below its header")
    for column in columns:
        if not column.has_number and column.text is None and not column.required:
            column.text = "no number in it"
    return np.frombuffer(values).reshape(-1, len(columns))
