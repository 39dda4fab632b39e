"""An opt-in shortcut: many mini-batches in one step of Lightning's loop, which costs more than a small model itself.

Each mini-batch still has its own training step, gradient, optimizer step and scheduler step, and a run means what it
meant without. Only rows are gathered together, and what could happen between two mini-batches is refused.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from linreg.module import by_name
from linreg.system.errors import InputError

FLAGS: dict[str, Any] = {
    "accumulate_grad_batches": 1,
    "gradient_clip_val": None,
    "precision": "32-true",
    "world_size": 1,  # on however many machines
}
FLAGS |= {"limit_train_batches": 1.0, "max_steps": -1, "overfit_batches": 0.0, "val_check_interval": 1.0}
FLAGS["fast_dev_run"] = False
SETS = {"fast_dev_run": ("limit_train_batches", "max_steps"), "overfit_batches": ("limit_train_batches",)}  # by itself
BETWEEN = ("on_train_batch_start", "on_train_batch_end")  # hooks of a callback of one's own, by whatever they may do
UNFIT = ("GradientAccumulationScheduler", "WeightAveraging", "EMAWeightAveraging")  # callbacks of Lightning's
HOOKS = ["on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step"]
METHODS = ["backward", "configure_gradient_clipping", "lr_scheduler_step", "optimizer_step", "optimizer_zero_grad"]
Step = Callable[[Any, int], dict[str, Tensor]]  # from a batch and its number to the losses before the step


class Chunks(Callback):
    """Runs several mini-batches in each step of Lightning's loop.

    Args:
        size: mini-batches a step, at least 1; None stands for 1 where only the formula was asked for.
        formula: whether the model's ``formula_step`` takes the place of its training step and of autograd.
    """

    def __init__(self, size: int | None, formula: bool = False) -> None:
        if size is not None and size < 1:
            raise InputError(f"--chunk {size}: at least 1 mini-batch is expected")
        self.size, self.formula = size or 1, formula
        self.flag = "--formula" if size is None else "--chunk"  # what was typed

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        model: Any = pl_module
        refuse_schedules_of_single_batches(trainer, self.flag)
        if self.formula:
            model.formula_step(trainer.optimizers[0])  # which says what it is not for
        self.trainer, self.model = trainer, model
        data: Any = getattr(trainer, "datamodule")  # noqa: B009
        self.one_by_one, data.train_dataloader = data.train_dataloader, self._together
        trainer.fit_loop._combined_loader = None  # a schedule in shares of the run has counted single batches
        trainer.fit_loop.epoch_loop.automatic_optimization.run = self._run  # type: ignore[method-assign]
        self.end_batch, vars(model)["on_train_batch_end"] = model.on_train_batch_end, None  # of each, not of a chunk

    def _together(self) -> Any:
        batches = self.one_by_one()
        if not hasattr(batches, "batch_size") or isinstance(batches, torch.utils.data.DataLoader):
            raise InputError(f"{self.flag} needs the data module's own TensorBatches, not a {type(batches).__name__}")
        self.batch_size = batches.mini_batch_size = batches.batch_size
        batches.batch_size *= min(self.size, max(len(batches) - 1, 1))  # the same order; all rows would not be shuffled
        return batches

    def _run(self, optimizer: torch.optim.Optimizer, batch_idx: int, kwargs: dict[str, Any]) -> dict[str, Tensor]:
        """Takes the place of Lightning's step for one batch."""
        model, loop, batch = self.model, self.trainer.fit_loop.epoch_loop, kwargs["batch"]
        schedulers = [config.scheduler for config in self.trainer.lr_scheduler_configs if config.interval == "step"]
        step = self._by_formula(optimizer) if self.formula else backpropagation(model, optimizer)
        losses: list[Tensor] = []
        for part in zip(*(tensor.split(self.batch_size) for tensor in batch), strict=True):
            for scheduler in schedulers if losses else []:  # Lightning takes the last of these steps itself
                scheduler.step()
            outputs = step(getattr(batch, "_make", tuple)(part), batch_idx)
            losses.append(outputs["loss"])
            self.end_batch(outputs, part, batch_idx)
        bad = (~(torch.stack(losses) < getattr(model, "loss_limit", math.inf))).nonzero()
        last = int(bad[0]) if len(bad) else len(losses) - 1  # the divergence guard shall name the first bad step
        steps = loop.automatic_optimization.optim_progress.optimizer.step
        for count in (steps.total, steps.current):
            count.ready += last + 1
            count.completed += last + 1
        loop._batches_that_stepped += last  # and one by Lightning itself
        return {"loss": losses[last]}

    def _by_formula(self, optimizer: torch.optim.Optimizer) -> Step:
        optimizer._opt_called = True  # type: ignore[attr-defined]  # or a scheduler warns that no step was taken
        step, model = self.model.formula_step(optimizer), self.model
        return lambda batch, _: {"loss": step(*model.standardize(batch))}


