"""What a checkpoint says of a training, held against that training before any of it is believed."""

from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BaseFinetuning, EarlyStopping, ModelCheckpoint, WeightAveraging
from lightning.pytorch.plugins.io import CheckpointIO
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from linreg.runs.checkpoints import BestCheckpoint
from linreg.runs.folder import own_checkpoint
from linreg.runs.resumable import check_kind, check_optimizer_state
from linreg.runs.resume import Beginnings, beginnings, keep_what_was_typed, settle_schedules
from linreg.safety.allowed import class_path_of, public_path
from linreg.safety.checkpoint_file import CheckpointFile, check_numbers, is_stored
from linreg.system.errors import InputError, given
from linreg.system.screen import say


class Restored(Callback):
    """Holds a checkpoint against the training that it is to be restored into, before it is believed.

    What was typed beats what was saved: a setting of an optimizer or a schedule that the run would begin with now, and
    that is another than it began with then, is changed in the state that Lightning is about to restore.
    """

    began: Beginnings
    is_over = False  # whether the run had been stopped early

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.checkpoint = checkpoint
        check_numbers(pl_module, checkpoint["state_dict"])
        ours, theirs = class_path_of(pl_module), public_path(checkpoint["class_path"])
        if ours != theirs:
            raise InputError(f"the checkpoint is one of {theirs}, not of {ours}; start a new run without it")
        is_same = getattr(trainer.datamodule, "is_same", None)  # type: ignore[attr-defined]
        if isinstance(rows := checkpoint.get("rows"), Tensor) and is_same is not None and not is_same(rows):
            found = "the training rows are not those of the checkpoint: the file or the split changed"
            raise InputError(f"{found}; give the same data as before, or start a new run without --ckpt_path")
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            state = checkpoint["callbacks"].get(callback.state_key)
            if state is None:
                continue
            if is_known(type(callback).state_dict):  # a user's own may keep what it likes
                check_kind(state, callback.state_dict(), f"callbacks, {type(callback).__name__}")
            if isinstance(callback, EarlyStopping):
                if 0 < state["stopped_epoch"] == checkpoint["epoch"] and state["patience"] == callback.patience:
                    self.is_over = True  # as it had stopped
                else:
                    state["stopping_reason_message"] = None  # that it had stopped is no news
                state["patience"] = callback.patience  # as it is typed now
            if isinstance(callback, ModelCheckpoint):
                restore_paths(callback, trainer.strategy.checkpoint_io, checkpoint)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Here the optimizers are made, and not yet restored."""
        check_trainable(trainer, pl_module)
        self.began = beginnings(trainer)
        is_double = any(parameter.dtype == torch.float64 for parameter in pl_module.parameters())
        averages = [each for each in trainer.callbacks if isinstance(each, WeightAveraging)]  # type: ignore[attr-defined]
        for each in averages if is_double else []:  # copied from the model before it left float32
            cast(nn.Module, each._average_model).double()
        if not hasattr(self, "checkpoint"):
            return
        trainer.should_stop |= self.is_over
        frozen, callbacks = self.checkpoint.get("frozen"), trainer.callbacks  # type: ignore[attr-defined]
        if isinstance(frozen, list) and any(isinstance(each, BaseFinetuning) for each in callbacks):
            for name, parameter in pl_module.named_parameters():  # Lightning freezes again what it had unfrozen
                parameter.requires_grad_(name not in frozen)
        if is_double:
            pl_module.load_state_dict(self.checkpoint["state_dict"])  # Lightning did so before it left float32
            for each in averages:
                each.on_load_checkpoint(trainer, pl_module, self.checkpoint)
        # With --max_steps Lightning takes a whole epoch for one that was left, and ends it again without a step.
        trainer.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]
        with given("the checkpoint"):
            lines = keep_what_was_typed(self.checkpoint, dict(pl_module.hparams), self.began, trainer.optimizers)
            self.is_other = self.began != self.checkpoint.get("began")
        for line in lines:
            say(f"        {line}", trainer.is_global_zero)
        kinds: dict[str, list[Any]] = {"optimizer_states": trainer.optimizers}
        kinds["lr_schedulers"] = [config.scheduler for config in trainer.lr_scheduler_configs]
        for name, fresh in kinds.items():
            saved = self.checkpoint[name]
            if len(saved) != len(fresh) and not (lines and not saved):
                raise InputError(f"the checkpoint has {len(saved)} {name}, this run {len(fresh)}; start a new run")
            for state, each in zip(saved, fresh, strict=False):
                is_plain = isinstance(each, torch.optim.Optimizer) or is_known(type(each))
                check_kind(state, each.state_dict() if is_plain else {}, name)
                for key in state.keys() - each.state_dict().keys():
                    del state[key]  # it would take the place of a method of the schedule
                if isinstance(each, torch.optim.Optimizer):
                    check_optimizer_state(state, each)
        check_kind(self.checkpoint["loops"]["fit_loop"], trainer.fit_loop.state_dict(), "loops")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if hasattr(self, "checkpoint"):
            saved = self.checkpoint["global_step"]
            if saved != trainer.global_step:
                raise InputError(f"the checkpoint says both step {saved} and {trainer.global_step}; take another one")
            epochs = 0 if "inside" in self.checkpoint else self.checkpoint["epoch"] + 1
            settle_schedules(trainer, epochs, self.is_other)
            del self.checkpoint

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["began"] = self.began
        checkpoint["class_path"] = class_path_of(pl_module)
        checkpoint["frozen"] = [name for name, each in pl_module.named_parameters() if not each.requires_grad]
        data = trainer.datamodule  # type: ignore[attr-defined]
        if hasattr(data, "fingerprint"):
            checkpoint["rows"] = data.fingerprint
        if hasattr(data, "feature_names"):  # of a table, for predictions beside the rows of another
            names = {"features": list(data.feature_names), "targets": list(data.target_names)}
            checkpoint["columns"] = names | ({"levels": levels} if (levels := getattr(data, "levels", {})) else {})


def check_trainable(trainer: Trainer, model: LightningModule) -> None:
    """InputError for no optimizer, or a buffer that no checkpoint brings back: torch copies into none that repeats."""
    if not any(optimizer.param_groups for optimizer in trainer.optimizers):
        name = f"{type(model).__name__}.configure_optimizers"
        raise InputError(f"{name} has returned no optimizer; return one, or a list of them")
    wrong = {name: each for name, each in model.named_buffers() if not (is_lazy(each) or is_stored(each))}
    for name in wrong.keys() & model.state_dict().keys() if wrong and trainer.checkpoint_callbacks else ():
        kind = "expanded" if wrong[name].layout == torch.strided else str(wrong[name].layout)
        remedy = "register it as .clone(), as .to_sparse(), or with persistent=False"
        raise InputError(f"the buffer {name!r} is {kind}, and no checkpoint could bring it back; {remedy}")


def is_known(made: Any) -> bool:
    """Whether a class or a method is of torch, Lightning or this package, whose states have a kind that is known."""
    return made.__module__.split(".")[0] in ("torch", "lightning", "pytorch_lightning", "linreg")


def restore_paths(callback: ModelCheckpoint, files: CheckpointIO, checkpoint: dict[str, Any]) -> None:
    """Lets a ModelCheckpoint know of the run's own files only, where they lie now, or else of none.

    Lightning believes the paths in a checkpoint, which may be a stranger's, or those of a run that was moved or copied.
    """
    state = checkpoint["callbacks"].pop(callback.state_key)
    folder, depth = Path(str(callback.dirpath)), len(Path(state["dirpath"]).parts)
    best, kth, scores = state["best_model_path"], state["kth_best_model_path"], state["best_k_models"]
    now: dict[str, str] = {}  # the path of each, by the path that it had
    for said in {best, kth, *scores} - {""}:
        name = Path(*Path(said).parts[depth:])
        is_inside = not name.is_absolute() and ".." not in name.parts
        own = own_checkpoint(folder / name, checkpoint) if is_inside else None
        if own and said == best and isinstance(callback, BestCheckpoint):  # not one of another attempt
            score = own["callbacks"].get(callback.state_key, {}).get("best_model_score")
            own = own if score == state["best_model_score"] else None
        if own:
            now[said] = str(folder / name)
            if isinstance(files, CheckpointFile):
                files.own.add((folder / name).absolute())
    best_k = {now[said]: score for said, score in scores.items() if said in now and isinstance(score, Tensor)}
    if best in now and (callback.monitor is None or now.get(kth) in best_k):
        paths = {"best_model_path": now[best], "kth_best_model_path": now.get(kth, ""), "last_model_path": ""}
        state |= paths | {"dirpath": callback.dirpath, "best_k_models": best_k}
        checkpoint["callbacks"][callback.state_key] = state
    elif isinstance(callback, BestCheckpoint):
        say("        without the best.ckpt that goes with it: the best so far is forgotten")
