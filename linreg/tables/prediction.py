"""Predictions for the rows of a CSV file, written beside them, in their order, a block at a time."""

import csv
import itertools
import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from torch import Tensor

from linreg.atomic import replacing
from linreg.errors import InputError, RunError
from linreg.files.cells import parse_number
from linreg.files.csv_text import CSVFile
from linreg.screen import as_text, say

BLOCK = 8_192  # rows in memory at a time
Rows = list[tuple[int, list[str]]]


class PredictionData(LightningDataModule):
    """The rows of a CSV file to predict; it needs the model's feature columns, in any order, and may hold others.

    Args:
        path: the file, with a header line; it may be gzipped.
        missing: "drop" leaves the prediction of a row with a missing cell empty and says how many, "error" refuses it.
    """

    def __init__(self, path: str, missing: Literal["drop", "error"] = "drop") -> None:
        super().__init__()
        if missing not in ("drop", "error"):
            raise InputError(f"missing={missing!r}: 'drop' or 'error' is expected")
        self.path, self.missing = path, missing
        self.feature_names: list[str] = []  # the model's

    def setup(self, stage: str) -> None:
        if self.trainer is not None:
            self.feature_names = getattr(self.trainer.lightning_module, "feature_names", [])

    def writer(self, path: str) -> Callback:
        """What writes the predictions beside the rows."""
        return PredictionWriter(path)

    def predict_dataloader(self) -> "_Blocks":
        return _Blocks(CSVFile(self.path), self.feature_names, self.missing == "error")


class _Blocks:
    """Batches ``(x, rows)``: float64 features with NaN for a missing cell, and the rows' lines and cells."""

    def __init__(self, file: CSVFile, feature_names: list[str], refuse_missing: bool) -> None:
        self.file, self.refuse_missing = file, refuse_missing
        self.columns = {name: file.index(name, "model's features") for name in feature_names}

    def __iter__(self) -> Iterator[tuple[Tensor, Rows]]:
        numbered, empty = self.file.rows(), True
        while rows := list(itertools.islice(numbered, BLOCK)):
            values = [[self._value(line, name, cells[i]) for name, i in self.columns.items()] for line, cells in rows]
            empty = False
            yield torch.tensor(values, dtype=torch.float64), rows
        if empty:
            raise self.file.error(2, None, "no row below the header")

    def _value(self, line: int, name: str, cell: str) -> float:
        try:
            value = parse_number(cell)
        except ValueError as reason:
            raise self.file.error(line, name, f"{cell[:80]!r} {reason}") from None
        if value != value and self.refuse_missing:
            raise self.file.error(line, name, f"a missing cell ({cell!r}), and missing is 'error'")
        return value


class PredictionWriter(Callback):
    """Writes each row with its prediction; the file appears under its name only once it is whole.

    Args:
        path: the CSV file to write.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        if not self.path.name or "\0" in path:
            raise InputError(f"--output {path!r}: the name of a CSV file to write is expected")
        self.opened = ExitStack()
        self.num_rows = self.num_empty = 0

    def on_predict_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.file = file = getattr(trainer.predict_dataloaders, "file")  # noqa: B009
        names = ["prediction"]
        if len(pl_module.target_names) > 1:
            names = [f"prediction_{target}" for target in pl_module.target_names]
        for name in names:
            if name in file.names:
                raise InputError(f"{file.path} has a column {name!r} already; rename it, or predictions would hide it")
        self._check_place(file.path, names)
        try:
            stream = self.opened.enter_context(replacing(self.path, "x", newline="", encoding="utf-8"))
            mode = file.path.stat().st_mode | 0o600  # predictions of a private file are private
            os.chmod(stream.name, mode & os.stat(stream.name).st_mode & 0o666)
        except OSError as error:
            raise InputError(f"--output {self.path}: cannot be written: {error.strerror}") from None
        self.writer = csv.writer(stream, delimiter=file.delimiter, lineterminator="\n")
        self.writer.writerow(map(as_text, [*file.names, *names]))

    def _check_place(self, source: Path, names: list[str]) -> None:
        """InputError unless there is nothing, or what an earlier prediction has left."""
        if not os.path.lexists(self.path):
            return
        why = "not a regular file"
        if self.path.is_file() and not self.path.is_symlink():
            why = "the file to predict" if self.path.samefile(source) else "there already, and holds no predictions"
            with suppress(InputError):
                if not self.path.stat().st_size or CSVFile(self.path).names[-len(names) :] == names:
                    return
        raise InputError(f"--output {self.path}: this is {why}; give the name of a new file")

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: Any,
        outputs: Tensor,
        batch: tuple[Tensor, Rows],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        rows, holes = [], batch[0].isnan().any(dim=1).tolist()
        for (line, cells), missing, y_hat in zip(batch[1], holes, outputs.tolist(), strict=True):
            if not missing and not all(map(math.isfinite, y_hat)):
                raise self.file.error(line, None, "too far from the training rows: the prediction is not finite")
            rows.append([*cells, *("" if missing else repr(value) for value in y_hat)])
            self.num_empty += missing
        try:
            self.writer.writerows(rows)
        except OSError as error:
            raise self._unwritable(error) from None
        self.num_rows += len(rows)

    def on_predict_end(self, trainer: Trainer, pl_module: Any) -> None:
        try:
            self.opened.close()
        except OSError as error:
            raise self._unwritable(error) from None
        empty = f", {self.num_empty} of them empty for a missing cell" if self.num_empty else ""
        say(f"{self.path}: {self.num_rows:,} predictions{empty}")

    def _unwritable(self, error: OSError) -> RunError:
        return RunError(f"--output {self.path}: cannot be written: {error.strerror}")

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        with suppress(BaseException):  # so that it is closed as a file that was not finished is
            self.opened.__exit__(type(exception), exception, exception.__traceback__)
