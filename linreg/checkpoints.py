"""Checkpoints that can be trusted: written whole or not at all, read without running code."""

import importlib
import io
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from linreg.allowed import check_allowed
from linreg.errors import InputError
from linreg.files import write_whole
from linreg.learning_rate import GOAL
from linreg.model import Regressor
from linreg.run_folder import RunLogger

FORMAT = 1  # of a checkpoint; the next number when an older linreg could not read it


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a checkpoint of this template, on the CPU and without unpickling code; InputError says what it is not."""
    if "://" in str(path):
        raise InputError(f"{path}: a checkpoint is read from a local file only; download it first")
    if not Path(path).is_file():
        raise InputError(f"{path}: no such checkpoint file; a run leaves best.ckpt and last.ckpt in its checkpoints/")
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken:
            raise InputError(f"{path} is damaged (at {broken}); take another checkpoint of the run")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError) as error:
        raise InputError(f"{path} is no whole checkpoint ({error}); take another one of the run") from None
    except Exception as error:  # torch's UnpicklingError: it holds more than numbers, text, lists and dicts
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} holds objects that are not safe to load ({reason})") from None
    _check_content(path, checkpoint)
    return checkpoint


def _check_content(path: str | os.PathLike[str], checkpoint: Any) -> None:
    """InputError for a file of another program, or of a newer version of this one."""
    kinds = {"columns": dict, "class_path": str, "hyper_parameters": dict, "state_dict": dict}
    if not isinstance(checkpoint, dict) or not all(isinstance(checkpoint.get(k), t) for k, t in kinds.items()):
        raise InputError(f"{path} is no checkpoint of this template")
    if checkpoint.get("format", FORMAT) > FORMAT:
        raise InputError(f"{path} was written by a newer version of this template; update linreg to read it")
    theirs, ours = str(checkpoint.get("pytorch-lightning_version", "0.0")), lightning.__version__
    if [int(n) for n in re.findall(r"\d+", theirs)[:2]] > [int(n) for n in re.findall(r"\d+", ours)[:2]]:
        raise InputError(f"{path} was written by Lightning {theirs}, and this is {ours}; update lightning to read it")


def load_model(path: str | os.PathLike[str]) -> Regressor:
    """The trained model of a checkpoint, whichever its class, ready to predict in the data's units."""
    class_path = read_checkpoint(path)["class_path"]
    check_allowed(class_path, str(path))
    module, _, name = class_path.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"{path} holds a {class_path}, which cannot be imported from here: {error}") from None
    if not issubclass(cls, Regressor):
        raise InputError(f"{path} holds a {class_path}, which is no linreg.Regressor")
    return cls.load_from_checkpoint(path, map_location="cpu", weights_only=True)


def check_names(callbacks: list[Callback]) -> None:
    """InputError if a checkpoint of the user's own would be written outside of the run's folder."""
    for callback in callbacks:
        if isinstance(callback, ModelCheckpoint):
            name = Path(callback.filename or "")
            if callback.dirpath or name.is_absolute() or ".." in name.parts or not str(name).isprintable():
                raise InputError(
                    f"a ModelCheckpoint with dirpath={callback.dirpath!r}, filename={callback.filename!r}: checkpoints "
                    "lie in the run's own folder; give a plain filename, and no dirpath"
                )


class CheckpointFile(TorchCheckpointIO):
    """Makes a checkpoint in memory before it touches the disk, and loads none that holds code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        buffer = io.BytesIO()
        torch.save(checkpoint | {"format": FORMAT}, buffer)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, buffer.getbuffer())

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return read_checkpoint(path)


class LastCheckpoint(ModelCheckpoint):
    """``last.ckpt``: where the run stands, after every epoch."""

    on_train_batch_end = Callback.on_train_batch_end  # nothing to do between two steps

    def __init__(self) -> None:
        # No monitor: with one, `save_last` writes only when the best improves.
        super().__init__(filename="last", save_on_train_epoch_end=True, enable_version_counter=False)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning logs the epoch after this; a kill in between would leave a hole in the curves of the resumed run.
        if isinstance(trainer.logger, RunLogger):
            values = {tag: float(v) for tag, v in trainer.callback_metrics.items() if not tag.endswith("/val")}
            trainer.logger.log_metrics(values, trainer.global_step - 1)
            trainer.logger.save()
        super().on_train_epoch_end(trainer, pl_module)


class BestCheckpoint(ModelCheckpoint):
    """``best.ckpt``: the lowest validation loss (the lowest training loss if there are no validation rows).

    Epochs of a linear model compete only among those that are as near to the exact optimum: within 0.1 % before within
    1 % before all others. On a small table an early epoch can have the lowest validation loss by chance, long before
    the training is done.
    """

    on_train_batch_end = Callback.on_train_batch_end  # nothing to do between two steps

    def __init__(self) -> None:
        # At an epoch's end, from where a run can go on exactly; Lightning's own moment is within it.
        when = {"save_on_train_epoch_end": True, "enable_version_counter": False}
        super().__init__(filename="best", monitor="loss/val", **when)
        self.rank = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if not trainer.enable_validation:  # num_val_batches is still 0 here if the first epoch has no validation
            self.monitor = "loss/train"

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        is_new = not (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1)
        if self.monitor == "loss/train" or is_new:
            super().on_train_epoch_end(trainer, pl_module)

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        excess = trainer.lightning_module.excess_mse()
        rank = 0 if excess is None else sum(abs(excess) < goal for goal in (GOAL, GOAL / 10))
        if rank == self.rank:
            return super().check_monitor_top_k(trainer, current)
        self.rank = max(rank, self.rank)
        return rank == self.rank

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"rank": self.rank}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rank = state_dict.get("rank", 0)
        super().load_state_dict(state_dict)
        self.current_score = state_dict["current_score"]  # Lightning saves it, and forgets it
