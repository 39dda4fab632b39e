"""What a checkpoint says of a training, held against that training before any of it is believed."""

import math
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, WeightAveraging
from lightning.pytorch.plugins.io import CheckpointIO
from torch import Tensor, nn

from linreg.runs.checkpoints import BestCheckpoint
from linreg.runs.resume import Beginnings, beginnings, keep_what_was_typed
from linreg.safety.allowed import class_path_of, public_path
from linreg.safety.checkpoint_file import CheckpointFile, check_complex, own_checkpoint
from linreg.system.errors import InputError, given
from linreg.system.screen import say

LARGEST = 2**53


class Restored(Callback):
    """Holds a checkpoint against the training that it is to be restored into, before it is believed.

    What was typed beats what was saved: a setting of an optimizer or a schedule that the run would begin with now, and
    that is another than it began with then, is changed in the state that Lightning is about to restore.
    """

    began: Beginnings
    is_over = False  # whether the run had been stopped early

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.checkpoint = checkpoint
        check_complex(pl_module, checkpoint["state_dict"])
        ours, theirs = class_path_of(pl_module), public_path(checkpoint["class_path"])
        if ours != theirs:
            raise InputError(f"the checkpoint is one of {theirs}, not of {ours}; start a new run without it")
        is_same = getattr(data_of(trainer), "is_same", None)
        if isinstance(rows := checkpoint.get("rows"), Tensor) and is_same is not None and not is_same(rows):
            raise InputError(
                "the training rows are not those of the checkpoint: the file or the split changed; give the same data "
                "as before, or start a new run without --ckpt_path"
            )
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            state = checkpoint["callbacks"].get(callback.state_key)
            if state is not None:
                check_kind(state, callback.state_dict(), f"callbacks, {type(callback).__name__}")
                if isinstance(callback, EarlyStopping):
                    has_stopped = 0 < state["stopped_epoch"] == checkpoint["epoch"]
                    if has_stopped and state["patience"] == callback.patience:
                        self.is_over = True
                    else:
                        state["stopping_reason_message"] = None  # that it had stopped is no news
                    state["patience"] = callback.patience  # as it is typed now
                if isinstance(callback, ModelCheckpoint):
                    restore_paths(callback, trainer.strategy.checkpoint_io, checkpoint)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Here the optimizers are made, and not yet restored."""
        if not any(optimizer.param_groups for optimizer in trainer.optimizers):
            name = f"{type(pl_module).__name__}.configure_optimizers"
            raise InputError(f"{name} has returned no optimizer; return one, or a list of them")
        self.began = beginnings(trainer)
        is_double = any(parameter.dtype == torch.float64 for parameter in pl_module.parameters())
        averages = [each for each in trainer.callbacks if isinstance(each, WeightAveraging)]  # type: ignore[attr-defined]
        for each in averages if is_double else []:  # copied from the model before it left float32
            cast(nn.Module, each._average_model).double()
        if not hasattr(self, "checkpoint"):
            return
        trainer.should_stop |= self.is_over
        if is_double:
            pl_module.load_state_dict(self.checkpoint["state_dict"])  # Lightning did so before it left float32
            for each in averages:
                each.on_load_checkpoint(trainer, pl_module, self.checkpoint)
        # With --max_steps Lightning takes a whole epoch for one that was left, and ends it again without a step.
        trainer.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]
        with given("the checkpoint"):
            lines = keep_what_was_typed(self.checkpoint, dict(pl_module.hparams), self.began)
        for line in lines:
            say(f"        {line}", trainer.is_global_zero)
        kinds: dict[str, list[Any]] = {"optimizer_states": trainer.optimizers}
        kinds["lr_schedulers"] = [config.scheduler for config in trainer.lr_scheduler_configs]
        for name, fresh in kinds.items():
            saved = self.checkpoint[name]
            if len(saved) != len(fresh) and not (lines and not saved):
                raise InputError(f"the checkpoint has {len(saved)} {name}, this run {len(fresh)}; start a new run")
            for state, each in zip(saved, fresh, strict=False):
                check_kind(state, each.state_dict(), name)
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
            del self.checkpoint

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["began"] = self.began
        checkpoint["class_path"] = class_path_of(pl_module)
        if hasattr(data := data_of(trainer), "fingerprint"):
            checkpoint["rows"] = data.fingerprint
        if hasattr(data, "feature_names"):  # of a table, for predictions beside the rows of another
            names = {"features": list(data.feature_names), "targets": list(data.target_names)}
            checkpoint["columns"] = names | ({"levels": levels} if (levels := getattr(data, "levels", {})) else {})


def data_of(trainer: Trainer) -> Any:
    """The data module of a training; None if it has none."""
    return getattr(trainer, "datamodule", None)


def check_kind(value: Any, fresh: Any, where: str) -> None:
    """InputError unless a saved value could have come from what is there now, by type, shape and keys.

    Args:
        value: the saved one.
        fresh: one of the same place in a state that was just made; None stands for anything, {} for any dict.
        where: that place.
    """
    if fresh is None or (isinstance(fresh, list) and not fresh):
        is_fine = True
    elif isinstance(fresh, Tensor):
        is_fine = isinstance(value, Tensor) and value.shape == fresh.shape
    elif isinstance(fresh, dict):
        is_fine = isinstance(value, dict) and fresh.keys() <= value.keys()
    elif isinstance(fresh, list | tuple):
        is_fine = isinstance(value, list | tuple) and len(value) == len(fresh)
    elif isinstance(fresh, int | float) and not isinstance(fresh, bool):
        is_infinite = isinstance(fresh, float) and value in (math.inf, -math.inf)
        is_fine = type(value) in (int, float) and (abs(value) < LARGEST or is_infinite)
    else:
        is_fine = type(value) is type(fresh)
    if not is_fine:
        raise InputError(f"the checkpoint's {where} is missing or of another kind; resume from another one")
    if isinstance(fresh, dict):
        for key, inner in fresh.items():
            check_kind(value[key], inner, f"{where}, {key}")
    elif isinstance(fresh, list | tuple):
        for i, inner in enumerate(fresh):
            check_kind(value[i], inner, f"{where}, {i}")


def check_optimizer_state(saved: dict[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """InputError unless the state that is saved of each parameter fits it."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    order = [[group["params"] for group in each["param_groups"]] for each in (saved, optimizer.state_dict())]
    states = saved["state"]
    fits = order[0] == order[1] and states.keys() <= {*range(len(parameters))}
    fits &= all(isinstance(state, dict) for state in states.values())
    if fits:
        kinds = {(parameters[i].dim(), frozenset(state)) for i, state in states.items()}  # Adafactor's go by dimensions
        fits = len(kinds) == len({dim for dim, _ in kinds})
        shapes = [(i, v.shape) for i, state in states.items() for v in state.values() if isinstance(v, Tensor)]
        whole = sum(parameter.numel() for parameter in parameters)  # of LBFGS, all weights in a row
        fits &= all(shape == (whole,) or _broadcasts(shape, parameters[i].shape) for i, shape in shapes)
    if not fits:
        raise InputError("the checkpoint's optimizer state does not fit the weights; resume from another one")


def _broadcasts(shape: torch.Size, to: torch.Size) -> bool:
    """Whether a state has one value for each weight, or for each row, column, or all of them."""
    sizes = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(size in (1, whole) for size, whole in sizes)


def restore_paths(callback: ModelCheckpoint, files: CheckpointIO, checkpoint: dict[str, Any]) -> None:
    """Lets a ModelCheckpoint know of the run's own files only, where they lie now, or else of none.

    Lightning believes the paths in a checkpoint, which may be a stranger's, or those of a run that was moved or copied.
    """
    state = checkpoint["callbacks"].pop(callback.state_key, None)
    if state is None:
        return
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
