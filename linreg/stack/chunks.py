"""An opt-in shortcut: many mini-batches in one step of Lightning's loop, which costs more than a small model itself.

Each mini-batch still has its own gradient, optimizer step and scheduler step, and a run means what it meant without.
Only rows are gathered together, and what could happen between two mini-batches is left out, or refused.
"""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from linreg.errors import InputError
from linreg.regression.exact.baseline import DIVERGED
from linreg.regression.linear_regression import LinearRegression
from linreg.regression.regressor import Regressor
from linreg.tables.batches import TensorBatches

FLAGS = {"accumulate_grad_batches": 1, "gradient_clip_val": None, "precision": "32-true", "num_devices": 1}
FLAGS |= {"limit_train_batches": 1.0, "max_steps": -1, "overfit_batches": 0.0, "val_check_interval": 1.0}
HOOKS = ["on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step"]
METHODS = ["backward", "configure_gradient_clipping", "lr_scheduler_step", "optimizer_step", "optimizer_zero_grad"]
Step = Callable[[Tensor, Tensor], Tensor]  # from a standardized batch to the loss before the step


class Chunks(Callback):
    """Runs several mini-batches of any Regressor in each step of Lightning's loop.

    Args:
        size: mini-batches a step, at least 1.
        formula: whether a LinearRegression with SGD takes its gradient from the lecture's formula instead of autograd.

    Raises:
        InputError: if the data module has a loader of its own.
    """

    def __init__(self, size: int, formula: bool = False) -> None:
        if size < 1:
            raise InputError(f"--chunk {size}: at least 1 mini-batch is expected")
        self.size, self.formula = size, formula

    def on_fit_start(self, trainer: Trainer, pl_module: Regressor) -> None:
        self.trainer, self.model = trainer, pl_module
        self.one_by_one = trainer.datamodule.train_dataloader
        trainer.datamodule.train_dataloader = self._together
        trainer.fit_loop.epoch_loop.automatic_optimization.run = self._run

    def _together(self) -> TensorBatches:
        batches = self.one_by_one()
        if not isinstance(batches, TensorBatches):
            raise InputError(f"--chunk needs the data module's own TensorBatches, not a {type(batches).__name__}")
        self.batch_size = batches.batch_size
        batches.batch_size *= min(self.size, max(len(batches) - 1, 1))  # the same order; all rows would not be shuffled
        self.in_memory = not batches.mapped and batches.x.device == self.model.device
        if self.in_memory:  # standardized once and for all
            batches.x, batches.y = self.model.standardize((batches.x, batches.y))
        return batches

    def _run(self, optimizer: torch.optim.Optimizer, batch_idx: int, kwargs: dict[str, Any]) -> dict[str, Tensor]:
        """Takes the place of Lightning's step for one batch."""
        model, loop = self.model, self.trainer.fit_loop.epoch_loop
        schedulers = [config.scheduler for config in self.trainer.lr_scheduler_configs if config.interval == "step"]
        x, y = kwargs["batch"] if self.in_memory else model.standardize(kwargs["batch"])
        step = descent(model, optimizer) if self.formula else backpropagation(model, optimizer)
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


def refuse_what_needs_single_batches(trainer: Trainer, model: Regressor, formula: bool) -> None:
    """InputError for what a chunk cannot honour: a flag, a hook, a scheduler, a checkpoint within an epoch."""
    wrong = [f"--{flag.removeprefix('num_')}" for flag, value in FLAGS.items() if getattr(trainer, flag) != value]
    watched = [(model, Regressor, [*HOOKS, *METHODS, "loss", "training_step"])]
    watched += [(callback, Callback, HOOKS) for callback in trainer.callbacks]
    for owner, plain, names in watched:
        wrong += [f"{type(owner).__name__}.{n}" for n in names if getattr(type(owner), n) is not getattr(plain, n)]
    wrong += ["every_n_train_steps" for callback in trainer.checkpoint_callbacks if callback._every_n_train_steps]
    scheduler = model.lr_scheduler if isinstance(model.lr_scheduler, dict) else {}
    if scheduler.get("interval") == "step":
        wrong += ["the scheduler's frequency"] * (scheduler.get("frequency", 1) != 1)
        wrong += ["ReduceLROnPlateau in each step"] * scheduler["class_path"].endswith("Plateau")
    optimizer = model._make_optimizer(1.0, model.momentum)
    odd = any(group.get("dampening") or group.get("maximize") for group in optimizer.param_groups)
    if formula and not (isinstance(model, LinearRegression) and type(optimizer) is torch.optim.SGD and not odd):
        wrong.append("--formula, the gradient of a LinearRegression for plain SGD")
    if wrong:
        raise InputError(f"--chunk cannot honour {', '.join(wrong)}; leave out one or the other")


def backpropagation(model: Regressor, optimizer: torch.optim.Optimizer) -> Step:
    """The step that Lightning takes: gradients from autograd, then the optimizer."""

    def step(x: Tensor, y: Tensor) -> Tensor:
        loss = model.standardized_loss(x, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def descent(model: Regressor, optimizer: torch.optim.Optimizer) -> Step:
    """A step down the lecture's gradient ``2/m sum (W x + b - y) x``, with SGD's settings and momentum buffers."""
    groups = {parameter: group for group in optimizer.param_groups for parameter in group["params"]}
    for parameter in (parameter for parameter, group in groups.items() if group["momentum"]):
        if optimizer.state[parameter].get("momentum_buffer") is None:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    weight, bias = model.hypothesis.weight.detach(), None if model.hypothesis.bias is None else model.hypothesis.bias
    optimizer._opt_called = True  # or a scheduler warns that it was not, since the steps are taken here
    updates = [(p.detach(), optimizer.state.get(p, {}).get("momentum_buffer"), groups[p]) for p in groups]

    def step(x: Tensor, y: Tensor) -> Tensor:
        residual = (x @ weight.T if bias is None else torch.addmm(bias.detach(), x, weight.T)).sub_(y)
        loss = residual.square().mean()
        residual.mul_(2 / y.numel())
        for (parameter, velocity, group), gradient in zip(updates, (residual.T @ x, residual.sum(0)), strict=False):
            if group["weight_decay"]:
                gradient.add_(parameter, alpha=group["weight_decay"])
            if velocity is not None:
                velocity.mul_(group["momentum"]).add_(gradient)
                gradient = gradient.add_(velocity, alpha=group["momentum"]) if group["nesterov"] else velocity
            parameter.sub_(gradient, alpha=group["lr"])
        return loss

    return step
