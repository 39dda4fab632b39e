"""Lightning's Trainer as each subcommand needs it: with the template's callbacks, and without idle ones."""

import os
import sys
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar

from linreg.errors import InputError, given
from linreg.regression.exact.baseline import DivergenceGuard, Yardstick
from linreg.regression.prediction import PredictionWriter
from linreg.regression.regressor import Regressor
from linreg.runs.checkpoint_file import CheckpointFile
from linreg.runs.checkpoints import BestCheckpoint, LastCheckpoint, check_names
from linreg.runs.folder import RunRecord
from linreg.runs.restored import Restored
from linreg.stack.chunks import Chunks, refuse_what_needs_single_batches
from linreg.stack.stopping import StopBetweenBatches

BAR_STEPS = 50  # between two drawings of the progress bar: one takes 55 us, a tenth of a step
LARGEST = 2**53  # that a flag may say
LEAST = {  # what Lightning would divide by, or wait for, without a word
    **dict.fromkeys(("accumulate_grad_batches", "check_val_every_n_epoch"), 1),
    **dict.fromkeys(("log_every_n_steps", "reload_dataloaders_every_n_epochs", "min_epochs", "min_steps"), 0),
}
STEP_HOOKS = ("on_train_batch_start", "on_before_zero_grad", "on_before_backward", "on_after_backward")
STEP_HOOKS += ("on_before_optimizer_step", "on_train_batch_end")


def make_trainer(settings: dict[str, Any], callbacks: tuple[Callback, ...] = (), **changed: Any) -> Trainer:
    """A Trainer that writes whole checkpoints and, on a terminal, draws a progress bar.

    Args:
        settings: all of the Trainer's flags.
        callbacks: to add to those of the settings.
        **changed: flags that beat the settings.
    """
    settings = settings | changed
    added = [*as_list(settings["callbacks"]), *callbacks]
    settings["plugins"] = [*as_list(settings["plugins"]), CheckpointFile()]
    if settings["enable_progress_bar"] is None:
        settings["enable_progress_bar"] = sys.stdout.isatty()
    if settings["enable_progress_bar"] and not any(isinstance(callback, ProgressBar) for callback in added):
        added.append(TQDMProgressBar(refresh_rate=BAR_STEPS))
    if settings["accelerator"] == "auto" and torch.backends.mps.is_available():
        settings["accelerator"] = "cpu"  # Apple's GPU has no float64, which standardization needs
    check_flags(settings)
    with given("the flags of the Trainer"):
        return Trainer(**settings | {"callbacks": added})


def as_list(value: Any) -> list[Any]:
    """What Lightning takes as one, as several or as none of them."""
    return value if isinstance(value, list) else [] if value is None else [value]


def check_flags(settings: dict[str, Any]) -> None:
    """InputError for numbers that the Trainer takes and cannot work with."""
    for name, value in settings.items():
        if isinstance(value, int) and abs(value) > LARGEST:
            raise InputError(f"--{name} {value}: at most {LARGEST:,} is expected")
    for name, least in LEAST.items():
        if settings[name] is not None and settings[name] < least:
            raise InputError(f"--{name} {settings[name]}: at least {least} is expected")
    if settings["val_check_interval"] == 0:
        raise InputError("--val_check_interval 0: a number above 0 is expected")
    devices = settings["devices"]
    if isinstance(devices, int | str) and str(devices).isdecimal():
        most = max(os.cpu_count() or 1, torch.cuda.device_count())
        if int(str(devices)[:9]) > most:
            raise InputError(f"--devices {devices}: this machine has {most}, and a process for each is started")
    if settings["num_nodes"] != 1:
        raise InputError(f"--num_nodes {settings['num_nodes']}: several machines are not supported yet; leave it out")


def make_fitter(settings: dict[str, Any], model: Regressor, config: str, chunks: Chunks | None = None) -> Trainer:
    """A Trainer that holds the training against the exact solution, guards it, and saves where it stands.

    Args:
        settings: all of the Trainer's flags.
        model: to be trained.
        config: the resolved config, for the record.
        chunks: if several mini-batches share a step.
    """
    check_names(as_list(settings["callbacks"]))
    callbacks: list[Callback] = [StopBetweenBatches(), Restored(), Yardstick()]
    callbacks += [DivergenceGuard(), RunRecord(config)]
    if settings["enable_checkpointing"] is not False and not settings["fast_dev_run"]:
        callbacks += [BestCheckpoint(), LastCheckpoint()]
    changed: dict[str, Any] = {}
    if settings["logger"] in (None, True):
        changed["logger"] = False  # until all else is known to be right: a mistake leaves no folder
    if settings["max_epochs"] is None and settings["max_steps"] == -1:
        changed["max_epochs"] = -1  # the yardstick says when to stop
    trainer = make_trainer(settings, (*callbacks, *([chunks] if chunks else [])), **changed)
    if chunks is not None:
        refuse_what_needs_single_batches(trainer, model, chunks.formula)
    spare_idle_hooks(trainer, model)
    return trainer


def make_predictor(settings: dict[str, Any], output: str) -> Trainer:
    """A Trainer that writes predictions to a file."""
    one = {"devices": 1}  # rows are written in the order in which they are read
    return make_trainer(settings, (PredictionWriter(output),), logger=False, enable_checkpointing=False, **one)


def spare_idle_hooks(trainer: Trainer, model: LightningModule) -> None:
    """Takes the hooks that do nothing out of a training step, where Lightning's ado about each costs 3 us."""
    for owner, plain in [(model, LightningModule), *((callback, Callback) for callback in trainer.callbacks)]:
        for name in STEP_HOOKS:
            if getattr(type(owner), name) is getattr(plain, name) and name not in vars(owner):
                setattr(owner, name, None)
