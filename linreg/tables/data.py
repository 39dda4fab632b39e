"""The data module of a table: split once into training, validation and test rows, and served in mini-batches."""

import copy
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from linreg.files.doubts import copies
from linreg.safety.allowed import own_arguments
from linreg.split import check_split, same_rows, split_rows
from linreg.system.errors import InputError
from linreg.system.ranks import check_agreement, own_part
from linreg.system.screen import counted
from linreg.tables.batches import TensorBatches
from linreg.tables.table import Table

PLANNED = 1_024  # rows of a batch, where neither user nor model says how many
PART = 8_192  # rows that are standardized at a time: fresh memory for all of them is dear
MOST_UNSEEN = 3  # levels of a column that are named one by one
SAMPLED = 4_096  # rows of a mapped split whose bits are looked at when it is met again
EVALUATION_BATCH = 16_384  # rows at once where no gradient is needed


class RegressionData(LightningDataModule):
    """Splits a table at random and serves it in batches ``(x (N, D), y (N, T))``; subclass it and define ``load``.

    Args:
        batch_size: rows of a training batch, at least 1; all rows (or more) is batch gradient descent, 1 is stochastic.
            None leaves it to the data: 1,024, or more where that reaches the optimum sooner.
        val_fraction: share of the rows held out for validation, from 0 to below 1.
        test_fraction: share of the rows held out for the final test, from 0 to 1.
        split_seed: seed of the split, and of the order of the training rows; from 0 to 2^32 - 1.
        split: "random", or "order": the first rows train, the last ones test, as for a series in time.
        drop_last: whether to leave out the last batch of an epoch where it is smaller: batch norm needs two rows.
    """

    def __init__(
        self,
        batch_size: int | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        split: Literal["random", "order"] = "random",
        drop_last: bool = False,
    ) -> None:
        super().__init__()
        self.hparams.update(own_arguments())  # Lightning's own way would save arrays, too
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch_size={batch_size}: at least 1 row is expected")
        check_split(val_fraction, test_fraction, split, split_seed)
        self.planned_batch_size = PLANNED  # where the first is None; a model may know better
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.batch_size, self.split_seed, self.split, self.drop_last = batch_size, split_seed, split, drop_last

    origin = "the data"  # for error messages
    is_trained_on, num_trained_on = True, 0  # False of others; how many of their rows a model has seen all the same

    def load(self) -> Table:
        """Reads or makes the whole table; called once."""
        raise NotImplementedError(f"{type(self).__name__} has to define load()")

    @cached_property
    def table(self) -> Table:
        table: Any = self.load()
        if not isinstance(table, Table):
            kind = type(table).__name__
            raise InputError(f"{type(self).__name__}.load(): a Table is expected, not {kind}; return Table(x, y)")
        return table

    def __deepcopy__(self, memo: Any) -> "RegressionData":
        return copy.copy(self)  # of the same rows, which nothing changes

    @property
    def feature_names(self) -> list[str]:
        return self.table.feature_names

    @property
    def target_names(self) -> list[str]:
        return self.table.target_names

    @property
    def levels(self) -> dict[str, list[str]]:
        return self.table.levels

    @property
    def num_features(self) -> int:
        return len(self.feature_names)

    @property
    def num_targets(self) -> int:
        return len(self.target_names)

    @cached_property
    def splits(self) -> dict[str, tuple[Tensor, Tensor]]:
        """The rows (x, y) of "train", "val" and "test"; a split whose fraction is above 0 has at least one."""
        how, shares = "order" if self.table.mapped else self.split, (self.val_fraction, self.test_fraction)
        if self.table.mapped and self.split == "order":
            raise InputError(f"{self.origin}: as large a table has no order; leave out --data.split order")
        parts: Any = split_rows(len(self.table.x), *shares, how, self.split_seed, origin=self.origin)
        in_order = how == "order"  # as a mapped table is in random order already
        parts = {name: slice(rows.start, rows.stop) if in_order else rows.numpy() for name, rows in parts.items()}
        x, y = self.table.x.numpy(), self.table.y.numpy()  # where rows are picked in half of torch's time
        return {name: (torch.from_numpy(x[rows]), torch.from_numpy(y[rows])) for name, rows in parts.items()}

    @property
    def row_counts(self) -> dict[str, int]:
        """How many rows were read, dropped, and went into each split."""
        read, kept = self.table.num_read, len(self.table.x)
        return {"read": read, "dropped": read - kept} | {name: len(x) for name, (x, _) in self.splits.items()}

    def setup(self, stage: str) -> None:
        if stage == "fit":
            self.planned_batch_size = PLANNED  # and not that of an earlier model
        if stage == "fit" and not self.row_counts["train"]:
            raise InputError(f"{self.origin}: no row is left to train on; lower val_fraction or test_fraction")
        check_agreement("the table's columns and rows", (self.feature_names, self.target_names, self.row_counts))
        check_agreement("the sums of the table's columns", self.fingerprint.sum(0).tolist())
        if not self.row_counts["val"] and self.trainer:
            self.trainer.limit_val_batches = 0

    def evaluation_batches(self, split: str, apart: bool = False) -> TensorBatches:
        """All rows of a split in large batches, always the same order, of which each process has some.

        Rows that are to be ``apart`` are next to each other, a part of them for each process.
        """
        x, y = self.splits[split]
        part = own_part(len(x)) if apart else slice(None)
        return TensorBatches(x[part], y[part], EVALUATION_BATCH, shared=not apart)

    def train_dataloader(self) -> TensorBatches:
        """The training rows, shuffled; standardized while a model that does so is trained, a table in memory once."""
        rows = self.splits["train"]
        model: Any = self.trainer.lightning_module if self.trainer and self.trainer.training else None
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        nbytes = sum(part.nbytes for part in rows)
        if device.type == "cuda" and nbytes > torch.cuda.mem_get_info(device)[0] / 2:
            device = torch.device("cpu")  # else a copy of the whole table, instead of one of each batch
        mapped = self.table.mapped
        kind = prepare = getattr(model, "standardize", tuple)
        if not mapped or device.type == "cuda":
            parts = zip(*(part.split(PART) for part in rows), strict=True)
            ready = [prepare((x.to(device), y.to(device))) for x, y in parts]
            kind = getattr(ready[0], "_make", tuple)
            x, y = (torch.cat(side) for side in zip(*ready, strict=True))
            rows = x, y
        batch_size = self.batch_size or self.planned_batch_size
        seed = None if getattr(self.trainer, "overfit_batches", 0) > 0 else self.split_seed  # the same in each epoch
        order: dict[str, Any] = {"seed": seed, "mapped": mapped, "drop_last": self.drop_last, "training": True}
        return TensorBatches(*rows, batch_size, kind=kind, **order)

    @cached_property
    def fingerprint(self) -> Tensor:
        """Rows and weighted sums of each column of each split (S, 1 + D + T), in which any other row or order shows."""
        sums = []
        for split in self.splits.values():
            every = max(len(split[0]) // SAMPLED, 1) if self.table.mapped else 1
            weights = torch.arange(1, len(split[0][::every]) + 1, dtype=torch.float64).mul_(12.9898).cos_()
            num_rows = torch.tensor([len(split[0])], dtype=torch.float64)
            sums.append(torch.cat([num_rows, *(weights @ part[::every].double() for part in split)]))
        return torch.stack(sums)

    def is_same(self, before: Tensor) -> bool:
        """Whether a fingerprint is that of these rows, but for rounding."""
        return same_rows(before, self.fingerprint)

    def find_trained_on(self, before: Tensor, split: dict[str, Any]) -> None:
        """Notes how many rows were trained on, where all of them, split like that, are those of a fingerprint."""
        other = copy.copy(self)
        vars(other).update({name: split[name] for name in vars(self).keys() & split.keys()})
        for name in ("splits", "fingerprint"):
            vars(other).pop(name, None)
        if before[:, :1].sum() == len(self.table.x) and other.is_same(before):
            self.num_trained_on = int(before[0, 0])

    def describe(self) -> list[str]:
        """What the data are, a line each."""
        rows = self.row_counts
        sizes = ", ".join(f"{rows[split]:,} {split}" for split in ("train", "val", "test"))
        first = f"{rows['read']:,} rows, {counted(self.num_features, 'feature')} -> {', '.join(self.target_names)}; "
        first += f"{rows['dropped']:,} dropped; {sizes}"
        doubts = [*self._unseen_levels(), *copies(self.splits)] if self.is_trained_on else []
        known = f"{self.num_trained_on:,} of these {rows['test'] + rows['val']:,} rows were trained on"
        doubts += [f"{known}; leave out --data.path to measure those held out"] * bool(self.num_trained_on)
        return [first, *self.table.notes, *self.table.outliers(), *doubts]

    def _unseen_levels(self) -> Iterator[str]:
        """A line for each column of text with levels that the model will know nothing of."""
        x = self.splits["train"][0]
        for column, (first, *others) in self.levels.items() if len(x) else ():
            numbers = [self.feature_names.index(f"{column}={level}") for level in others]
            counts: Any = sum(part[:, numbers].count_nonzero(0) for part in x.split(PART))
            is_seen = [bool(counts.sum() < len(x)), *(counts > 0).tolist()]
            unseen = [level for level, seen in zip((first, *others), is_seen, strict=True) if not seen]
            shown = ", ".join(map(repr, unseen[:MOST_UNSEEN])) + ", ..." * (len(unseen) > MOST_UNSEEN)
            if unseen:
                yield f"{shown} of {column!r} is in no training row: nothing is learned of it"

    def val_dataloader(self) -> TensorBatches:
        return self.evaluation_batches("val")

    def test_dataloader(self) -> TensorBatches:
        return self.evaluation_batches("test")
