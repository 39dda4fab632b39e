"""Going on inside an epoch: what is saved there, and how a run comes to stand there again."""

from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils._pytree import tree_leaves
from torchmetrics import Metric

from linreg.runs.checkpoints import LastCheckpoint
from linreg.runs.resumable import check_kind
from linreg.stack.draws import Draws, generator_states, restore_generators
from linreg.system.errors import InputError, given
from linreg.system.ranks import gathered

# What a model and its callbacks keep of an epoch until its end.
GATHERED = ("epoch_loss", "epoch_losses", "epoch_counts", "epoch_steps", "epoch_batches", "beginning")
BEGINS_AGAIN = "restarted_on_epoch_start"  # Lightning's word for an epoch whose hooks are to be called


class Inside(Callback):
    """Saves last.ckpt inside epochs too: every so many steps, and where a run ends before its epoch does.

    A run that goes on from there begins the epoch once more, with its hooks and its draws, passes over the batches that
    were seen, and takes up what had been summed up, logged and drawn by then. Without ``every`` so many steps it saves
    only where a run ends.
    """

    def __init__(self, last: LastCheckpoint, draws: Draws, every: int | None = None) -> None:
        if every is not None and every < 1:
            raise InputError(f"--save_every_n_steps {every}: at least 1 step is expected")
        self.last, self.draws, self.every = last, draws, every
        self.saved, self.is_saving = 0, False
        self.before: dict[str, Any] | None = None  # where the run that goes on stood
        self.logged: dict[str, dict[str, Any]] = {}  # by it in this epoch, and not yet added

    @property
    def newest(self) -> int:
        """The step of the newest last.ckpt."""
        return max(self.saved, self.last._last_global_step_saved)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.saved = checkpoint["global_step"]
        if "inside" in checkpoint:
            self.before = checkpoint["inside"][trainer.global_rank]
            self.draws.seen = self.before["batches"]
            self.draws.kept = self.before.get("kept", self.draws.kept)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.is_saving:
            checkpoint["inside"] = gathered(describe_epoch(trainer, pl_module) | {"kept": self.draws.kept})

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loop = trainer.fit_loop.epoch_loop
        end_batch, begin_epoch = loop.on_advance_end, pl_module.on_train_epoch_start
        by_steps = self.every is not None or trainer.max_steps != -1

        def end_batch_and_save(fetcher: Any) -> None:
            if self.logged:
                self._add_logged(loop._results)
            end_batch(fetcher)
            if (by_steps or trainer.should_stop) and not loop._num_ready_batches_reached():
                self._save_if_due(trainer)

        def begin_epoch_and_take_up() -> None:
            begin_epoch()
            if self.before is not None:
                with given("the checkpoint's 'inside'"):
                    restore_generators(self.before["draws"])
                    self._take_up(trainer, pl_module, self.before)
                self.before = None

        vars(loop)["on_advance_end"] = end_batch_and_save
        vars(pl_module)["on_train_epoch_start"] = begin_epoch_and_take_up

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.saved = trainer.global_step
        if self.before is not None:
            then, now = ({name: each[name] for name in ("of", "batch_size")} for each in (self.before, sizes(trainer)))
            if then != now:
                raise InputError(
                    f"the checkpoint was made inside an epoch of {then['of']} batches of {then['batch_size']} rows, "
                    f"and this run has {now['of']} of {now['batch_size']}; give the same batch size, --chunk and limits"
                )
            loop: Any = trainer.fit_loop
            loop._restart_stage = BEGINS_AGAIN
            for count in (loop.epoch_progress.total, loop.epoch_progress.current):
                count.started -= 1

    def _save_if_due(self, trainer: Trainer) -> None:
        steps = trainer.global_step
        is_due = self.every is not None and steps // self.every > self.saved // self.every
        if is_due or trainer.fit_loop.epoch_loop.done:
            self.saved, self.is_saving = steps, True
            self.last.save(trainer)
            self.is_saving = False

    def _take_up(self, trainer: Trainer, model: LightningModule, before: dict[str, Any]) -> None:
        before = move_data_to_device(before, model.device)
        for owner in (model, *trainer.callbacks):  # type: ignore[attr-defined]
            sums = before["sums"].get(type(owner).__name__, {})
            if "epoch_rows" in sums:  # of all losses, as it was saved before a loss had its own
                sums["epoch_counts"] = dict.fromkeys(sums.get("epoch_losses", ()), sums["epoch_rows"])
            vars(owner).update(numbers({name: sums[name] for name in GATHERED if name in sums}))
        parameters = dict(model.named_parameters())
        for name, state in before["metrics"].items():
            metric: Any = model.get_submodule(name)
            check_kind(state, metric.metric_state, f"metrics, {name}", may_grow=True)
            vars(metric).update({each: state[each] for each in metric.metric_state}, _update_count=1, _computed=None)
        for name, gradient in before["gradients"].items():
            parameters[name].grad = gradient
        self.logged = {key: numbers(state) for key, state in before["logged"].items()}
        loop: Any = trainer.fit_loop.epoch_loop
        if loop._should_check_val_fx(trainer.fit_loop._data_fetcher):
            loop._batches_that_stepped -= 1  # Lightning goes over the end of this batch again

    def _add_logged(self, results: Any) -> None:
        """To a value's sum, once it has one again; two numbers have the same sum in either order."""
        for key in self.logged.keys() & results.keys():
            metric, state = results[key], self.logged.pop(key)
            if metric.meta.is_max_reduction or metric.meta.is_min_reduction:
                metric.value = metric.meta.reduce_fx(metric.value, state["value"])
                continue
            for name, value in state.items():
                setattr(metric, name, getattr(metric, name) + value)


def numbers(value: Any) -> Any:
    """The value, if it is a number, or some by name or in order."""
    if any(torch.as_tensor(part).numel() != 1 for part in tree_leaves(value)):
        raise TypeError("a number is expected")
    return value


def sizes(trainer: Trainer) -> dict[str, Any]:
    """Of an epoch: how many batches of how many rows."""
    return {"of": trainer.num_training_batches, "batch_size": getattr(trainer.train_dataloader, "batch_size", None)}


def describe_epoch(trainer: Trainer, model: LightningModule) -> dict[str, Any]:
    """How far this process has come in an epoch, besides what Lightning saves."""
    loop: Any = trainer.fit_loop.epoch_loop
    owners = (model, *trainer.callbacks)  # type: ignore[attr-defined]
    sums = {type(each).__name__: {n: vars(each)[n] for n in GATHERED if n in vars(each)} for each in owners}
    metrics = {name: each for name, each in model.named_modules() if isinstance(each, Metric) and each.update_called}
    logged = {
        key: {name: getattr(each, name) for name in ("value", "cumulated_batch_size") if hasattr(each, name)}
        for key, each in loop._results.items()
        if each.is_tensor and each.meta.on_epoch and not each.has_reset
    }
    is_pending = loop._should_accumulate() or not model.automatic_optimization
    gradients = {name: p.grad for name, p in model.named_parameters() if is_pending and p.grad is not None}
    return sizes(trainer) | {
        "batches": loop.batch_progress.current.ready,
        "draws": generator_states(),
        "sums": {name: each for name, each in sums.items() if each},
        "logged": logged,
        "metrics": {name: each.metric_state for name, each in metrics.items()},
        "gradients": gradients,
    }
