"""The known answer beside a training: every epoch is held against the exact solution, and ends once it is reached."""

import math
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor

from linreg.regression.exact.description import describe_descent
from linreg.regression.exact.expected import NO_RESIDUAL, ExpectedDescent
from linreg.regression.exact.learning_rate import GOAL
from linreg.system.errors import InputError
from linreg.system.ranks import from_first, summed
from linreg.system.screen import say

TOLERANCE = 1e-4  # a run without max_epochs stops this close to the optimum
OVERTIME_TOLERANCE = GOAL / 10  # and this close once it has had its planned steps: batches' noise falls slowly
DEFAULT_EPOCHS = 100  # of a run whose length nothing else sets
VALIDATIONS = 100  # of such a run, about
SHOWN = 20  # coefficients that get a curve of their own
MOST_EPOCHS = 1_000  # that are kept for a picture, an even number; of more, every other one
MOST_KEPT = 1_000_000  # weights that are kept at some epochs, to be drawn


def excess(mse: float, exact: float, variance: float) -> float:
    """``(mse - exact) / exact``; where an exact fit leaves less than 1e-10 of the variance, that stands in for it."""
    return (mse - exact) / (max(exact, NO_RESIDUAL * variance) or 1.0)


def excess_mse(model: Any) -> float | None:
    """The training MSE of a LinearRegression above the exact optimum, as a share of it, without a pass over the rows.

    None where no exact optimum is known, or another loss is minimized.
    """
    if model.exact is None or not model.knows_optimum:
        return None
    variance = model.y_standardizer.std.cpu() ** 2  # targets count in their own units, as in the metrics
    found, exact = (float(model.exact.mse(*each) @ variance) for each in learned_and_exact(model))
    return excess(found, exact, float(variance.sum()))


def excess_loss(model: Any) -> float | None:
    """As ``excess_mse``, of what is minimized, where that is not the error in the data's units; None elsewhere.

    With weight decay it is the mean squared error and the penalty together: the error alone may come to lie below its
    value at the optimum on the way there. Of several targets it is that of the farthest.
    """
    if model.penalty:
        found, exact = (
            float(model.exact.mse(weight, bias).mean() + model.penalty / 2 * weight.square().sum())
            for weight, bias in learned_and_exact(model)
        )
        return excess(found, exact, 1.0)
    return farthest_target(model)[0] if model.knows_optimum and len(model.target_names) > 1 else None


def farthest_target(model: Any) -> tuple[float, str]:
    """The share by which the loss of one target alone is above its optimum, of all the largest, and its name."""
    found, exact = (model.exact.mse(*each).tolist() for each in learned_and_exact(model))
    return max((excess(a, b, 1.0), name) for a, b, name in zip(found, exact, model.target_names, strict=True))


def learned_and_exact(model: Any) -> list[tuple[Tensor, Any]]:
    """The weight and the bias that a model has, and those of its optimum, in float64."""
    weight, bias = model.hypothesis.weight.detach().cpu().double(), model.hypothesis.bias
    return [(weight, 0.0 if bias is None else bias.detach().cpu()), (model.exact.weight(model.penalty), 0.0)]


