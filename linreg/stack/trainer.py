"""Lightning's Trainer as each subcommand needs it, with the callbacks of the stack."""

import inspect
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from linreg.processes.logged import Logged
from linreg.processes.meeting import launched, tell_everything
from linreg.processes.shares import Shares
from linreg.report.progress import ProgressLine
from linreg.runs.checkpoints import BestCheckpoint, LastCheckpoint, check_names
from linreg.runs.folder import ROOT
from linreg.runs.loggers import several
from linreg.runs.record import RunRecord
from linreg.runs.restored import Restored
from linreg.safety.allowed import python_numbers
from linreg.safety.checkpoint_file import CheckpointFile
from linreg.safety.safe_yaml import read_config
from linreg.stack.chunks import Chunks, refuse_what_needs_single_batches
from linreg.stack.draws import Draws
from linreg.stack.guard import DivergenceGuard, SameLoss
from linreg.stack.inside import Inside
from linreg.stack.lean import Lean, PlateausInTime
from linreg.stack.stopping import StopBetweenBatches
from linreg.system.errors import InputError, did_you_mean, given, with_remedies
from linreg.system.messages import EXPECTED
from linreg.system.screen import hide_notes

FOLDERS = [Path(__file__).parents[i] / "configs" for i in (1, 2)]  # of an installed package, and of a clone
DEFAULT_CONFIG = next((path for path in FOLDERS if path.is_dir()), FOLDERS[1]) / "default.yaml"
LARGEST = 2**53  # that a flag may say
INSTEAD = {  # of callbacks, and a profiler, that a run here cannot have
    "BatchSizeFinder": "it trains before the run; try sizes with --data.batch_size and --max_epochs 1",
    "LearningRateFinder": "it trains before the run; give --model.lr, or leave it to the data",
    "StochasticWeightAveraging": "its weights are in no checkpoint; use EMAWeightAveraging",
}
if find_spec("torch_xla") is None:
    INSTEAD["XLAProfiler"] = "it needs torch_xla, which is not installed; use the profiler simple, or pytorch"
LEAST = {  # what Lightning would divide by, or wait for, without a word
    **dict.fromkeys(("accumulate_grad_batches", "check_val_every_n_epoch"), 1),
    **dict.fromkeys(("max_epochs", "max_steps"), -1),
    **dict.fromkeys(("log_every_n_steps", "reload_dataloaders_every_n_epochs", "min_epochs", "min_steps"), 0),
    "gradient_clip_val": 0,
}


def all_flags(flags: dict[str, Any]) -> dict[str, Any]:
    """All flags of the Trainer: those given; for the others the defaults of configs/default.yaml, or Lightning's."""
    known = {name: p.default for name, p in inspect.signature(Trainer).parameters.items()}
    for name in flags:
        if name not in known:
            raise InputError(f"the Trainer has no flag {name!r}{did_you_mean(name, [*known])}")
    return known | read_config(DEFAULT_CONFIG.read_text(), str(DEFAULT_CONFIG))["trainer"] | python_numbers(flags)


def make_trainer(settings: dict[str, Any], callbacks: tuple[Callback, ...] = (), **changed: Any) -> Trainer:
    """A Trainer of all its flags, and those that are ``changed``, that writes whole checkpoints and draws progress."""
    hide_notes()
    settings = settings | changed | {"use_distributed_sampler": False}  # it repeats rows; see Shares
    added = [*several(settings["callbacks"]), *callbacks]
    check_flags(settings)
    settings["plugins"] = [*several(settings["plugins"]), CheckpointFile()]
    settings["default_root_dir"] = str(ROOT / ".lightning")  # where nothing is: Lightning resumes from what it finds
    if settings["enable_progress_bar"] is None:
        settings["enable_progress_bar"] = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    if settings["enable_progress_bar"] and not any(isinstance(callback, ProgressBar) for callback in added):
        added.append(ProgressLine())
    if settings["accelerator"] == "auto" and torch.backends.mps.is_available():
        settings["accelerator"] = "cpu"  # Apple's GPU has no float64, which standardization needs
    with given("the flags of the Trainer"), with_remedies():
        trainer = Trainer(**launched(settings) | {"callbacks": added})
    tell_everything(trainer.strategy)
    if trainer.num_devices * trainer.num_nodes > 1:
        trainer.callbacks[:0] = [Shares(), Logged(trainer.strategy)]  # type: ignore[attr-defined]
    return trainer


