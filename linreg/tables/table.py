"""The table that training starts from, which ``load()`` returns; it is judged here, where it is made.

Shapes: N rows, D features, T targets; x is (N, D), y is (N, T), and row i of x belongs to row i of y.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from linreg.files.cells import EXACT, LARGEST
from linreg.files.doubts import far_cells, far_values
from linreg.system.errors import InputError
from linreg.tables.reader import TableReader

Numbers = Tensor | np.ndarray | Sequence[Any]


class Table:
    """Rows for a regression: ``x`` (N, D) and ``y`` (N, T) as float64 tensors, and what is known about their columns.

    Args:
        x: (N, D) the features: a tensor, a numpy array or nested lists, of any real dtype.
        y: (N, T) the targets, or (N,) for a single one.
        feature_names: D different names; None stands for x1, x2 and so on.
        target_names: T different names; None stands for y, or y1, y2 and so on.
        num_read: rows of the data, of which N are here; None stands for N.
        notes: what was left out or dropped, a line each.
        true_coef: (T, D), where the table was made from known coefficients.
        true_intercept: (T,), likewise.
        is_judged: whether each cell was judged as it was read: then x and y, (N, T), are tensors, taken as they are.

    Raises:
        InputError: for whatever is not such a table; it says what was given, what is expected and the remedy.
    """

    def __init__(
        self,
        x: Numbers,
        y: Numbers,
        feature_names: Sequence[str] | None = None,
        target_names: Sequence[str] | None = None,
        num_read: int | None = None,
        notes: Sequence[str] = (),
        true_coef: Numbers | None = None,
        true_intercept: Numbers | None = None,
        is_judged: bool = False,
    ) -> None:
        if not is_judged:
            x, y = as_float64(x, "x"), as_float64(y, "y")
            y = y[:, None] if y.ndim == 1 else y
        self.x, self.y = cast(Tensor, x), cast(Tensor, y)
        self._check_shapes()
        (num_rows, num_features), num_targets = self.x.shape, self.y.shape[1]
        self.feature_names = _names(feature_names, "feature_names", "x", num_features)
        self.target_names = _names(target_names, "target_names", "y", num_targets)
        for name in sorted(set(self.feature_names) & set(self.target_names))[:1]:
            raise InputError(f"Table: {name!r} is the name of a feature and of a target; rename one of them")
        if num_read is not None and not (is_judged or (isinstance(num_read, int) and num_read >= num_rows)):
            raise InputError(f"Table: num_read={num_read!r}: a number of rows, {num_rows} or more, is expected")
        self.num_read = num_rows if num_read is None else num_read
        self.notes = [notes] if isinstance(notes, str) else list(notes)
        self.true_coef = _parameters(true_coef, "true_coef", (num_targets, num_features))
        self.true_intercept = _parameters(true_intercept, "true_intercept", (num_targets,))
        self.mapped = False  # whether x and y are of a read-only file, its rows in random order: float32, too
        self.reader: TableReader | None = None  # which knows where the rows are from
        self.places: dict[int, str] = {}  # of those with an outlier
        self.levels: dict[str, list[str]] = {}  # of each category, the first of which has no column
        if not is_judged:
            _check_values(self.x, "x", self.feature_names)
            _check_values(self.y, "y", self.target_names)

    @classmethod
    def of_reader(cls, reader: TableReader, values: Tensor) -> "Table":
        """The table of the complete rows of a reader, (N, K), targets first."""
        (features, targets), split = reader.names(), reader.num_targets
        sides = values[:, split:], values[:, :split]
        table = cls(*sides, features, targets, reader.num_read, reader.notes(), is_judged=True)
        table.levels, table.reader = reader.levels, reader
        return table

    def outliers(self) -> list[str]:
        """A line for each cell, or value, that is far from all others of its column; but of a mapped table."""
        sides = () if self.mapped else ((self.x, self.feature_names), (self.y, self.target_names))
        cells = [(row, values[:, i], names[i]) for values, names in sides for row, i in far_cells(values)]
        if self.reader is not None:
            with suppress(InputError):  # files that are gone, or changed
                self.places = self.reader.places([row for row, *_ in cells])
            self.reader = None  # which may hold a frame
        remedy = "if that stands for a missing cell, --data.missing_values '[NUMBER]' says so"
        lines = [f"{names[i]}: {said}; {remedy}" for values, names in sides for i, said in far_values(values)]
        for row, column, name in cells:
            which = self.places.get(row, f"row {row + 1:,}" + " of the complete ones" * (self.num_read > len(column)))
            spreads = float(abs(column[row] - column.mean()) / column.std())
            far = f"{float(column[row]):,.10g}, {spreads:,.3g} spreads from the mean"
            lines.append(f"{name}: {which} is {far}; that is far from the others, and may outweigh them")
        return lines

    @classmethod
    def from_frame(cls, frame: Any, target: str | Sequence[str], **how: Any) -> "Table":
        """The table in a frame of pandas (without its index), Polars or pyarrow, read as ``read_csv`` reads a file."""
        return read_csv(frame, target, **how)

    def _check_shapes(self) -> None:
        for tensor, what, shape, remedy in (
            (self.x, "x", "(N, D)", "x[:, None] makes one feature of (N,), x.flatten(1) features of pictures"),
            (self.y, "y", "(N, T) or (N,)", "y.flatten(1) makes columns of more dimensions"),
        ):
            if tensor.ndim != 2:
                raise InputError(f"Table: {what}: the shape {shape} is expected, not {tuple(tensor.shape)}; {remedy}")
            if not tensor.numel():
                found = f"{what} has no {'column' if len(tensor) else 'row'}, its shape is {tuple(tensor.shape)}"
                raise InputError(f"Table: {found}; give one or more")
        if len(self.x) != len(self.y):
            found = f"{len(self.x)} rows of x and {len(self.y)} of y"
            raise InputError(f"Table: {found}: y has to have as many rows as x, one for each")


def as_float64(values: Any, what: str) -> Tensor:
    """A tensor of the same numbers on the CPU; InputError for what are none, or what float64 cannot hold."""
    try:
        if isinstance(values, Tensor):
            values = values.detach().cpu()
            if values.is_floating_point() and values.layout is torch.strided:
                return values.to(torch.float64)
        if isinstance(values, np.ma.MaskedArray):
            values = np.ma.filled(values.astype(np.float64), np.nan)
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        message = " ".join(str(error).split())[:200]
        raise InputError(f"Table: {what}: numbers are expected in a dense tensor or array: {message}") from None
    if array.dtype.kind not in "biuf":
        kind = {"U": "text", "S": "text"}.get(array.dtype.kind, str(array.dtype))
        raise InputError(f"Table: {what}: numbers are expected, not {kind}; make it an array of floats")
    if array.dtype.kind in "iu" and (large := array[(array > EXACT) | (array < -EXACT)]).size:
        remedy = "leave the column out if it is an identifier, or convert it to floats"
        raise InputError(f"Table: {what}: {large[0]} has more digits than float64 can hold; {remedy}")
    with np.errstate(over="ignore"):  # what becomes infinite is refused with its place
        return torch.from_numpy(np.require(array, np.float64, ["C", "W"]))


def _parameters(values: Any, what: str, shape: tuple[int, ...]) -> Tensor | None:
    tensor = None if values is None else as_float64(values, what)
    if tensor is not None and tensor.shape != shape:
        raise InputError(f"Table: {what}: the shape {shape} is expected, not {tuple(tensor.shape)}")
    return tensor


def _names(names: Any, what: str, letter: str, number: int) -> list[str]:
    if names is None:
        return [letter] if (letter, number) == ("y", 1) else [f"{letter}{i + 1}" for i in range(number)]
    found = list(names) if isinstance(names, Iterable) and not isinstance(names, str) else [names]
    if len(found) != number or len(set(map(repr, found))) < number or not all(isinstance(n, str) and n for n in found):
        expected = f"{number} different names are" if number > 1 else "1 name is"
        raise InputError(f"Table: {what}={str(names)[:200]}: {expected} expected, one for each column, in a list")
    return [str(name) for name in found]


def _check_values(values: Tensor, what: str, names: list[str]) -> None:
    """InputError for the first value that is not finite, or that float64 cannot square."""
    size = torch.maximum(-values.amin(0), values.amax(0))  # NaN if there is one; of .abs() it would copy a table
    is_tiny = (size > 0) & (size <= 1 / LARGEST)
    if (size < LARGEST).all() and not is_tiny.any():
        return
    row, i = (~(values.abs() < LARGEST) | is_tiny & (values != 0)).nonzero()[0].tolist()
    value = values[row, i].item()
    expected = f"0, or between {1 / LARGEST:g} and {LARGEST:g} in size, is expected: float64 cannot square it"
    remedy = "leave out the rows with a missing value" if value != value else expected
    raise InputError(f"Table: {what}[{row}, {i}] ({names[i]!r}) is {value:g}: {remedy}")


def read_csv(
    path: Any,
    target: str | Sequence[str],
    features: Sequence[str] | None = None,
    missing: Literal["drop", "error"] = "drop",
    **how: Any,
) -> Table:
    """Reads the named columns of a CSV file, or of what else a ``TableReader`` takes, as numbers; see there.

    Args:
        path: the file.
        target: the column, or columns, to predict.
        features: the columns to predict from; None takes every other column of numbers.
        missing: "drop" or "error".
        **how: categories, exclude, decimal, missing_values.
    """
    reader = TableReader(path, target, features, missing, **how)
    values = reader.read()
    assert values is not None, "without a limit all rows are read"
    return Table.of_reader(reader, torch.from_numpy(values))
