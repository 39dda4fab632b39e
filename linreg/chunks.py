"""An opt-in shortcut: many mini-batches in one step of Lightning's loop, which costs more than a small model itself.

Each mini-batch still has its own gradient, optimizer step and scheduler step, and a run means what it meant without.
Only rows are gathered and standardized together, and the hooks between two mini-batches are left out.
"""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn.functional import mse_loss

from linreg.callbacks import DIVERGED
from linreg.errors import InputError
from linreg.linear_regression import LinearRegression
from linreg.loader import TensorBatches
from linreg.model import Regressor

FLAGS: dict[str, tuple[Any, ...]] = {  # flags that count or touch single mini-batches, and what they can be here
    "accumulate_grad_batches": (1,),
    "fast_dev_run": (False,),
    "gradient_clip_val": (None,),
    "limit_train_batches": (1.0,),
    "log_every_n_steps": (0,),
    "max_steps": (-1,),
    "num_devices": (1,),
    "overfit_batches": (0.0,),
    "precision": ("32-true", "64-true"),
    "val_check_interval": (1.0,),
}
HOOKS = ["on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step"]
METHODS = ["backward", "configure_gradient_clipping", "lr_scheduler_step", "optimizer_step", "optimizer_zero_grad"]


class Chunks(Callback):
    """Runs several mini-batches of any Regressor in each step of Lightning's loop.

    Args:
        size: mini-batches a step, at least 1.
        formula: whether a LinearRegression with SGD takes its gradient from the lecture's formula instead of autograd.

    Raises:
        InputError: for a flag, a hook or a loader that needs every mini-batch by itself.
    """

    def __init__(self, size: int, formula: bool = False) -> None:
        if size < 1:
            raise InputError(f"--chunk {size}: at least 1 mini-batch is expected")
        self.size, self.formula, self.batch_size = size, formula, 0

    def on_fit_start(self, trainer: Trainer, pl_module: Regressor) -> None:
        self._refuse_what_needs_single_batches(trainer, pl_module)
        self.trainer, self.model = trainer, pl_module
        one_by_one = trainer.datamodule.train_dataloader

        def together() -> TensorBatches:
            batches = one_by_one()
            if not isinstance(batches, TensorBatches):
                raise InputError(f"--chunk needs TensorBatches, the data module's own loader, not a {type(batches)}")
            self.batch_size = batches.batch_size
            batches.batch_size *= self.size  # of the same rows in the same order
            return batches

        trainer.datamodule.train_dataloader = together
        trainer.fit_loop.epoch_loop.automatic_optimization.run = self._run

    def _refuse_what_needs_single_batches(self, trainer: Trainer, model: Regressor) -> None:
        for flag, values in FLAGS.items():
            if getattr(trainer, flag) not in values:
                raise InputError(f"--chunk cannot honour --{flag.removeprefix('num_')} {getattr(trainer, flag)}")
        for owner, names, plain in (
            (model, [*HOOKS, *METHODS], LightningModule),
            (model, ["loss", "training_step"], Regressor),
            *((callback, HOOKS, Callback) for callback in trainer.callbacks),
        ):
            for name in names:
                if getattr(type(owner), name) is not getattr(plain, name):
                    raise InputError(f"--chunk cannot honour {type(owner).__name__}.{name}")
        if any(callback._every_n_train_steps for callback in trainer.checkpoint_callbacks):
            raise InputError("--chunk cannot honour a checkpoint every_n_train_steps")

    def _run(self, optimizer: torch.optim.Optimizer, batch_idx: int, kwargs: dict[str, Any]) -> dict[str, Tensor]:
        """Takes the place of Lightning's step for one batch."""
        model, (x, y), loop = self.model, kwargs["batch"], self.trainer.fit_loop.epoch_loop
        schedulers = [config.scheduler for config in self.trainer.lr_scheduler_configs if config.interval == "step"]
        x, y = model.x_standardizer(x).to(model.dtype), model.y_standardizer(y).to(model.dtype)
        step = self._step(optimizer)
        losses: list[Tensor] = []
        for batch in zip(x.split(self.batch_size), y.split(self.batch_size), strict=True):
            for scheduler in schedulers if losses else []:  # Lightning takes the last of these steps itself
                scheduler.step()
            losses.append(step(*batch))
            model.epoch_loss.add_(losses[-1], alpha=len(batch[0]))
        model.epoch_rows += len(x)
        bad = (~(torch.stack(losses) < DIVERGED)).nonzero()
        last = int(bad[0]) if len(bad) else len(losses) - 1  # the divergence guard shall name the first bad step
        steps = loop.automatic_optimization.optim_progress.optimizer.step
        for count in (steps.total, steps.current):
            count.ready += last + 1
            count.completed += last + 1
        loop._batches_that_stepped += last  # and one by Lightning itself
        return {"loss": losses[last]}

    def _step(self, optimizer: torch.optim.Optimizer) -> Callable[[Tensor, Tensor], Tensor]:
        model = self.model
        if self.formula:
            if not isinstance(model, LinearRegression) or type(optimizer) is not torch.optim.SGD:
                raise InputError("--formula is the gradient of a LinearRegression with SGD; leave it out")
            return lambda x, y: descend(model.hypothesis, optimizer, x, y)

        def step(x: Tensor, y: Tensor) -> Tensor:
            loss = model.standardized_loss(x, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step


@torch.no_grad()
def descend(hypothesis: torch.nn.Linear, optimizer: torch.optim.SGD, x: Tensor, y: Tensor) -> Tensor:
    """One step down the lecture's gradient ``2/m sum (W x + b - y) x``; returns the loss before it.

    Args:
        hypothesis: W and b, changed in place.
        optimizer: SGD on them, for its settings and its momentum buffers.
        x: (m, D), standardized.
        y: (m, T), standardized.
    """
    y_hat = hypothesis(x)
    loss = mse_loss(y_hat, y)
    residual = y_hat.sub_(y).mul_(2 / y.numel())
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            gradient = residual.T @ x if parameter is hypothesis.weight else residual.sum(0)
            if group["weight_decay"]:
                gradient.add_(parameter, alpha=group["weight_decay"])
            if group["momentum"]:
                state = optimizer.state[parameter]
                if state.get("momentum_buffer") is None:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                velocity = state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
                gradient = gradient.add_(velocity, alpha=group["momentum"]) if group["nesterov"] else velocity
            parameter.sub_(gradient, alpha=group["lr"])
    return loss
