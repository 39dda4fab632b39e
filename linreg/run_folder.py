"""A run's folder, ``runs/NAME/version_N``: its number, its config, and its TensorBoard events."""

import os
import re
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch.utils.tensorboard.summary import hparams

from linreg.errors import InputError, RunError
from linreg.files import write_whole

ROOT = Path("runs")
RUN_FOLDER = "LINREG_RUN_FOLDER"  # an environment variable
HPARAMS_METRICS = ["excess_mse/train", "loss/val", "rmse/test", "r2/test"]  # the HParams tab shows the first one only


def new_run_folder(name: str) -> Path:
    """Makes ``runs/NAME/version_N`` with the first N that is free; two runs started at once get two folders."""
    if not re.fullmatch(r"\w[\w. -]*", name):
        raise InputError(f"--name {name!r}: letters, digits, '.', '_', '-' and spaces are expected, a letter first")
    try:
        (ROOT / name).mkdir(parents=True, exist_ok=True)
        taken = [int(path.name[8:]) for path in (ROOT / name).glob("version_*") if path.name[8:].isdecimal()]
        number = max(taken, default=-1) + 1
        while True:
            try:
                folder = ROOT / name / f"version_{number}"
                folder.mkdir()
                return folder
            except FileExistsError:
                number += 1
    except OSError as error:
        raise RunError(f"{ROOT / name}: a folder for the run cannot be made there: {error.strerror}") from None


class RunLogger(TensorBoardLogger):
    """Writes the curves to a run's folder, under the tags ``metric/stage`` and nothing else.

    Args:
        folder: the run's folder.
        purge_step: on resume, the step from which on older events are void.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        root, name, version = folder.parents[1], folder.parent.name, folder.name
        number = int(version[8:]) if re.fullmatch(r"version_\d+", version) else version
        super().__init__(root, name, number, default_hp_metric=False, purge_step=purge_step)
        self.written: dict[str, int | None] = {}  # the newest step of each tag

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        new = {tag: value for tag, value in metrics.items() if tag != "epoch" and self.written.get(tag, -1) != step}
        self.written.update(dict.fromkeys(new, step))
        super().log_metrics(new, step)

    @rank_zero_only
    def log_start(self, settings: dict[str, Any], metrics: list[str]) -> None:
        """Declares the HParams table, whose metrics TensorBoard fills in by itself, and the chart of all losses."""
        writer = self.experiment
        for summary in hparams(settings, dict.fromkeys(metrics, 0)):
            writer.file_writer.add_summary(summary)
        chart = ["Multiline", ["loss/train", "loss/val", "loss/exact"]]
        writer.add_custom_scalars({"loss": {"training, validation, exact solution": chart}})

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Lightning's own call; ``log_start`` has what is worth logging."""

    @rank_zero_only
    def save(self) -> None:
        self.experiment.flush()  # and no hparams.yaml beside config.yaml


def open_run(name: str, ckpt_path: str | None, checkpoint: dict[str, Any] | None) -> RunLogger:
    """The logger of a new run, or of the one that a checkpoint belongs to if it lies in its run's folder."""
    if ckpt_path and checkpoint and Path(ckpt_path).parent.name == "checkpoints":
        return RunLogger(Path(ckpt_path).parents[1], purge_step=checkpoint["global_step"])
    if rank_zero_only.rank == 0:  # the processes that Lightning is about to start for --devices take it from here
        os.environ[RUN_FOLDER] = str(new_run_folder(name))
    elif RUN_FOLDER not in os.environ:
        raise InputError("several processes are started with --devices N, not each by itself")
    return RunLogger(Path(os.environ[RUN_FOLDER]))


class RunRecord(Callback):
    """Writes config.yaml beside the checkpoints, and into each of them.

    Args:
        config: the resolved config, as YAML.
    """

    def __init__(self, config: str) -> None:
        self.config = config

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if isinstance(trainer.logger, RunLogger) and trainer.is_global_zero:
            write_whole(Path(trainer.logger.log_dir, "config.yaml"), self.config.encode())
            optimizer = trainer.optimizers[0]
            settings = {"batch_size": trainer.datamodule.batch_size, "optimizer": type(optimizer).__name__}
            settings |= {k: optimizer.param_groups[0].get(k, 0.0) for k in ("lr", "momentum", "weight_decay")}
            trainer.logger.log_start(settings, HPARAMS_METRICS)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        logger = trainer.logger
        if (
            isinstance(logger, RunLogger)
            and trainer.is_global_zero
            and not Path(logger.log_dir, "config.yaml").exists()
        ):
            raise RunError(f"{logger.log_dir} has vanished, and the run's checkpoints with it; start a new run")
        checkpoint["config"] = self.config
