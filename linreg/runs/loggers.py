"""The loggers of a run, which draw its curves: TensorBoard unless others are asked for, each in the run's folder."""

import csv
import inspect
import re
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from tensorboard.summary.writer import event_file_writer
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from linreg.runs.folder import RunFolder
from linreg.safety.allowed import import_allowed, python_numbers
from linreg.system.errors import InputError, given

# Files of one second are read in the order of their names, which end in this count: ".10" would come before ".9".
event_file_writer._global_uid = event_file_writer.AtomicCounter(1_000_000)

HERE = "runs/NAME/version_N"  # as a logger's save_dir: the run's own folder, whichever it is
Settings = dict[str, Any]
Points = dict[str, float]


class Curves(Logger):
    """What TensorBoard's and CSV's loggers do otherwise in a run's folder: nothing until ``log_start``, then once each.

    Lightning asks for their files before it is known that the run can go on; once opened, these void what was there.
    """

    is_open = False
    log_start: Callable[[Settings, Sequence[str]], None]  # opens the files

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.written: dict[str, int | None] = {}  # the newest step of each tag

    @property
    def experiment(self) -> Any:
        return super().experiment if self.is_open else None  # type: ignore[misc]

    @rank_zero_only
    def log_metrics(self, metrics: Points, step: int | None = None) -> None:
        new = {tag: value for tag, value in metrics.items() if self.written.get(tag, -1) != step}
        self.written.update(dict.fromkeys(new, step))
        if self.is_open and new:
            super().log_metrics(new, step)  # type: ignore[safe-super]

    def log_hyperparams(self, params: Settings | Namespace, *args: Any, **kwargs: Any) -> None:
        """Lightning's own call; ``log_start`` has what is worth logging, and config.yaml all of it."""


class RunLogger(Curves, TensorBoardLogger):
    """Writes the curves for TensorBoard to a run's folder, under the tags ``metric/stage`` and nothing else."""

    def __init__(self, run: RunFolder, **options: Any) -> None:
        super().__init__(run.path, "", "", **options | {"default_hp_metric": False, "purge_step": run.purge_step})
        self.path = run.path
        self.beside: dict[str, SummaryWriter] = {}

    @property
    def log_dir(self) -> str:
        return str(self.path)  # Lightning's own puts in what a "$HOME" or a "~" in the name of a folder stands for

    def log_metrics(self, metrics: Points, step: int | None = None) -> None:
        super().log_metrics({tag: value for tag, value in metrics.items() if tag != "epoch"}, step)

    @rank_zero_only
    def log_beside(self, name: str, points: Points, step: int) -> None:
        """Points beside those of the run: in TensorBoard's eyes of a run of its own, with steps of its own."""
        if self.is_open:
            if name not in self.beside:  # what an interrupted run has left from there on is void
                self.beside[name] = SummaryWriter(str(self.path / name), purge_step=step)
            for tag, value in points.items():
                self.beside[name].add_scalar(tag, value, step)

    @rank_zero_only
    def log_start(self, settings: Settings, metrics: Sequence[str]) -> None:
        """Declares a row of the HParams table, if there are settings; TensorBoard fills in its metrics by itself."""
        self.is_open = True
        for summary in hparams(python_numbers(settings), dict.fromkeys(metrics, 0)) if settings else ():
            self.experiment.file_writer.add_summary(summary)

    @rank_zero_only
    def save(self) -> None:
        if self.is_open:
            for writer in (self.experiment, *self.beside.values()):
                writer.flush()  # and no hparams.yaml beside config.yaml

    def finalize(self, status: str) -> None:
        """Lightning's own call, behind the training and behind the test; a run has more to write."""
        self.save()

    def close(self) -> None:
        """Ends the thread of each file."""
        if self.is_open:
            for writer in (self.experiment, *self.beside.values()):
                writer.close()