class ExactBaseline(Callback):
    """Holds every epoch of a Regressor against the exact solution; ends a run without max_epochs once it is reached."""

    def __init__(self) -> None:
        self.may_stop, self.resumed_at = False, 0
        self.ended_at: float | None = None  # the tolerance at which it ended a run
        self.expected: ExpectedDescent | None = None
        self.saved: Any = None  # how far an interrupted run was expected to be
        self.beginning = (0, 0.0)  # an epoch's first step, and its learning rate
        self.history = torch.zeros(0, 6, dtype=torch.float64)  # epochs, steps, excess, expected, loss, validation's
        self.coef: dict[str, float] = {}  # the exact coefficients by the tags of their curves
        self.weights: dict[int, dict[str, torch.Tensor]] = {}  # at some steps

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        if stage == "fit":
            vars(self).update(vars(ExactBaseline()))  # nothing of an earlier training
            if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
                found = f"{type(trainer.strategy).__name__} parts the weights that each epoch is measured with"
                raise InputError(f"{found}; for a Regressor give --strategy ddp")

    def on_load_checkpoint(self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        self.resumed_at = checkpoint["global_step"]

    def state_dict(self) -> dict[str, Any]:
        state = {} if self.expected is None else {"expected": self.expected.state.clone()}
        return state | ({"history": self.history} if len(self.history) else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.saved, history = state_dict.get("expected"), state_dict.get("history")
        if isinstance(history, Tensor) and history.shape[1:] == self.history.shape[1:]:
            self.history = history.to(self.history)

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.may_stop = trainer.max_epochs == -1 and trainer.max_steps == -1
        if self.resumed_at:
            self._end_if_reached(trainer, pl_module, self.resumed_at)

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        plan, steps_per_epoch = getattr(pl_module, "plan", None), int(trainer.num_training_batches)
        if self.may_stop:
            epochs = math.ceil(plan.most_steps / steps_per_epoch) if plan else DEFAULT_EPOCHS
            trainer.fit_loop.max_epochs = epochs
            if trainer.check_val_every_n_epoch == 1:  # of thousands of epochs of a step each, a hundred say enough
                trainer.check_val_every_n_epoch = max(epochs // VALIDATIONS, 1)
        if trainer.is_global_zero:
            say(describe_descent(pl_module, trainer.optimizers, steps_per_epoch, trainer.max_epochs))
        is_known = not self.resumed_at or isinstance(self.saved, torch.Tensor)
        if is_known and has_theory(trainer, pl_module):
            self.expected = ExpectedDescent(pl_module, self.saved)
        if excess_mse(pl_module) is not None:
            coef = by_tag(pl_module, pl_module.exact.solve(pl_module.penalty).coef)
            self.coef = {tag: value for tag, value in coef.items() if math.isfinite(value)}
        self._log_beside(trainer, "exact", self.coef, trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._log_beside(trainer, "exact", self.coef, trainer.global_step)

    def _log_beside(self, trainer: Trainer, name: str, points: dict[str, float], step: int) -> None:
        for logger in trainer.loggers:
            if points and hasattr(logger, "log_beside"):
                logger.log_beside(name, points, step)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.beginning = trainer.global_step, trainer.optimizers[0].param_groups[0]["lr"] if trainer.optimizers else 0.0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        values = {"lr": trainer.optimizers[0].param_groups[0]["lr"]} if trainer.optimizers else {}
        if pl_module.exact is not None and pl_module.has_plain_loss:
            exact = pl_module.exact
            values["loss/exact"] = exact.mse(exact.weight(pl_module.penalty)).mean().float()
        pl_module.log_dict(values, sync_dist=True)
        share, epoch = excess_mse(pl_module), trainer.current_epoch + 1
        if not epoch & (epoch - 1):  # after 1, 2, 4, 8 epochs and so on
            self._log_beside(trainer, "exact", self.coef, trainer.global_step)
            if sum(p.numel() for p in pl_module.hypothesis.parameters()) <= MOST_KEPT:
                now = {name: value.detach().cpu().clone() for name, value in pl_module.hypothesis.state_dict().items()}
                self.weights[trainer.global_step - 1] = now
        if share is None:
            return
        pl_module.log("excess_mse/train", share, prog_bar=True, sync_dist=True)
        if (of_loss := excess_loss(pl_module)) is not None:
            pl_module.log("excess_loss/train", of_loss, sync_dist=True)
        self._log_details(trainer, pl_module, share)
        self._end_if_reached(trainer, pl_module, trainer.global_step)

    def _log_details(self, trainer: Trainer, model: Any, share: float) -> None:
        """The same on a log scale and over epochs, what theory expected of it, and the coefficients."""
        details, epoch = {}, trainer.current_epoch
        if self.expected is not None:
            (first, rate), group = self.beginning, trainer.optimizers[0].param_groups[0]
            steps = trainer.global_step - first
            rate = rate if steps == 1 else (rate + group["lr"]) / 2
            batch = model.plan.batch_size if getattr(model, "plan", None) else None
            self.expected.advance(steps, rate, group["momentum"], group["nesterov"], batch)
            details["excess_mse/expected"] = self.expected.excess()
        expected, every = details.get("excess_mse/expected", math.nan), trainer.check_val_every_n_epoch
        is_validated = every is not None and not (epoch + 1) % every  # else it is an older value that is known
        val = trainer.callback_metrics.get("loss/val", math.nan) if is_validated else math.nan
        loss = summed(torch.as_tensor(model.epoch_losses.get("loss", math.nan)))
        losses = float(loss) / max(int(summed(torch.tensor(model.epoch_counts.get("loss", 0)))), 1), float(val)
        now = torch.tensor([[epoch + 1, trainer.global_step, share, expected, *losses]], dtype=torch.float64)
        history = torch.cat([self.history, now])
        self.history = history if len(history) < MOST_EPOCHS else history[1::2].clone()
        details["excess_mse/log10"] = math.log10(max(abs(share), 1e-16))
        details |= by_tag(model, model.coef)
        model.log_dict({tag: v for tag, v in details.items() if math.isfinite(v)}, sync_dist=True)
        # With epochs as its axis, runs with batches of any size lie on each other.
        self._log_beside(trainer, "by_epoch", {"excess_mse/log10_by_epoch": details["excess_mse/log10"]}, epoch)

    def _end_if_reached(self, trainer: Trainer, model: Any, steps: int) -> None:
        callbacks: list[Callback] = vars(trainer)["callbacks"]
        is_average = any(isinstance(each, WeightAveraging) for each in callbacks)  # whose weights are reported
        if not self.may_stop or is_average or (share := excess_mse(model)) is None:
            return
        plan, of_loss = getattr(model, "plan", None), excess_loss(model)
        share = share if of_loss is None else of_loss
        tolerance = OVERTIME_TOLERANCE if plan is not None and steps >= plan.steps else TOLERANCE
        if from_first(abs(share) < tolerance):
            trainer.should_stop, self.ended_at = True, tolerance


def by_tag(model: Any, coef: Tensor) -> dict[str, float]:
    """Coefficients (T, D) by the tag of their curve; none of them where they are too many."""
    several = len(model.target_names) > 1
    tags = [f"coef/{f'{target}: ' * several}{name}" for target in model.target_names for name in model.feature_names]
    return dict(zip(tags, coef.flatten().tolist(), strict=True)) if len(tags) <= SHOWN else {}


def has_theory(trainer: Trainer, model: Any) -> bool:
    """Whether a training is nothing but SGD on the mean squared error of all rows, epoch by epoch."""
    flags = vars(trainer)
    is_whole = flags["limit_train_batches"] in (None, 1.0) and not flags["overfit_batches"]
    is_whole &= not trainer.gradient_clip_val and trainer.accumulate_grad_batches == 1
    return bool(model.exact is not None and model.knows_optimum and model.is_sgd and is_whole)
