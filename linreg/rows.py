"""Data of any kind as datasets: arrays, frames and text become tensors, a series overlapping windows."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from linreg.system.errors import InputError

FEW = 20  # rows, or different values, that say too little of a column
CODES = torch.tensor([99.0, 999.0, 9_999.0, 99_999.0, 999_999.0], dtype=torch.float64)  # of a missing value, or below 0
ILL_CONDITIONED, REPEATED = 30, 10  # a condition number, and a variance inflation factor, above which a word is due


class Rows(Dataset[Any]):
    """Columns of equal length, as a tuple, a dict or a lone one.

    Args:
        columns: tensors as they are; arrays, frames and lists, of which float64 becomes float32 and text class numbers.
        like: rows whose classes these have too.

    Raises:
        InputError: for columns of unequal length, or of neither numbers nor text.
    """

    def __init__(self, columns: Any, like: "Rows | None" = None) -> None:
        self.names = [*columns] if isinstance(columns, dict) else None
        self.is_lone = not isinstance(columns, dict | tuple)
        parts = [columns] if self.is_lone else [*(columns.values() if isinstance(columns, dict) else columns)]
        known = like.levels if like is not None and len(like.levels) == len(parts) else [None] * len(parts)
        pairs = [as_column(part, levels) for part, levels in zip(parts, known, strict=True)]
        self.columns = [column for column, _ in pairs]
        self.levels: list[list[str] | None] = [levels for _, levels in pairs]
        if len(sizes := {len(column) for column in self.columns}) != 1:
            raise InputError(f"columns of {sorted(sizes)} rows: as many rows are expected of each")

    def __len__(self) -> int:
        return len(self.columns[0])

    def __getitem__(self, rows: Any) -> Any:
        found = [column[rows] for column in self.columns]
        if self.names is not None:
            return dict(zip(self.names, found, strict=True))
        return found[0] if self.is_lone else tuple(found)

    @property
    def classes(self) -> list[str]:
        """The levels of the last column, where that is of text or whole numbers."""
        target, levels = self.columns[-1], self.levels[-1]
        if levels is None and (target.ndim > 1 or target.is_floating_point()):
            raise AttributeError("the last column has no classes")
        return levels or [str(i) for i in range(int(target.max()) + 1)]


def as_column(values: Any, levels: list[str] | None = None) -> tuple[Tensor, list[str] | None]:
    """A column as a tensor; for text the numbers of its levels, which are sorted where they are not given."""
    if isinstance(values, Tensor):
        return values, None
    array = np.asarray(values)
    if array.dtype.kind in "OUS" and array.ndim == 1 and {*map(type, array.tolist())} == {str}:
        levels = levels or sorted({*array.tolist()})
        if unknown := {*array.tolist()} - {*levels}:
            raise InputError(f"{min(unknown)!r} is no class of the training rows, which are {', '.join(levels[:20])}")
        numbers = {level: i for i, level in enumerate(levels)}
        return torch.tensor([numbers[text] for text in array.tolist()]), levels
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        raise InputError(f"a column of numbers or of text is expected, not of {array.dtype}, shape {array.shape}")
    is_small = array.dtype == np.uint8 and array.ndim > 1  # pictures, of which there may be gigabytes
    kinds = {"f": np.float32, "i": np.int64, "u": np.uint8 if is_small else np.int64, "b": np.bool_}
    return torch.from_numpy(np.require(array, kinds[array.dtype.kind], ["C", "W"])), None


def as_dataset(found: Any, like: Any = None) -> Any:
    """What was loaded as a dataset: one, or what has rows by their number, as it is; all else as ``Rows``."""
    if isinstance(found, list | tuple) and any(isinstance(each, Dataset) for each in found):
        raise InputError(f"load: {len(found)} datasets, where one is expected; join them, or override val_dataloader")
    if isinstance(found, Dataset) or not (isinstance(found, dict | tuple | Tensor) or hasattr(found, "__array__")):
        return found
    return Rows(found, like if isinstance(like, Rows) else None)


def whole(rows: Any) -> Any:
    """The dataset that a split is a part of."""
    return rows.dataset if isinstance(rows, Subset) else rows


class Gathered(Subset[Any]):
    """Rows, or a part of them, of which a DataLoader with ``collate_fn=as_it_is`` gets a batch at once."""

    def __init__(self, rows: Any) -> None:
        super().__init__(whole(rows), getattr(rows, "indices", range(len(rows))))

    def __getitems__(self, indices: list[int]) -> Any:
        return self.dataset[[self.indices[i] for i in indices]]


def as_it_is(batch: Any) -> Any:
    """In place of a collation: the batch was gathered whole."""
    return batch


def lengths_of(batch: Any) -> list[int]:
    """The different lengths of a batch's tensors, in their order."""
    if isinstance(batch, Tensor):
        return [len(batch)] if batch.ndim else []
    parts = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, tuple | list) else ()
    return list(dict.fromkeys(length for part in parts for length in lengths_of(part)))


