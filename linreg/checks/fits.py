"""What a short training of a copy needs: to be alone with a seed, to end soon, to write nothing."""

import contextlib
import io
import logging
import os
import random
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, LearningRateMonitor, ProgressBar
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from linreg.stack.draws import SEED

UNNEEDED = (Checkpoint, EarlyStopping, LearningRateMonitor, ProgressBar)  # callbacks that write, stop or draw
RATES = ("lr", "initial_lr", "max_lr", "min_lr")
ALWAYS: dict[str, Any] = {"devices": 1, "num_nodes": 1, "strategy": "auto", "logger": False, "fast_dev_run": False}
ALWAYS |= {"enable_progress_bar": False, "profiler": None, "min_epochs": None, "min_steps": None, "max_steps": -1}
ALWAYS |= {"limit_val_batches": 0, "overfit_batches": 0.0, "check_val_every_n_epoch": 1, "val_check_interval": 1.0}


@contextlib.contextmanager
def alone(seed: int = 0) -> Iterator[None]:
    """Draws from a seed, prints nothing, and leaves every generator as it was."""
    typed = os.environ.get(SEED)
    with isolate_rng(), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        os.environ[SEED] = str(seed)
        for begin in (random.seed, np.random.seed, torch.manual_seed):
            begin(seed)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
            del os.environ[SEED]
            os.environ.update({} if typed is None else {SEED: typed})


class Nowhere(DummyLogger):
    """Takes whatever a model draws or logs, and writes none of it."""

    save_dir = log_dir = None  # where a model may write by itself


def ignore(*args: Any, **kwargs: Any) -> None:
    """Instead of what a model would do."""


class Probe(Callback):
    """Ends a fit after some steps or epochs, and scales its rates."""

    def __init__(self, steps: int, epochs: int, scale: float) -> None:
        self.steps, self.epochs, self.scale, self.taken = steps, epochs, scale, 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for group in [group for optimizer in trainer.optimizers for group in optimizer.param_groups]:
            group.update({name: group[name] * self.scale for name in RATES if isinstance(group.get(name), float)})
        configs = trainer.lr_scheduler_configs
        if not trainer.limit_val_batches:  # for which a schedule on a plateau would wait
            trainer.strategy.lr_scheduler_configs = [config for config in configs if not config.reduce_on_plateau]
        for config in configs:
            if hasattr(config.scheduler, "base_lrs"):
                config.scheduler.base_lrs = [lr * self.scale for lr in config.scheduler.base_lrs]
        trainer.should_stop = self.steps == 0

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self.taken += 1
        trainer.should_stop |= self.taken == self.steps

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop |= trainer.current_epoch + 1 == self.epochs


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.detach().cpu() for name, value in trainer.lightning_module.state_dict().items()}


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference of two sets of weights."""
    pairs = [(value.double(), other[name].double()) for name, value in one.items() if value.numel()]
    return max((0.0 if torch.equal(a, b) else float((a - b).abs().max()) for a, b in pairs), default=0.0)
