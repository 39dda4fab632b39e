"""The record of a run, config.yaml: written once it is known that the run can go on, and into each checkpoint."""

import os
import shlex
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from linreg.optimizers import describe_training
from linreg.runs.folder import folder_of, mark_of
from linreg.runs.loggers import Curves
from linreg.runs.recorded import typed_only
from linreg.runs.resume import check_unfinished
from linreg.safety.allowed import check_plain, python_numbers
from linreg.safety.checkpoint_file import CheckpointFile
from linreg.safety.safe_yaml import read_config
from linreg.system.atomic import atomic_write
from linreg.system.errors import RunError
from linreg.system.screen import say


class RunRecord(Callback):
    """Writes the resolved config, as YAML, beside the checkpoints, and into each of them."""

    def __init__(self, config: str) -> None:
        self.config = config
        self.is_written = False
        self.resume_flags = ""  # besides --ckpt_path
        self.before: str | None = None  # the config of the checkpoint that the run goes on from

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.before = checkpoint.get("config", "")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        folder = folder_of(trainer)
        if folder and isinstance(files := trainer.strategy.checkpoint_io, CheckpointFile):
            files.folder = folder.path
        for callback in trainer.checkpoint_callbacks:  # which would ask the first logger
            if folder and isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(folder.path / "checkpoints")
        for name, value in pl_module.hparams.items():
            if not isinstance(value, Tensor):
                check_plain(name, value, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and not hasattr(pl_module, "report"):  # which says more of it
            length = trainer.num_training_batches
            say(describe_training(pl_module, trainer.optimizers, length, trainer.max_epochs))
        self._write(trainer, pl_module)

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Once all that a checkpoint holds is restored, so that nothing is replaced by a run that cannot go on."""
        folder, was_written, self.is_written = folder_of(trainer), self.is_written, True
        if folder is None or not trainer.is_global_zero or was_written:
            return
        path = folder.path / "config.yaml"
        if typed_only(read_config(self.config, "config.yaml")):
            self.resume_flags = f" --config {shlex.quote(os.path.relpath(path))}"
        atomic_write(path, f"# run {folder.run}\n{self.config}".encode())
        optimizer, size = trainer.optimizers[0], mini_batch_size(trainer.train_dataloader)
        plain = {k: v for k, v in pl_module.hparams.items() if type(v) in (int, float, str) and k[0] != "_"}
        settings = plain | {"batch_size": size, "optimizer": type(optimizer).__name__}
        group = optimizer.param_groups[0]
        settings |= {k: group.get(f"initial_{k}", group.get(k, 0.0)) for k in ("lr", "momentum", "weight_decay")}
        data = trainer.datamodule or trainer.train_dataloader  # type: ignore[attr-defined]
        settings |= {"model": type(pl_module).__name__, "data": str(getattr(data, "path", type(data).__name__))}
        headlines = (*getattr(pl_module, "headlines", ["loss/val"]), "epochs", "seconds")
        shown = [f"reported/{tag.replace('/', '_')}" for tag in headlines]
        for logger in trainer.loggers:
            if isinstance(logger, Curves):
                logger.log_start(settings, shown)
            else:
                logger.log_hyperparams(settings)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.before is not None and not self.is_written:  # there was no epoch left to train
            check_unfinished(self.before, self.config, trainer)
        self._write(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        folder = folder_of(trainer)
        if folder is not None and trainer.is_global_zero:
            if self.is_written and mark_of(folder.path) != folder.run:
                raise RunError(f"{folder.path} has vanished, and the run's checkpoints with it; start a new run")
            checkpoint["run"] = folder.run
        checkpoint["config"] = self.config
        known = values_of_epoch(trainer, is_inside=not trainer.fit_loop.epoch_loop._num_ready_batches_reached())
        checkpoint["logged"] = {tag: float(value) for tag, value in known.items() if value.numel() == 1}
        checkpoint["logged"] |= getattr(pl_module, "tables", {})


def values_of_epoch(trainer: Trainer, is_inside: bool = False) -> dict[str, Tensor]:
    """What is logged, without the steps' values; inside an epoch the training's means are of the one before."""
    left = logged_by_steps(trainer, is_inside)
    return {tag: value for tag, value in trainer.callback_metrics.items() if tag not in left}


def logged_by_steps(trainer: Trainer, is_inside: bool = False) -> set[str]:
    """The tags that stand for the training's last step alone, or inside an epoch for all that the training logs."""
    loop = trainer.fit_loop.epoch_loop
    trained, validated = ([each.meta for each in of._results.values()] for of in (loop, loop.val_loop))
    steps = [meta for meta in trained if is_inside or not meta.on_epoch]
    tags = {tag for meta in steps for tag in (meta.name, meta.forked_name(True), meta.forked_name(False))}
    return tags - {meta.name for meta in validated + trained * (not is_inside) if meta.on_epoch}


def mini_batch_size(loader: Any) -> int | None:
    """The rows of a step; a loader may give several mini-batches at once."""
    return python_numbers(getattr(loader, "mini_batch_size", getattr(loader, "batch_size", None)))
