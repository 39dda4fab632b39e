"""What watches a run: the yardstick of the exact solution, and the divergence guard."""

import math
from typing import Any

from lightning.pytorch import Callback, Trainer

from linreg.errors import RunError
from linreg.regression.console import describe_plan
from linreg.regression.exact.learning_rate import GOAL
from linreg.regression.regressor import Regressor
from linreg.screen import say

TOLERANCE = 1e-4  # a run without max_epochs stops this close to the optimum
OVERTIME_TOLERANCE = GOAL / 10  # and this close once it has had the steps that it was expected to take
DEFAULT_EPOCHS = 100  # of a run whose length nothing else sets
VALIDATIONS = 100  # of such a run, at most twice as many
GPU_STEPS = 64  # between two looks at the loss there: asking for its value makes the GPU wait
DIVERGED = 1e4  # times the loss of predicting the mean


class Yardstick(Callback):
    """Holds every epoch against the exact solution, and ends a run without max_epochs once it is reached."""

    def __init__(self) -> None:
        self.may_stop = False

    def on_fit_start(self, trainer: Trainer, pl_module: Regressor) -> None:
        plan = pl_module.plan
        steps_per_epoch = len(trainer.datamodule.train_dataloader())
        self.may_stop = trainer.max_epochs == -1 and trainer.max_steps == -1
        if self.may_stop:
            trainer.fit_loop.max_epochs = math.ceil(plan.most_steps / steps_per_epoch) if plan else DEFAULT_EPOCHS
            if trainer.check_val_every_n_epoch == 1:  # of thousands of epochs of a step each, a hundred say enough
                trainer.check_val_every_n_epoch = max(trainer.max_epochs // VALIDATIONS, 1)
        if trainer.is_global_zero:
            say(describe_plan(pl_module, steps_per_epoch, trainer.max_epochs))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Regressor) -> None:
        values = {"lr": trainer.optimizers[0].param_groups[0]["lr"]}
        if (summary := pl_module.summary) is not None:
            values["loss/exact"] = summary.mse(summary.weight(pl_module.weight_decay)).mean().float()
        pl_module.log_dict(values, sync_dist=True)
        excess = pl_module.excess_mse()
        if excess is None:
            return
        pl_module.log("excess_mse/train", excess, prog_bar=True, sync_dist=True)
        pl_module.log("weight_error/train", pl_module.weight_error(), sync_dist=True)
        overtime = pl_module.plan is not None and trainer.global_step >= pl_module.plan.steps
        if self.may_stop and abs(excess) < (OVERTIME_TOLERANCE if overtime else TOLERANCE):
            trainer.should_stop = True


class DivergenceGuard(Callback):
    """Stops a run at the first step whose loss is not finite, or 10,000 times that of predicting the mean.

    On a GPU it looks at the epoch's mean loss so far, every 64 steps.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Regressor, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not outputs["loss"].is_cuda:
            self._check(trainer, pl_module, outputs["loss"].item())
        elif batch_idx % GPU_STEPS == 0:
            self.on_train_epoch_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Regressor) -> None:
        self._check(trainer, pl_module, float(pl_module.epoch_loss / pl_module.epoch_rows))

    def _check(self, trainer: Trainer, model: Regressor, loss: float) -> None:
        if not loss < DIVERGED:
            optimizer = trainer.optimizers[0].param_groups[0]
            remedy = "try a tenth of it"
            if model.plan is not None:
                remedy = f"all rows at once diverge above {model.plan.limit:.3g}; without --model.lr it is chosen"
            raise RunError(
                f"the training diverged: loss {loss:.3g} in epoch {trainer.current_epoch}, step {trainer.global_step}, "
                f"at lr {optimizer['lr']:.3g}; {remedy}. {_last_good(trainer)}"
            )


def _last_good(trainer: Trainer) -> str:
    paths = [callback.best_model_path for callback in trainer.checkpoint_callbacks if callback.best_model_path]
    return f"The best checkpoint so far is {paths[0]}" if paths else "There is no checkpoint yet"
