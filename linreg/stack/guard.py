"""The losses, watched: a training gone wrong ends at that step, and one of another loss than is validated is told."""

import math
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from linreg.module import Module, by_name
from linreg.report.findings import stage_of
from linreg.runs.record import values_of_epoch
from linreg.system.errors import InputError, RunError
from linreg.system.screen import say, wrapped

GPU_STEPS = 64  # between two looks at the loss there: asking for its value makes the GPU wait
FIRST_STEPS = 8  # that are held against the validation's loss; in the very first a penalty for weights may be 0


class DivergenceGuard(Callback):
    """Stops a run at the first step whose loss is not finite, or above what the model gives as its ``loss_limit``.

    On a GPU it looks at every 64th step. It logs the mean loss of an epoch's steps where a model logs none of an epoch.
    """

    logs = False  # whether nobody else logs the epoch's loss
    epoch_loss: torch.Tensor | float = 0.0
    epoch_steps, epoch_batches, loss_limit = 0, 0, math.inf

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.epoch_loss, self.epoch_steps, self.epoch_batches = 0.0, 0, 0
        self.loss_limit = getattr(pl_module, "loss_limit", math.inf)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.epoch_batches += 1
        losses = by_name(outputs)
        if not isinstance(loss := losses.get("loss"), torch.Tensor):  # manual optimization names them as it likes
            for value in losses.values():
                is_number = isinstance(value, torch.Tensor) and value.numel() == 1
                if is_number and not (value.is_cuda and batch_idx % GPU_STEPS):
                    self._check(trainer, pl_module, value.item())
            return
        if trainer.accumulate_grad_batches > 1:
            loss = loss * trainer.accumulate_grad_batches  # by which Lightning has divided it
        self.epoch_steps += 1
        weight = getattr(pl_module, "loss_weight", 1.0)  # of the rows of this process among those of all
        value = loss.detach() if loss.is_cuda else loss.item()
        self.epoch_loss += value * weight
        if not (loss.is_cuda and batch_idx % GPU_STEPS):
            self._check(trainer, pl_module, float(value))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.epoch_steps:
            mean = float(self.epoch_loss / self.epoch_steps)
            self._check(trainer, pl_module, mean)
            self.logs = self.logs or ("train", "loss") not in map(stage_of, values_of_epoch(trainer))
            if self.logs and not getattr(pl_module, "epoch_losses", None):
                pl_module.log("loss/train", mean, sync_dist=True)
        elif self.epoch_batches and pl_module.automatic_optimization:
            name = type(pl_module).__name__
            found = f"{name}.training_step has returned no loss in {self.epoch_batches:,} batch(es)"
            raise InputError(f"{found}; return the loss")
        loop: Any = trainer.fit_loop
        said, given = trainer.num_training_batches, loop.epoch_loop.batch_progress.current.ready
        if loop._data_fetcher.done and given < said < math.inf:
            found = f"the train_dataloader's len() is {said:,} batches, and it gave {given:,}"
            remedy = "put it right, or give --limit_train_batches; if it changes, --reload_dataloaders_every_n_epochs"
            raise InputError(f"{found}: a validation behind the last one would be left out; {remedy}")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.num_training_batches == 0:
            raise InputError("there was no batch to train on: train_dataloader gives none")

    def _check(self, trainer: Trainer, model: LightningModule, loss: float) -> None:
        if loss < self.loss_limit:
            return
        rate = f", at lr {trainer.optimizers[0].param_groups[0]['lr']:.3g}" if trainer.optimizers else ""
        paths = [path for c in trainer.checkpoint_callbacks if (path := getattr(c, "best_model_path", ""))]
        best = f"The best checkpoint so far is {paths[0]}" if paths else "There is no checkpoint yet"
        raise RunError(
            f"the training diverged: loss {loss:.3g} in epoch {trainer.current_epoch + 1:,}, step {trainer.global_step}"
            f"{rate}; {getattr(model, 'divergence_remedy', 'try a tenth of it')}. {best}"
        )


class SameLoss(Callback):
    """Says it where a training_step returns another loss than ``step`` and ``loss``, by which it is validated."""

    is_told, validated = False, math.nan

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        names = {"training_step", "step", "validation_step"}
        nearest = next(own for cls in type(pl_module).__mro__ if (own := names & vars(cls).keys()))
        if nearest != {"training_step"} or not isinstance(pl_module, Module):  # they go together, or all are its own
            vars(self).update(on_train_batch_end=None, on_train_end=None)
            return
        step, loss = pl_module.step, pl_module.loss
        vars(pl_module)["step"] = lambda batch: self._note(step(batch))
        vars(pl_module)["loss"] = lambda *sides: self._note(loss(*sides))

    def _note(self, losses: Any) -> Any:
        self.validated = by_name(losses).get("loss", math.nan)
        return losses

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.is_told or trainer.global_step > FIRST_STEPS or (loss := by_name(outputs).get("loss")) is None:
            return
        trained, validated = loss * trainer.accumulate_grad_batches, torch.as_tensor(self.validated)
        if not math.isclose(float(trained), float(validated.detach()), rel_tol=1e-5):
            self.is_told, name = True, type(pl_module).__name__
            how = "returns another loss than is validated"
            if self.validated is math.nan:  # which is not computed here, for it may draw, and move running means
                how = f"calls neither {name}.step nor {name}.loss, by which it is validated"
            which = f"{name}.training_step {how}: loss/train is the one"
            remedy = f"loss/val and best.ckpt are of the other; what is in {name}.loss or step is in both"
            say(wrapped(f"        {which}, {remedy}"), trainer.is_global_zero)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        del pl_module.step, pl_module.loss