class RunTable(Curves, CSVLogger):  # type: ignore[misc]
    """Writes the curves to metrics.csv in a run's folder; a run that goes on keeps the rows up to its checkpoint."""

    def __init__(self, run: RunFolder, **options: Any) -> None:
        super().__init__(run.path, "", "", **options)
        self.path, self.purge_step = run.path / "metrics.csv", run.purge_step

    @rank_zero_only
    def log_start(self, settings: Settings, metrics: Sequence[str]) -> None:
        """Opens the file, which Lightning empties, and puts back the rows before ``purge_step``."""
        rows: list[dict[str, Any]] = []
        if self.purge_step is not None and self.path.is_file():
            with (
                given(f"{self.path} holds no curves to go on with"),
                self.path.open(newline="", encoding="utf-8") as file,
            ):
                rows = [row for row in csv.DictReader(file) if int(row["step"] or 0) < self.purge_step]
        self.is_open = True
        self.experiment.metrics += [{tag: value for tag, value in row.items() if tag and value} for row in rows]
        self.save()

    @rank_zero_only
    def save(self) -> None:
        if self.is_open:
            self.experiment.save()


OURS: dict[Any, Callable[..., Logger]] = {TensorBoardLogger: RunLogger, CSVLogger: RunTable}


def make_loggers(wanted: Any, run: RunFolder) -> list[Logger]:
    """The loggers of a run; InputError if the package of one is not installed, or its settings are wrong.

    Args:
        wanted: as Lightning's Trainer takes it; or classes in place of objects, or whatever makes a logger of a
            ``save_dir``: these write into the run's folder.
        run: that folder.
    """
    if wanted in (None, True):
        return [RunLogger(run)]
    return [each if isinstance(each, Logger) else make_logger(each, run) for each in several(wanted)]


def make_logger(make: Callable[..., Logger], run: RunFolder) -> Logger:
    """A logger whose files lie in the run's folder, unless it was told otherwise."""
    cls, options = getattr(make, "func", make), {**getattr(make, "keywords", {})}
    name = getattr(cls, "__name__", "the logger")
    is_told = options.get("save_dir", HERE) != HERE
    try:
        with given(name):
            if cls in OURS and not (is_told or options.get("name") or options.get("version")):
                kept = {k: v for k, v in options.items() if k not in ("save_dir", "name", "version")}
                return OURS[cls](run, **kept)
            return make() if is_told or not takes_folder(cls) else make(save_dir=str(run.path))
    except InputError as error:
        missing = error.__cause__
        if not isinstance(missing, ModuleNotFoundError):
            raise
        found = re.search(r"[A-Za-z][\w.-]*(?=[><=]|' not)", str(missing))
        package = found[0] if found else missing.name
        raise InputError(f"{name}: {package} is not installed; python -m pip install {package}") from None


def several(wanted: Any) -> list[Any]:
    """What Lightning takes as one, as several or as none of them, as a list."""
    return [*wanted] if isinstance(wanted, list | tuple) else [wanted] if wanted else []


def takes_folder(cls: Any) -> bool:
    """Whether a logger can be told where to write."""
    return "save_dir" in inspect.signature(cls).parameters


def told_where(entry: Any) -> Any:
    """A logger as a config names it, told to write into the run's folder unless it says where itself."""
    if isinstance(entry, list):
        return [told_where(each) for each in entry]
    entry = {"class_path": entry} if isinstance(entry, str) else entry
    if not isinstance(entry, dict) or not isinstance(args := entry.get("init_args") or {}, dict):
        return entry
    path = str(entry.get("class_path"))
    try:
        cls = import_allowed(path if "." in path else f"lightning.pytorch.loggers.{path}", "--logger")
    except (InputError, ImportError, AttributeError):
        return entry  # the parser will say
    plain = {"save_dir": HERE} | ({"name": "", "version": ""} if cls in OURS else {})
    return entry | {"init_args": plain | args} if takes_folder(cls) and "save_dir" not in args else entry


def to_be_made(parsed: Any) -> Any:
    """Loggers that a config names, as what makes them once the run has a folder."""
    if isinstance(parsed, bool | None):
        return parsed
    makers = []
    for entry in (each.as_dict() for each in several(parsed)):
        settings = entry.get("init_args", {}) | entry.get("dict_kwargs", {})
        makers.append(partial(import_allowed(entry["class_path"], "--logger"), **settings))
    return makers
