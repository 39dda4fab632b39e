"""The data module for data of any kind: split once, and served in mini-batches, by several processes if told so.

A row is whatever a dataset gives: a pair (x, y), a dict, a lone tensor; a batch is the same of several rows.
"""

import copy
from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset

from linreg.rows import Gathered, Rows, as_dataset, as_it_is, whole
from linreg.split import SPLITS, check_split, same_rows, split_rows
from linreg.system.errors import InputError

GIVEN = (*SPLITS, "predict")  # the splits that ``load`` may give
CHUNK = 4_096  # rows that are turned to float64 at once


class DataModule(LightningDataModule):
    """Serves data of any kind in mini-batches; subclass it and define ``load``.

    What a model asks of its data by the name of an argument (``num_classes``, ``input_shape`` or a property of your
    own) reaches its constructor, and travels in the checkpoint.

    Args:
        batch_size: rows of a batch, at least 1.
        val_fraction: share of the rows held out for validation, from 0 to below 1.
        test_fraction: share of the rows held out for the final test, from 0 to 1.
        split: "random", or "order": the first rows train, the last ones test, as for a series in time.
        split_seed: seed of the split, from 0 to 2^32 - 1; each epoch's order comes from that of the run.
        gap: rows to leave out between two splits in order, where a row shares values with those after it; of Windows
            it is known.
        drop_last: whether to leave out the last batch of an epoch where it is smaller: batch norm needs two rows.
        num_workers: processes that load rows; 0 loads them in the run's own.
    """

    collate: Callable[[list[Any]], Any] | None = None  # a staticmethod from rows to a batch; None stacks them

    def __init__(
        self,
        batch_size: int = 32,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split: Literal["random", "order"] = "random",
        split_seed: int = 0,
        gap: int = 0,
        drop_last: bool = False,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        if hasattr(self, "collate_fn"):
            raise InputError(f"{type(self).__name__}.collate_fn would not be called; its name here is collate")
        self.save_hyperparameters(logger=False)
        check_split(val_fraction, test_fraction, split, split_seed)
        for name, value, least in (("batch_size", batch_size, 1), ("gap", gap, 0), ("num_workers", num_workers, 0)):
            if value < least:
                raise InputError(f"{name}={value}: at least {least} is expected")
        self.batch_size, self.drop_last, self.num_workers = batch_size, drop_last, num_workers
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.split, self.split_seed, self.gap = split, split_seed, gap

    def load(self) -> Any:
        """All rows, to be split: a dataset, a tuple or dict of arrays of equal length, a lone one; or those of each
        split, as ``{"train": ..., "val": ..., "test": ..., "predict": ...}``. Called once.
        """
        raise InputError(f"{type(self).__name__} has no load(); define it, and return a dataset or arrays")

    @cached_property
    def datasets(self) -> dict[str, Any]:
        """The rows of each split that has any."""
        found, where = self.load(), f"{type(self).__name__}.load"
        if isinstance(found, dict) and found.keys() & {*GIVEN}:
            if unknown := found.keys() - {*GIVEN}:
                raise InputError(f"{where}: {min(unknown)!r} is no split, as {', '.join(GIVEN)} are")
            train = as_dataset(found.get("train"))
            return {name: train if name == "train" else as_dataset(part, train) for name, part in found.items()}
        rows = as_dataset(found)
        if isinstance(rows, IterableDataset) or not hasattr(rows, "__len__"):
            if self.val_fraction or self.test_fraction:
                remedy = 'return {"train": ..., "val": ...}, or set --data.val_fraction 0 --data.test_fraction 0'
                raise InputError(f"{where}: a {type(rows).__name__} of unknown length cannot be split; {remedy}")
            return {"train": rows}
        gap = max(self.gap, getattr(rows, "overlap", 0))
        if gap and self.split == "random" and self.val_fraction + self.test_fraction:
            raise InputError(f"{where}: rows that share values leak between random splits; set --data.split order")
        shares = self.val_fraction, self.test_fraction
        parts = split_rows(len(rows), *shares, self.split, self.split_seed, gap, type(self).__name__)
        return {name: Subset(rows, torch.as_tensor(part).tolist()) for name, part in parts.items() if len(part)}

    @property
    def row_counts(self) -> dict[str, int | None]:
        """How many rows each split has; None for a stream, which does not know."""
        sizes = {name: len(rows) if hasattr(rows, "__len__") else None for name, rows in self.datasets.items()}
        return {name: sizes.get(name, 0) for name in SPLITS} | {"predict": sizes.get("predict", sizes.get("test", 0))}

    def describe(self) -> list[str]:
        """What the data are, a line each."""
        counts = {name: "a stream" if n is None else f"{n:,}" for name, n in self.row_counts.items() if n != 0}
        sizes = ", ".join(f"{count} {name}" for name, count in counts.items() if name in SPLITS)
        return [f"{type(self).__name__}: {sizes}; batches of {self.batch_size:,}"]

    def setup(self, stage: str) -> None:
        counts = self.row_counts
        if stage == "fit" and counts["train"] is not None and counts["train"] < (self.batch_size * self.drop_last or 1):
            few = f"{counts['train']} training row(s) make no batch"
            raise InputError(f"{type(self).__name__}: {few}; give a smaller --data.batch_size, or more rows")
        if counts["val"] == 0 and self.trainer:
            self.trainer.limit_val_batches = 0

    def train_dataloader(self) -> Any:
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> Any:
        return self._loader("val")

    def test_dataloader(self) -> Any:
        return self._loader("test")

    def predict_dataloader(self) -> Any:
        """The rows that ``load`` names "predict", or those of the test."""
        return self._loader("predict" if "predict" in self.datasets else "test")

    def _loader(self, split: str, shuffle: bool = False) -> DataLoader[Any]:
        rows: Any = self.datasets[split]
        at_once = isinstance(whole(rows), Rows) and self.collate is None
        return DataLoader(
            Gathered(rows) if at_once else rows,
            batch_size=self.batch_size,
            shuffle=shuffle and self.row_counts[split] is not None,  # a stream has the order that it has
            num_workers=self.num_workers,
            drop_last=shuffle and self.drop_last,
            collate_fn=as_it_is if at_once else self.collate,
        )

    @property
    def classes(self) -> list[str]:
        """The classes of the targets, in the order of their numbers."""
        return list(whole(next(iter(self.datasets.values()))).classes)

    @property
    def num_classes(self) -> int:
        """How many classes there are; of whole numbers as targets one more than the largest."""
        return len(self.classes)

    @property
    def input_shape(self) -> list[int]:
        """The shape of a row's x."""
        return list(self._row[0].shape)

    @property
    def num_features(self) -> int:
        """How many numbers a row's x has."""
        return self._row[0].numel()

    @property
    def num_targets(self) -> int:
        """How many numbers a row's y has."""
        if len(self._row) < 2:
            raise AttributeError(f"a row of {type(self).__name__} has no y")
        return self._row[1].numel()

    @property
    def _row(self) -> list[Tensor]:
        row: Any = next(iter(copy.copy(next(iter(self.datasets.values())))))  # of a stream that counts, not its first
        parts = row.values() if isinstance(row, dict) else row if isinstance(row, tuple | list) else [row]
        return [torch.as_tensor(part) for part in parts]

    @cached_property
    def fingerprint(self) -> Tensor:
        """The rows of each split, a sum of what is in memory, and of each column one by place, and one of its holes."""
        found = []
        for name in SPLITS:
            rows: Any = self.datasets.get(name, ())
            columns = whole(rows).columns if isinstance(whole(rows), Rows) else ()
            sums = [weighted_sums(column, getattr(rows, "indices", range(len(rows)))) for column in columns]
            placed = [value for each in sums for value in (each @ spread(each.shape[1])).tolist()]
            found.append([self.row_counts[name] or 0, sum(float(each[0].sum()) for each in sums), *placed])
        most = max(map(len, found))
        return torch.tensor([each + [0.0] * (most - len(each)) for each in found], dtype=torch.float64)

    def is_same(self, before: Tensor) -> bool:
        """Whether a fingerprint is that of these rows, but for rounding."""
        return same_rows(before, self.fingerprint) or same_rows(before, self.fingerprint[:, :2])  # of an older version


def weighted_sums(column: Tensor, numbers: Any) -> Tensor:
    """Of each number of a row (2, D), over the rows of these numbers: a weighted sum, and one of where it is finite."""
    total, weights = torch.zeros(()), spread(len(numbers)).split(CHUNK)
    for some, weight in zip(torch.tensor(numbers).split(CHUNK), weights, strict=True):
        flat = column[some].double().reshape(len(some), -1)
        total = total + torch.stack([weight @ flat.nan_to_num(0.0, 0.0, 0.0), weight @ flat.isfinite().double()])
    return total


def spread(number: int) -> Tensor:
    """Weights by which an exchange of two values shows in their sum."""
    return torch.arange(1, number + 1, dtype=torch.float64).mul_(12.9898).cos_()
