"""What an epoch draws: the order of rows, dropout, augmentation."""

import os
import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from linreg.errors import InputError


class Draws(Callback):
    """Seeds every generator anew at an epoch's beginning, so that its draws are a function of seed, epoch and process.

    Nothing but the number of an epoch has to be saved then for a run to go on with the draws that it would have had;
    those of a ``DataLoader(shuffle=True)`` and of its workers are among them.
    """

    seed: int | None = None  # of the run; where none was set, what torch had begun with
    is_resumed = False

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.is_resumed, self.seed = True, checkpoint.get("seed")
        if self.seed is not None and not (type(self.seed) is int and 0 <= self.seed < 1 << 64):
            raise InputError("the checkpoint's 'seed' is none; resume from another one")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["seed"] = self.seed

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        typed = os.environ.get("PL_GLOBAL_SEED")
        if typed is not None or self.seed is None:
            self.seed = torch.initial_seed() if typed is None else int(typed)
        begin = pl_module.on_train_epoch_start

        def begin_with_loaders() -> None:
            begin()
            self.on_train_epoch_start(trainer, pl_module)
            if self.is_resumed:  # the iterator of its first epoch was made before; those of the others are made next
                iter(trainer.fit_loop._data_fetcher)  # type: ignore[arg-type]
                self.is_resumed = False

        vars(pl_module)["on_train_epoch_start"] = begin_with_loaders

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seed = ((self.seed or 0) * 1_000_003 + trainer.current_epoch + (trainer.global_rank << 20)) % (1 << 63)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed keeps a list for GPUs that are not in use
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        vars(pl_module).pop("on_train_epoch_start", None)
