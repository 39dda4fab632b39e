"""The checkpoints of a run: which are written, when, and what a restored state may say of them."""

import re
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from torch import Tensor

from linreg.metrics import LOADER
from linreg.runs.folder import steps_of
from linreg.runs.loggers import Curves
from linreg.system.errors import InputError, did_you_mean
from linreg.system.screen import say, wrapped

FIELD = re.compile(r"\{(?!\d+[:}])[\w/.-]+(:0?\d*(\.\d+)?[dfeg]?)?\}")  # of a filename, as in {epoch:03d}
NEAR = (0.01, 0.001)  # to a known optimum, as shares of it
RESERVED = ("best", "last")  # names that no other callback may write to
USUAL = ("loss/val", "val_loss", "val/loss", "valid_loss")  # where no metric is named, the first of them that is logged
# Or of these, where there is no validation: the first two are of an epoch's end, the others of the way there.
TRAINING = ("excess_loss/train", "excess_mse/train", "loss/train", "train_loss", "train/loss")


def check_names(callbacks: list[Callback]) -> None:
    """InputError if a checkpoint of the user's own would lie outside of the run's folder, or replace one of ours."""
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise InputError(f"callbacks: {callback!r} is none; an object of a Callback is expected")
        if not isinstance(callback, ModelCheckpoint):
            continue
        name = Path(callback.filename or "")
        plain = FIELD.sub("", str(name))  # a field can be told to become any character, "/" among them
        is_outside = callback.dirpath or name.is_absolute() or ".." in name.parts
        if is_outside or {*plain} & {*"{}"} or not plain.isprintable():
            found = f"a ModelCheckpoint with dirpath={callback.dirpath!r}, filename={callback.filename!r}"
            remedy = "give a plain filename such as {epoch:03d}, and no dirpath"
            raise InputError(f"{found}: checkpoints lie in the run's own folder; {remedy}")
        if str(name).removesuffix(".ckpt") in RESERVED or callback.save_last:
            found = f"a ModelCheckpoint with filename={callback.filename!r}, save_last={callback.save_last}"
            remedy = "give another filename, and leave out save_last"
            raise InputError(f"{found}: every run writes its own best.ckpt and last.ckpt; {remedy}")


class LastCheckpoint(ModelCheckpoint):
    """``last.ckpt``: where the run stands, after every epoch."""

    on_train_batch_end = Callback.on_train_batch_end  # nothing to do between two steps

    def __init__(self) -> None:
        # No monitor: with one, `save_last` writes only when the best improves.
        super().__init__(filename="last", save_on_train_epoch_end=True, enable_version_counter=False)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning logs the epoch after this; a kill in between would leave a hole in the curves of the resumed run.
        new = {each.meta.name for each in trainer.fit_loop.epoch_loop._results.values() if not each.has_reset}
        values = {tag: float(v) for tag, v in trainer.callback_metrics.items() if tag.removesuffix("_epoch") in new}
        for logger in trainer.loggers:
            if isinstance(logger, Curves):
                logger.log_metrics(values | {"epoch": trainer.current_epoch}, steps_of(trainer) - 1)
                logger.save()
        super().on_train_epoch_end(trainer, pl_module)

    def save(self, trainer: Trainer) -> None:
        """Where the run stands now, inside an epoch."""
        self._save_none_monitor_checkpoint(trainer, self._monitor_candidates(trainer))