@contextmanager
def no_false_alarms() -> Iterator[None]:
    """Keeps to itself what Lightning warns of, and what is meant here."""
    with warnings.catch_warnings():
        for message in EXPECTED:
            warnings.filterwarnings("ignore", message)
        yield


def check_flags(settings: dict[str, Any]) -> None:
    """InputError for flags that the Trainer takes, and that it, or a run here, cannot work with."""
    for name, value in settings.items():
        if isinstance(value, int) and abs(value) > LARGEST:
            raise InputError(f"--{name} {value}: at most {LARGEST:,} is expected")
    for name, least in LEAST.items():
        if not isinstance(settings[name], Real | None):
            raise InputError(f"--{name} {settings[name]!r}: a number is expected")
        if settings[name] is not None and settings[name] < least:
            raise InputError(f"--{name} {settings[name]}: at least {least} is expected")
    for what in ("epochs", "steps"):
        least, most = settings[f"min_{what}"], settings[f"max_{what}"]
        if least is not None and most not in (None, -1) and least > most:
            raise InputError(f"--min_{what} {least} is more than --max_{what} {most}; leave out one of them")
    if settings["barebones"]:
        remedy = "use lightning.Trainer(barebones=True) in Python"
        raise InputError(f"--barebones leaves out what a run is made of; {remedy}")
    profiler = re.sub("(?i)^xla$", "XLAProfiler", str(settings["profiler"]))
    for name, remedy in INSTEAD.items():
        if re.search(rf"\b{name}\b", f"{settings['callbacks']} {profiler}"):  # objects, or what a config says of them
            raise InputError(f"{name} cannot be honoured: {remedy}")
    for name in [name for name in ("val_check_interval", "limit_train_batches") if settings[name] == 0]:
        raise InputError(f"--{name} {settings[name]}: a number above 0 is expected")
    if settings["default_root_dir"] not in (None, str(ROOT)):
        raise InputError("--default_root_dir: a run lies in runs/NAME/version_N of the current folder; leave it out")
    devices = settings["devices"]
    if isinstance(devices, int | str) and str(devices).isdecimal():
        most = max(os.cpu_count() or 1, torch.cuda.device_count())
        if int(str(devices)[:9]) > most:
            raise InputError(f"--devices {devices}: this machine has {most}, and a process for each is started")


def make_fitter(
    settings: dict[str, Any],
    model: LightningModule,
    config: str,
    chunk: int | None = None,
    formula: bool = False,
    best: BestCheckpoint | None = None,
    save_every_n_steps: int | None = None,
) -> Trainer:
    """A Trainer that guards the training, stops it when asked to, and saves where it stands.

    ``settings`` are all of its flags, ``config`` goes into the record, and the others are those of ``experiment.run``.
    """
    check_names(several(settings["callbacks"]))
    draws, record = Draws(), RunRecord(config)
    callbacks: list[Callback] = [StopBetweenBatches(), draws, Restored(), PlateausInTime(), DivergenceGuard(), record]
    chunks = Chunks(chunk, formula) if formula or chunk is not None else None
    callbacks += [SameLoss(), *([chunks] if chunks else [])]
    if settings["enable_checkpointing"] is not False and not settings["fast_dev_run"]:
        last = LastCheckpoint()
        callbacks += [Inside(last, draws, save_every_n_steps), best or BestCheckpoint(), last]
    elif save_every_n_steps is not None:
        remedy = "leave out --enable_checkpointing, --fast_dev_run"
        raise InputError(f"--save_every_n_steps: this run saves nothing; {remedy}")
    # The loggers come once all else is known to be right: a mistake leaves no folder.
    changed: dict[str, Any] = {"logger": bool(settings["fast_dev_run"])}
    if settings["max_epochs"] is None and settings["max_steps"] == -1:
        changed["max_epochs"] = -1  # a callback of the model's may say when to stop
    trainer = make_trainer(settings, (*callbacks, Lean()), **changed)
    if chunks:
        refuse_what_needs_single_batches(trainer, model, chunks)
    return trainer
