"""Data of any kind as datasets: arrays, frames and text become tensors, a series overlapping windows."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from linreg.system.errors import InputError


class Rows(Dataset[Any]):
    """Columns of equal length, as a tuple, a dict or a lone one, with the classes that the rows ``like`` them have.

    Tensors stay as they are; of arrays, frames and lists float64 becomes float32, and text class numbers.
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


def inputs_of(batch: Any) -> Any:
    """What ``forward`` predicts from: x of a pair, or the batch itself."""
    return batch[0] if isinstance(batch, tuple | list) else batch


class Windows(Dataset[tuple[Tensor, Tensor]]):
    """Overlapping windows (x) of a series, each with the values that follow it (y).

    Args:
        series: (N, ...) the values, in the order of time.
        length: values in a window.
        horizon: values after it.
    """

    def __init__(self, series: Any, length: int, horizon: int = 1) -> None:
        self.series, self.length, self.horizon = as_column(series)[0], length, horizon
        if length < 1 or horizon < 1 or len(self) < 1:
            sizes = f"length={length}, horizon={horizon}, a series of {len(self.series):,}"
            raise InputError(f"Windows: {sizes}: at least 1 is expected of each, and a series of both together")
        self.overlap = length + horizon - 1  # windows that many apart, or fewer, share a value

    def __len__(self) -> int:
        return len(self.series) - self.length - self.horizon + 1

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        end = i + self.length
        return self.series[i:end], self.series[end : end + self.horizon]