class BestCheckpoint(ModelCheckpoint):
    """``best.ckpt``: the lowest validation loss, or best ``monitor``; without such rows excess_mse, or training loss.

    Epochs of a model whose optimum is known compete only among those that are as near to it: within 0.1 % before within
    1 % before all others. On a small table an early epoch can have the lowest validation loss by chance, long before
    the training is done.
    """

    on_train_batch_end = Callback.on_train_batch_end  # nothing to do between two steps

    def __init__(self, monitor: str | None = None, mode: str = "min") -> None:
        # At an epoch's end, from where a run can go on exactly; Lightning's own moment is within it.
        when: dict[str, Any] = {"save_on_train_epoch_end": True, "enable_version_counter": False}
        super().__init__(filename="best", monitor=monitor or USUAL[0], mode=mode, **when)
        self.is_named, self.key = monitor is not None, super().state_key
        self.rank = self.near = -1  # how near to the optimum the best and the newest epoch are; below 0 if unknown
        self.validated = -1  # the step of the newest validation

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and not (trainer.enable_validation or self.is_named):  # the data module is set up before
            self.monitor = TRAINING[0]
            self.key = super().state_key

    @property
    def state_key(self) -> str:
        return self.key  # Lightning's own changes with the metric

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        known = trainer.callback_metrics
        excess = known.get("excess_loss/train", known.get("excess_mse/train"))
        is_average = any(isinstance(each, WeightAveraging) for each in trainer.callbacks)  # type: ignore[attr-defined]
        # Of an average it is other weights that are near.
        self.near = -1 if excess is None or is_average else sum(abs(float(excess)) < goal for goal in NEAR)
        is_new = not trainer.enable_validation or self.validated == trainer.global_step or "train" in str(self.monitor)
        if is_new and self.monitor not in trainer.callback_metrics:
            self._find_metric(trainer)
        if is_new and self.monitor in trainer.callback_metrics:
            super().on_train_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Inside an epoch, the weights that were validated are those to be saved: at its end they are others."""
        if trainer.sanity_checking:
            return
        is_first, self.validated = self.validated < 0, trainer.global_step
        known, loop = trainer.callback_metrics, trainer.fit_loop.epoch_loop
        if not self.is_named and self.monitor in USUAL and self.monitor not in known:
            self.monitor = next((name for name in USUAL if name in known), self.monitor)
        if is_first and self.monitor in known and self.monitor not in [*known]:
            first = next(tag for tag in known if tag.startswith(f"{self.monitor}{LOADER}"))
            which = f"of several loaders best.ckpt goes by the first one's {first}"
            say(wrapped(f"        {which}; see --monitor"), trainer.is_global_zero)
        if self.monitor in known and "train" not in str(self.monitor) and not loop._num_ready_batches_reached():
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))

    def _find_metric(self, trainer: Trainer) -> None:
        """Another metric than the one that nobody logs; InputError if that one was named."""
        known = [*trainer.callback_metrics]
        if self.is_named:
            near = did_you_mean(str(self.monitor), [tag.partition(LOADER)[0] for tag in known])
            hint = near or f"; there are: {', '.join(known) or 'none'}"
            raise InputError(f"--monitor {self.monitor!r}: nothing of that name is logged{hint}")
        is_validated = self.monitor in USUAL
        self.monitor = next((name for name in (*USUAL, *TRAINING) if name in known), self.monitor)
        if is_validated and self.monitor in TRAINING and trainer.is_global_zero:
            say(f"        no validation loss is logged: best.ckpt goes by {self.monitor}; see --monitor")

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        if self.near < 0 or self.near == self.rank:
            self.rank = self.near
            return super().check_monitor_top_k(trainer, current)
        self.rank = max(self.near, self.rank)
        return self.near == self.rank

    def state_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {"near": self.near} if self.near >= 0 else {}
        found |= {} if self.key == super().state_key else {"by": self.monitor}  # which nobody has named
        return super().state_dict() | {"rank": self.rank} | found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        rank = state_dict.get("rank", 0)
        ranks = (rank, near if isinstance(near := state_dict.get("near"), int) else rank)
        self.rank, self.near = (max(min(each, len(NEAR)), -1) for each in ranks)
        if state_dict.get("by") in (*USUAL, *TRAINING):
            self.monitor = state_dict["by"]
        super().load_state_dict(state_dict)
        self.current_score = state_dict["current_score"]  # Lightning saves it, and forgets it