class Windows(Dataset[tuple[Tensor, Tensor]]):
    """Overlapping windows (x) of a series, each with the values that follow it (y).

    Args:
        series: (N, ...) the values, in the order of time.
        length: values in a window.
        horizon: values after it.
    """

    def __init__(self, series: Any, length: int, horizon: int = 1) -> None:
        self.series, self.length, self.horizon = torch.as_tensor(series), length, horizon
        if length < 1 or horizon < 1 or len(self) < 1:
            sizes = f"length={length}, horizon={horizon}, a series of {len(self.series):,}"
            raise InputError(f"Windows: {sizes}: at least 1 is expected of each, and a series of both together")
        self.overlap = length + horizon - 1  # windows that many apart, or fewer, share a value

    def __len__(self) -> int:
        return len(self.series) - self.length - self.horizon + 1

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        end = i + self.length
        return self.series[i:end], self.series[end : end + self.horizon]


def far_cells(values: Tensor) -> list[tuple[int, int]]:
    """Row and column of each cell of (N, K) that a wide gap parts, with two others at most, from its column's rest.

    A gap is wide if it is 8 times as long as the way from the median of the different values to it, and 3 times as
    much longer as that is longer than the way to a tenth of them; where these are few, if it is 40 times as long.
    """
    found = list[tuple[int, int]]()
    if len(values) < FEW:
        return found
    some = values[:: -(-len(values) // 8_192)].double().sort(dim=0).values
    middle = some[len(some) // 2]  # sorting all takes ten times as long, and most columns have no far end
    is_near = values.amax(0) - middle <= 4 * (some[-4] - middle)
    is_near &= middle - values.amin(0) <= 4 * (middle - some[3])
    for i in (~is_near).nonzero().flatten().tolist():
        column = values[:, i].double().cpu().numpy()
        ordered = np.sort(column)
        different = ordered[np.diff(ordered, prepend=-np.inf) > 0]
        for side, ends in ((column, different), (-column, -different[::-1])):
            for k in range(min(3, len(ends) - 2), 0, -1):
                rest = ends[:-k]
                median = rest[(len(rest) - 1) // 2]
                reach, usual = rest[-1] - median, rest[-1 - len(rest) // 10] - median
                times = max(8, 3 * reach / usual) if len(rest) >= FEW else 40
                if ends[-k] - rest[-1] > times * reach and len(rows := np.flatnonzero(side >= ends[-k])) <= 3:
                    found += [(row, i) for row in rows.tolist()]
                    break
    return found


def far_values(values: Tensor) -> list[tuple[int, str]]:
    """The columns of (N, K) whose lowest or highest value is that of four rows or more, and far from all others.

    It is far if the gap is 8 times as long as all others lie apart, of a code such as -999 half as long; in words.
    """
    found = list[tuple[int, str]]()
    if len(values) < FEW:
        return found
    some = values[:: -(-len(values) // 8_192)].double().sort(dim=0).values
    for sign, ends in ((1, some), (-1, -some.flip(0))):
        others = ends.where(ends > ends[0], torch.inf).amin(0)
        times = torch.where(torch.isin(ends[0].abs(), CODES), 0.5, 8.0)
        may_be = (ends[3] == ends[0]) & (ends[len(ends) // 2] > ends[0]) & (others < ends[-1])
        for i in (may_be & (others - ends[0] > times * (ends[-1] - others))).nonzero().flatten().tolist():
            column = sign * values[:, i].double()
            end, rest = column.min(), column[column > column.min()]
            if rest.min() - end > times[i] * (rest.max() - rest.min()):
                found.append((i, f"{len(column) - len(rest):,} are {sign * float(end):g}, far from all others"))
    return found
