"""Predictions for the rows of files, written beside them, in their order, a block at a time."""

import csv
import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from torch import Tensor

from linreg.files.cells import Spelling
from linreg.files.columns import choose, expand
from linreg.files.csv_text import CSVFile
from linreg.files.doubts import thousands
from linreg.files.rows import Rows
from linreg.files.sources import find_sources
from linreg.system.atomic import replacing
from linreg.system.errors import InputError, RunError
from linreg.system.screen import as_text, say, wrapped
from linreg.tables.columns import Moments, known_moments, say_other_units


class PredictionData(LightningDataModule):
    """The rows of a file to predict; it needs the model's feature columns, in any order, and may hold others.

    Args:
        path: a CSV file, with a header line, which may be gzipped; a Parquet file; a folder or pattern of such files.
        missing: "drop" leaves the prediction of a row with a missing cell empty and says how many, "error" refuses it.
        decimal: see CSVData; by default as the model was trained.
        missing_values: see CSVData; by default as the model was trained.
    """

    def __init__(
        self,
        path: str,
        missing: Literal["drop", "error"] = "drop",
        decimal: Literal[".", ","] = ".",
        missing_values: str | list[str | float] | None = None,
    ) -> None:
        super().__init__()
        if missing not in ("drop", "error"):
            raise InputError(f"missing={missing!r}: 'drop' or 'error' is expected")
        self.path, self.missing, self.spelling = path, missing, Spelling(decimal, missing_values)
        self.feature_names: list[str] = []  # the model's
        self.levels: dict[str, list[str]] = {}  # of its categories
        self.moments: Moments = {}

    def setup(self, stage: str) -> None:
        if self.trainer is not None:
            model: Any = self.trainer.lightning_module
            self.feature_names, self.levels = getattr(model, "feature_names", []), getattr(model, "levels", {})
            self.moments = known_moments(model)

    def writer(self, path: str) -> Callback:
        """What writes the predictions beside the rows."""
        return PredictionWriter(path)

    def predict_dataloader(self) -> "_Blocks":
        return _Blocks(self)


class _Blocks:
    """Batches ``(x, rows)``: float64 features with NaN for a missing cell, and the rows as the files have them."""

    def __init__(self, data: PredictionData) -> None:
        self.sources, self.refuse_missing = find_sources(data.path, data.spelling), data.missing == "error"
        first = self.sources[0]
        for other in self.sources[1:]:
            if (other.names, other.delimiter, type(other)) != (first.names, first.delimiter, type(first)):
                how = "another kind of file, another order of columns or another separator"
                raise InputError(f"{other.path}: {how} than {first.path}; predict them one at a time")
        self.columns = choose(first, [], data.feature_names, data.levels or None)
        numbers = [column.name for column in self.columns if column.levels is None]
        self.names, self.moments = data.feature_names, data.moments
        for line in thousands(self.sources, {name: self.moments.get(name, [0.0])[0] for name in numbers}):
            say(wrapped(f"data    {line}"))

    def __iter__(self) -> Iterator[tuple[Tensor, Rows]]:
        sums = []
        for source in self.sources:
            for values, rows in source.blocks(self.columns, self.refuse_missing, keep=True):
                x = torch.from_numpy(expand(values, self.columns))
                sums.append(torch.stack([x.nansum(dim=0), x.isfinite().sum(dim=0)]))
                yield x, rows
        if not sums:
            raise InputError(f"{self.sources[-1].path}, line 2: no row below the header")
        total, count = torch.stack(sums).sum(dim=0)
        say_other_units(self.moments, dict(zip(self.names, (total / count).tolist(), strict=True)))