def refuse_what_needs_single_batches(trainer: Trainer, model: LightningModule, chunks: Chunks) -> None:
    """InputError for what a chunk cannot honour: a flag, a hook, a checkpoint within an epoch."""
    if chunks.formula and not hasattr(model, "formula_step"):
        raise InputError("--formula is the gradient of a LinearRegression for plain SGD; leave it out")
    single = [flag for flag in ("limit_train_batches", "val_check_interval") if type(getattr(trainer, flag)) is int]
    flags = [flag for flag, value in FLAGS.items() if getattr(trainer, flag) != value or flag in single]  # 1 is not 1.0
    flags = [flag for flag in flags if not any(flag in SETS.get(other, ()) for other in flags)]
    wrong = [f"--{flag.replace('world_size', 'devices')}" for flag in flags]
    watched: list[tuple[Any, type, list[str]]] = [(model, LightningModule, [*HOOKS, *METHODS])]
    for callback in getattr(trainer, "callbacks", []):
        is_own = {*BETWEEN} & vars(callback).keys() or not type(callback).__module__.startswith(
            ("linreg.", "lightning.")
        )
        watched.append((callback, Callback, [*HOOKS, *(BETWEEN if is_own else [])]))
        wrong += [type(callback).__name__] * (type(callback).__name__ in UNFIT)
    for owner, plain, names in watched:
        changed = [n for n in names if n in vars(owner) or getattr(type(owner), n) is not getattr(plain, n)]
        wrong += [f"{type(owner).__name__}.{name}" for name in changed]
    wrong += ["every_n_train_steps" for c in trainer.checkpoint_callbacks if getattr(c, "_every_n_train_steps", 0)]
    wrong += ["manual optimization"] * (not model.automatic_optimization)
    if wrong:
        raise InputError(f"{chunks.flag} cannot honour {', '.join(wrong)}; leave out one or the other")


def refuse_schedules_of_single_batches(trainer: Trainer, flag: str) -> None:
    """InputError for a schedule, or for optimizers, whose steps a chunk cannot take between its mini-batches."""
    wrong = ["several optimizers"] * (len(trainer.optimizers) != 1)
    wrong += ["LBFGS"] * any(isinstance(each, torch.optim.LBFGS) for each in trainer.optimizers)
    for config in trainer.lr_scheduler_configs:
        if config.interval == "step":
            wrong += ["the scheduler's frequency"] * (config.frequency != 1)
            wrong += ["ReduceLROnPlateau in each step"] * config.reduce_on_plateau
    if wrong:
        raise InputError(f"{flag} cannot honour {', '.join(wrong)}; leave out one or the other")


def backpropagation(model: LightningModule, optimizer: torch.optim.Optimizer) -> Step:
    """The step that Lightning takes: the model's own, gradients from autograd, then the optimizer."""

    def step(batch: Any, batch_idx: int) -> dict[str, Tensor]:
        losses = by_name(model.training_step(batch, batch_idx))
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        return {name: loss.detach() for name, loss in losses.items()}

    return step
