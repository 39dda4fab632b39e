"""Lightning's costs and habits, each with the way around it and what that saves.

Measured in a step of a small model (32 rows, 8 features) with Lightning 2.6.6: 490 us of a core without all of this,
270 with it. Each steps aside, slower and right, where Lightning or the user has changed what it builds on.
"""

import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.core.hooks import DataHooks
from lightning.pytorch.profilers import PassThroughProfiler
from torch import Tensor, nn

from linreg.report.findings import FirstLoader
from linreg.schedules import check_intervals
from linreg.stack.draws import SEED, generator_states, restore_generators
from linreg.system.screen import say

STEP_HOOKS: tuple[str, ...] = ("on_train_batch_start", "on_before_zero_grad", "on_before_backward", "on_after_backward")
STEP_HOOKS += ("on_before_optimizer_step", "on_train_batch_end")
DATA_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
HOOK_NAME = "_current_fx_name"


class Lean(Callback):
    """Takes out of each training step what costs time and does nothing; ``put_back`` puts it back."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        drop_unused_hooks(trainer, pl_module)
        leave_batches_in_place(trainer, pl_module)
        do_not_profile(trainer)
        remember_signature(pl_module)
        set_hook_names_quickly(type(pl_module))
        logs: Any = trainer._logger_connector  # whose metrics are those that callbacks and schedules go by
        logs._callback_metrics = FirstLoader(logs._callback_metrics)
        for kind in passed_over(pl_module) if trainer.is_global_zero else ():
            say(f"        compile() of a {kind} compiles nothing; call that of a module of your own around it")


@contextmanager
def put_back(trainer: Any, *owners: Any) -> Iterator[None]:
    """Takes away at its end what callbacks of this package have put in the place of methods.

    A model that is made next draws as if the run had not been, and is of no seed.
    """
    owners += (trainer.profiler, trainer.fit_loop.epoch_loop, *trainer.callbacks)
    before = [{*vars(owner)} for owner in owners]
    states = generator_states()
    try:
        yield
    finally:
        restore_generators(states)
        torch.rand(1)  # another run of the same model is another one
        os.environ.pop(SEED, None)
        for owner, names in zip(owners, before, strict=True):
            for name in {*vars(owner)} - names:
                value = vars(owner)[name]
                is_ours = value is None or str(getattr(value, "__module__", "")).startswith("linreg.")
                if is_ours and callable(getattr(type(owner), name, None)):
                    del vars(owner)[name]


def drop_unused_hooks(trainer: Trainer, model: LightningModule) -> None:
    """Hooks that nobody has filled: Lightning's ado about each costs 3 us, and it looks for None first."""
    owners: list[Any] = [(model, LightningModule), *((each, Callback) for each in getattr(trainer, "callbacks", []))]
    for owner, plain in owners:
        for name in STEP_HOOKS:
            if getattr(type(owner), name) is getattr(plain, name) and name not in vars(owner):
                vars(owner)[name] = None


def leave_batches_in_place(trainer: Trainer, model: LightningModule) -> None:
    """The way of a batch to the device that it is on already: three hooks and a search for tensors, 40 us."""
    owners = [each for each in (model, getattr(trainer, "datamodule", None)) if each is not None]
    hooks = [(getattr(each, name), getattr(DataHooks, name)) for each in owners for name in DATA_HOOKS]
    if any(getattr(own, "__func__", None) is not plain for own, plain in hooks):
        return
    transfer = model._apply_batch_transfer_handler

    def transfer_if_needed(batch: Any, device: Any = None, dataloader_idx: int = 0) -> Any:
        if isinstance(batch, tuple) and all(isinstance(part, Tensor) and part.device == device for part in batch):
            return batch
        return transfer(batch, device, dataloader_idx)

    vars(model)["_apply_batch_transfer_handler"] = transfer_if_needed
    vars(model)["_on_before_batch_transfer"] = lambda batch, dataloader_idx: batch


def do_not_profile(trainer: Trainer) -> None:
    """The 17 entries that a step makes in the book of a profiler that keeps none: 30 us."""
    profiler: Any = trainer.profiler  # type: ignore[attr-defined]
    if type(profiler) is PassThroughProfiler:
        nothing = nullcontext()
        vars(profiler)["profile"] = lambda action_name: nothing


def remember_signature(model: LightningModule) -> None:
    """The signature of the training step, which Lightning takes apart in every step: 30 us unless it is at hand."""
    step = getattr(type(model).training_step, "__func__", type(model).training_step)
    if inspect.isfunction(step) and not hasattr(step, "__signature__") and not hasattr(step, "__wrapped__"):
        step.__signature__ = inspect.signature(step)  # type: ignore[attr-defined]


def set_hook_names_quickly(cls: type[LightningModule]) -> None:
    """The name of the hook at work, set 44 times a step: nn.Module's care for its attributes takes 80 us of them."""
    if cls.__setattr__ is not nn.Module.__setattr__:
        return

    def quick(self: nn.Module, name: str, value: Any) -> None:
        if name == HOOK_NAME and (value is None or isinstance(value, str)):
            self.__dict__[name] = value
        else:
            nn.Module.__setattr__(self, name, value)

    cls.__setattr__ = quick  # type: ignore[method-assign]


def passed_over(model: nn.Module) -> set[str]:
    """The kinds of torch's own modules that were told to compile themselves: it passes over their ``forward``."""
    told = [module for module in model.modules() if module._compiled_call_impl is not None]
    return {type(module).__name__ for module in told if type(module).__module__.startswith("torch.nn.")}


class PlateausInTime(Callback):
    """Steps each ReduceLROnPlateau before an epoch's checkpoints are written, at the end of the model's own epoch.

    Lightning does so after it, so that a resumed run lacks an update.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        check_intervals(trainer.lr_scheduler_configs)
        loop, end_epoch = trainer.fit_loop.epoch_loop, pl_module.on_train_epoch_end
        update = loop.update_lr_schedulers

        def update_others(interval: str, update_plateau_schedulers: bool) -> None:
            if interval == "step" or not update_plateau_schedulers:
                update(interval, update_plateau_schedulers)

        def end_epoch_and_update() -> None:
            end_epoch()
            is_validated = not (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1)
            if is_validated and loop._num_ready_batches_reached():
                update("epoch", update_plateau_schedulers=True)

        vars(loop)["update_lr_schedulers"] = update_others
        vars(pl_module)["on_train_epoch_end"] = end_epoch_and_update
