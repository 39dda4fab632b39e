"""The rows of a file: in memory, or mapped where they are too many."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from linreg.tables.columns import known_moments, say_other_units
from linreg.tables.data import RegressionData
from linreg.tables.memmap import mapped_table
from linreg.tables.reader import TableReader
from linreg.tables.table import Table

MAX_CELLS = 1 << 24  # in memory, as float64: 134 MB
MOST_BYTES = 1 << 32  # that are worth their SHA-256, which takes half a second for each GB
MISJUDGED = 4  # times that many may turn out to be in a file that seemed smaller: one of single digits, or a packed one


class CSVData(RegressionData):
    """The rows of a CSV file; also of a Parquet file, or of a folder or pattern of such files.

    Args:
        path: the file, with a header line; it may be gzipped.
        target: the column to predict, which has to be given; several as a list, ``[a, b]``.
        features: the columns to predict from, as a list, ``[a, b]``; None takes every other column of numbers.
        missing: "drop" leaves out rows with a missing cell in a used column and says how many, "error" refuses them.
        categories: the columns of text that are features too, as a list, or "all" of them: each of their levels but the
            first is a column of 0 and 1; as a dict, ``{species: [Adelie, Gentoo]}``, these levels and no others.
        exclude: the columns that are no features, as a list, ``[id]``.
        decimal: the decimal sign of the file's numbers, "." or ",".
        missing_values: what stands for a missing cell besides none, NA, #N/A, NaN and NULL, as a list, ``["?", -999]``.
        cache: folder for tables of more than 16 million cells, which are converted once to a memory-mapped file.
        **split: see RegressionData.
    """

    def __init__(
        self,
        path: str,
        target: str | list[str] | None = None,
        features: list[str] | None = None,
        missing: Literal["drop", "error"] = "drop",
        categories: str | list[str] | dict[str, list[str]] | None = None,
        exclude: str | list[str] | None = None,
        decimal: Literal[".", ","] = ".",
        missing_values: str | list[str | float] | None = None,
        cache: str = "~/.cache/linreg",
        **split: Any,
    ) -> None:
        super().__init__(**split)
        self.path, self.cache, self.origin = path, cache, str(path)
        self.columns = (target, features, missing, categories, exclude, decimal, missing_values)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        split = {"validate": "val", "test": "test"}.get(stage)
        if split and self.trainer is not None and self.row_counts[split]:
            # Torch's own would make a copy of the whole table for a mean in float64.
            means = [mean for side in self.splits[split] for mean in side.numpy().mean(0, np.float64).tolist()]
            names = [*self.feature_names, *self.target_names]
            say_other_units(known_moments(self.trainer.lightning_module), dict(zip(names, means, strict=True)))

    @property
    def fingerprints(self) -> list[str]:
        """The name, size and SHA-256 of each file that the table was read from, as it was then."""
        return self._fingerprints if self.table else []

    def load(self) -> Table:
        reader = TableReader(self.path, *self.columns)
        aside = ThreadPoolExecutor(1)  # a SHA-256 takes 6 % of the reader's time, and lets another thread run
        taken = aside.map(fingerprint, [file.path for file in reader.files if file.path.exists()])
        try:
            large = sum(file.num_cells for file in reader.files) > MAX_CELLS
            if large or (values := reader.read(most=MISJUDGED * MAX_CELLS)) is None:
                table = mapped_table(reader.again(), self.split_seed, self.cache)
            else:
                table = Table.of_reader(reader, torch.from_numpy(values))
            self._fingerprints = list(taken)
        finally:
            aside.shutdown(wait=False, cancel_futures=True)
        return table


def fingerprint(path: Path) -> str:
    """A file's name, its size, and its SHA-256 unless it is too large."""
    size = path.stat().st_size
    if size > MOST_BYTES:
        return f"{path}: {size:,} bytes, modified at {path.stat().st_mtime:.0f}; too large for a SHA-256"
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return f"{path}: {size:,} bytes, SHA-256 {digest.hexdigest()}"