class PredictionWriter(Callback):
    """Writes each row with its prediction as CSV; the file appears under its name only once it is whole."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        if not self.path.name or "\0" in path:
            raise InputError(f"--output {path!r}: the name of a CSV file to write is expected")
        self.opened = ExitStack()
        self.num_rows = self.num_empty = 0

    def on_predict_start(self, trainer: Trainer, pl_module: Any) -> None:
        sources = getattr(trainer.predict_dataloaders, "sources")  # noqa: B009
        first = sources[0]
        many = [f"prediction_{target}" for target in pl_module.target_names]
        names = many if len(many) > 1 else ["prediction"]
        for name in sorted({*names} & {*first.names}):
            raise InputError(f"{first.path} has a column {name!r} already; rename it, or predictions would hide it")
        self._check_place([source.path for source in sources], names)
        try:
            self.stream = self.opened.enter_context(replacing(self.path, "x", newline="", encoding="utf-8"))
            mode = os.stat(self.stream.name).st_mode & 0o666
            for source in sources:  # predictions of a private file are private
                mode &= source.path.stat().st_mode | 0o600
            os.chmod(self.stream.name, mode)
        except OSError as error:
            raise InputError(f"--output {self.path}: cannot be written: {error.strerror}") from None
        self.delimiter = first.delimiter  # and as its own numbers have it, in quotes where it separates cells too
        self.decimal = first.spelling.decimal if isinstance(first, CSVFile) else "."
        header = csv.writer(self.stream, delimiter=self.delimiter, lineterminator="\n")
        header.writerow(map(as_text, [*first.names, *names]))

    def _check_place(self, sources: list[Path], names: list[str]) -> None:
        """InputError unless there is nothing, or what an earlier prediction has left."""
        if self.path.suffix == ".parquet":
            raise InputError(f"--output {self.path}: predictions are written as CSV; give a name that ends in .csv")
        if not os.path.lexists(self.path):
            if len(sources) > 1 and self.path.resolve().parent in {source.resolve().parent for source in sources}:
                raise InputError(f"--output {self.path}: in a folder that is read as a whole; give a name elsewhere")
            return
        why = "not a regular file"
        if self.path.is_file() and not self.path.is_symlink():
            is_source = any(map(self.path.samefile, sources))
            why = "the file to predict" if is_source else "there already, and holds no predictions"
            with suppress(InputError):
                if not self.path.stat().st_size or CSVFile(self.path).names[-len(names) :] == names:
                    return
        raise InputError(f"--output {self.path}: this is {why}; give the name of a new file")

    def on_predict_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, *numbers: int) -> None:
        x, self.holes = batch[0], batch[0].isnan().any(dim=1)
        if self.holes.any():  # not every model can take a missing cell: another row stands in for such a one
            x[self.holes] = 0.0 if self.holes.all() else x[~self.holes][0]

    def on_predict_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, *numbers: int) -> None:
        (x, rows), holes = batch, self.holes
        outputs = self._beside(outputs, len(x), pl_module)
        lost = ~(outputs.isfinite().all(dim=1) | holes)
        if lost.any():
            place = rows.place(int(lost.int().argmax()))
            raise InputError(f"{place}: too far from the training rows: the prediction is not finite")
        columns = [[repr(value).replace(".", self.decimal) for value in column] for column in outputs.T.tolist()]
        if self.decimal == self.delimiter:
            columns = [[f'"{cell}"' for cell in column] for column in columns]
        for i in holes.nonzero()[:, 0].tolist():
            for column in columns:
                column[i] = ""
        try:
            self.stream.write(rows.beside(columns, self.delimiter))
        except OSError as error:
            raise self._unwritable(error) from None
        self.num_rows += len(x)
        self.num_empty += int(holes.sum())

    def _beside(self, outputs: Any, num_rows: int, model: Any) -> Tensor:
        """Predictions (N, T) of N rows, or (N,) of a single target; InputError for anything else."""
        found = outputs[:, None] if isinstance(outputs, Tensor) and outputs.ndim == 1 else outputs
        if not isinstance(found, Tensor) or found.shape != (num_rows, len(model.target_names)):
            what = f"{type(outputs).__name__} {tuple(outputs.shape) if isinstance(outputs, Tensor) else ''}"
            remedy = f"define {type(model).__name__}.predict_step(batch, batch_idx)"
            found = f"a {what} of {num_rows} rows cannot stand beside them"
            raise InputError(f"{found}: a number for each row and target is expected; {remedy}")
        return found

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
