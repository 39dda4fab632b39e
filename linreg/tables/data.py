"""Data modules: a table, split once into training, validation and test rows, in mini-batches."""

from functools import cached_property
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from linreg.errors import InputError
from linreg.tables.batches import TensorBatches
from linreg.tables.memmap import mapped_table
from linreg.tables.table import Source, Table, memory

MAX_CELLS = 1 << 24  # in memory, as float64: 134 MB
MISJUDGED = 4  # times that many may turn out to be in a file that seemed smaller: one of single digits, or a packed one
SEEDS = (1 << 32) - 1  # the largest one
EVALUATION_BATCH = 16_384  # rows at once where no gradient is needed


class RegressionData(LightningDataModule):
    """Splits a table at random and serves it in batches ``(x (N, D), y (N, T))``; subclass it and define ``load``.

    Args:
        batch_size: rows of a training batch, at least 1; all rows (or more) is batch gradient descent, 1 is stochastic.
            None leaves it to the data: 1,024, or more where that reaches the optimum sooner.
        val_fraction: share of the rows held out for validation, from 0 to below 1.
        test_fraction: share of the rows held out for the final test, from 0 to 1.
        split_seed: seed of the split, and of the order of the training rows; from 0 to 2^32 - 1.
    """

    def __init__(
        self,
        batch_size: int | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch_size={batch_size}: at least 1 row is expected")
        for name, share in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
            if not 0 <= share <= 1:
                raise InputError(f"{name}={share}: a share from 0 to 1 is expected")
        if val_fraction + test_fraction > 1:
            raise InputError(f"val_fraction={val_fraction} and test_fraction={test_fraction} are more than all rows")
        if not 0 <= split_seed <= SEEDS:
            raise InputError(f"split_seed={split_seed}: a value from 0 to {SEEDS:,} is expected")
        self.batch_size = batch_size
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.split_seed = split_seed

    source = "the data"  # what an error message calls the table

    def load(self) -> Table:
        """Reads or makes the whole table; called once."""
        raise NotImplementedError(f"{type(self).__name__} has to define load()")

    @cached_property
    def table(self) -> Table:
        return self.load()

    @property
    def feature_names(self) -> list[str]:
        return self.table.feature_names

    @property
    def target_names(self) -> list[str]:
        return self.table.target_names

    @property
    def num_features(self) -> int:
        return len(self.feature_names)

    @property
    def num_targets(self) -> int:
        return len(self.target_names)

    @cached_property
    def splits(self) -> dict[str, tuple[Tensor, Tensor]]:
        """The rows (x, y) of "train", "val" and "test"; a split whose fraction is above 0 has at least one."""
        num_rows = len(self.table.x)
        shares = (self.val_fraction, self.test_fraction)
        num_val, num_test = (max(round(num_rows * share), 1) if share else 0 for share in shares)
        num_train = num_rows - num_val - num_test
        if num_train < 0 or (num_train == 0 and sum(shares) < 1):
            raise InputError(
                f"{self.source}: {num_rows} row(s) are too few to split into training, validation "
                f"({self.val_fraction}) and test ({self.test_fraction}) rows; "
                "set --data.val_fraction 0 --data.test_fraction 0"
            )
        sizes, names = [num_train, num_val, num_test], ("train", "val", "test")
        if self.table.mapped:
            parts = zip(self.table.x.split(sizes), self.table.y.split(sizes), strict=True)
            return dict(zip(names, parts, strict=True))
        order = torch.randperm(num_rows, generator=torch.Generator().manual_seed(self.split_seed))
        parts = order.split(sizes)
        return {name: (self.table.x[rows], self.table.y[rows]) for name, rows in zip(names, parts, strict=True)}

    @property
    def row_counts(self) -> dict[str, int]:
        """How many rows were read, dropped, and went into each split."""
        read, kept = self.table.num_read, len(self.table.x)
        return {"read": read, "dropped": read - kept} | {name: len(x) for name, (x, _) in self.splits.items()}

    def setup(self, stage: str) -> None:
        if not self.row_counts["val"]:
            self.trainer.limit_val_batches = 0

    def in_order(self, split: str) -> TensorBatches:
        """All rows of a split, in large batches and always the same order, for every process."""
        return TensorBatches(*self.splits[split], EVALUATION_BATCH, share=False)

    def train_dataloader(self) -> TensorBatches:
        if not len(self.splits["train"][0]):
            raise InputError(f"{self.source}: no row is left to train on; lower val_fraction or test_fraction")
        x, y = self.splits["train"]
        device = self.trainer.strategy.root_device if self.trainer else x.device
        if device.type == "cuda" and x.nbytes + y.nbytes < torch.cuda.mem_get_info(device)[0] / 2:
            x, y = x.to(device), y.to(device)  # a copy of the whole table, instead of one of each batch
        mapped = self.table.mapped and x.device.type == "cpu"
        return TensorBatches(x, y, self.batch_size or 1_024, seed=self.split_seed, mapped=mapped)

    def val_dataloader(self) -> TensorBatches:
        return TensorBatches(*self.splits["val"], EVALUATION_BATCH)

    def test_dataloader(self) -> TensorBatches:
        return TensorBatches(*self.splits["test"], EVALUATION_BATCH)


class SyntheticData(RegressionData):
    """Rows made from known coefficients: ``y = x W^T + b + noise``, with standard normal x.

    Args:
        num_rows: rows to make, at least 1.
        num_features: D, at least 1.
        noise_std: standard deviation of the noise, in the target's units, from 0 to 1e140.
        data_seed: seed of the coefficients, the features and the noise; from 0 to 2^32 - 1.
        **split: see RegressionData.
    """

    def __init__(
        self,
        num_rows: int = 1_000,
        num_features: int = 3,
        noise_std: float = 0.1,
        data_seed: int = 0,
        **split: Any,
    ) -> None:
        super().__init__(**split)
        sizes = (("num_rows", 1, 1 << 53, num_rows), ("num_features", 1, 1 << 53, num_features))
        for name, least, most, value in (
            *sizes,
            ("noise_std", 0, 1e140, noise_std),
            ("data_seed", 0, SEEDS, data_seed),
        ):
            if not least <= value <= most:  # the noise has to be squared
                raise InputError(f"{name}={value}: a value from {least} to {most:,} is expected")
        gigabytes, needed = memory() >> 30, 24 * num_rows * (num_features + 1) + 100 * num_features >> 30  # with splits
        if needed > gigabytes:
            found = f"num_rows={num_rows} and num_features={num_features}: they would take {needed:,} GB"
            raise InputError(f"{found}, this machine has {gigabytes:,} GB; lower one of them")
        self.num_rows, self.columns, self.noise_std, self.data_seed = num_rows, num_features, noise_std, data_seed

    def load(self) -> Table:
        generator = torch.Generator().manual_seed(self.data_seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        parameters = normal(self.columns + 1)
        parameters += parameters.sign()  # at least 1 in size, so that "within 1 %" means something
        coef, intercept = parameters[None, :-1], parameters[-1:]
        x = normal(self.num_rows, self.columns)
        y = x @ coef.T + intercept + self.noise_std * normal(self.num_rows, 1)
        names = [f"x{i + 1}" for i in range(self.columns)]
        return Table(x, y, names, ["y"], self.num_rows, true_coef=coef, true_intercept=intercept)


class CSVData(RegressionData):
    """The rows of a CSV file; also of a Parquet file, or of a folder or pattern of such files.

    Args:
        path: the file, with a header line; it may be gzipped.
        target: the column to predict; several as a list, ``[a, b]``.
        features: the columns to predict from, as a list, ``[a, b]``; None takes every other column of numbers.
        missing: "drop" leaves out rows with a missing cell in a used column and says how many, "error" refuses them.
        cache: folder for tables of more than 16 million cells, which are converted once to a memory-mapped file.
        **split: see RegressionData.
    """

    def __init__(
        self,
        path: str,
        target: str | list[str],
        features: list[str] | None = None,
        missing: Literal["drop", "error"] = "drop",
        cache: str = "~/.cache/linreg",
        **split: Any,
    ) -> None:
        super().__init__(**split)
        self.path, self.target, self.features, self.missing, self.cache = path, target, features, missing, cache
        self.source = str(path)

    def load(self) -> Table:
        source = Source(self.path, self.target, self.features, self.missing)
        large = sum(file.num_cells for file in source.files) > MAX_CELLS
        table = None if large else source.read(most=MISJUDGED * MAX_CELLS)
        return mapped_table(source.again(), self.split_seed, self.cache) if table is None else table
