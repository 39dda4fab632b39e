"""The known answer beside a training: every epoch is held against the exact solution, and ends once it is reached."""

import math
from typing import Any

from lightning.pytorch import Callback, Trainer
from torch import Tensor

from linreg.regression.exact.coefficients import nearly_collinear
from linreg.regression.exact.learning_rate import GOAL, MAX_STEPS
from linreg.screen import say

TOLERANCE = 1e-4  # a run without max_epochs stops this close to the optimum
OVERTIME_TOLERANCE = GOAL / 10  # and this close once it has had the steps that it was expected to take
DEFAULT_EPOCHS = 100  # of a run whose length nothing else sets
VALIDATIONS = 100  # of such a run, about
NO_RESIDUAL = 1e-10  # of the target's variance: a float32 model cannot follow an exact fit below it


def excess(mse: float, exact: float, variance: float) -> float:
    """``(mse - exact) / exact``; where an exact fit leaves less than 1e-10 of the variance, that stands in for it."""
    return (mse - exact) / (max(exact, NO_RESIDUAL * variance) or 1.0)


def excess_mse(model: Any) -> float | None:
    """The training MSE of a LinearRegression above the exact optimum, as a share of it, without a pass over the rows.

    None where no exact optimum is known, or another loss is minimized.
    """
    if model.exact is None or not model.knows_optimum:
        return None
    weight, bias = model.hypothesis.weight.detach().cpu(), model.hypothesis.bias
    variance = model.y_standardizer.std.cpu() ** 2  # targets count in their own units, as in the metrics
    mse = model.exact.mse(weight, 0.0 if bias is None else bias.detach().cpu()) @ variance
    exact = model.exact.mse(model.exact.weight(model.penalty)) @ variance
    return excess(float(mse), float(exact), float(variance.sum()))


def excess_loss(model: Any) -> float:
    """As ``excess_mse``, of the mean squared error and the penalty for large weights together, which is minimized.

    The error alone is no measure then: on the way to its value at the optimum it may come to lie below it.
    """

    def loss(weight: Tensor, bias: Tensor | float) -> float:
        return float(model.exact.mse(weight, bias).mean() + model.penalty / 2 * weight.square().sum())

    weight, bias = model.hypothesis.weight.detach().cpu().double(), model.hypothesis.bias
    exact = loss(model.exact.weight(model.penalty), 0.0)
    return excess(loss(weight, 0.0 if bias is None else bias.detach().cpu()), exact, 1.0)


def weight_error(model: Any) -> float:
    """The distance of the weight from the exact one, as a share of its length, in standardized units."""
    exact = model.exact.weight(model.penalty)
    return float((model.hypothesis.weight.detach().cpu() - exact).norm() / (exact.norm() or 1.0))


class ExactBaseline(Callback):
    """Holds every epoch of a Regressor against the exact solution; ends a run without max_epochs once it is reached."""

    def __init__(self) -> None:
        self.may_stop, self.resumed_at = False, 0

    def on_load_checkpoint(self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        self.resumed_at = checkpoint["global_step"]

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.may_stop = trainer.max_epochs == -1 and trainer.max_steps == -1
        if self.may_stop and self.resumed_at and self._is_reached(pl_module, self.resumed_at):
            trainer.should_stop = True

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        plan, steps_per_epoch = getattr(pl_module, "plan", None), int(trainer.num_training_batches)
        if self.may_stop:
            epochs = math.ceil(plan.most_steps / steps_per_epoch) if plan else DEFAULT_EPOCHS
            trainer.fit_loop.max_epochs = epochs
            if trainer.check_val_every_n_epoch == 1:  # of thousands of epochs of a step each, a hundred say enough
                trainer.check_val_every_n_epoch = max(epochs // VALIDATIONS, 1)
        if trainer.is_global_zero:
            say(describe_training(pl_module, trainer.optimizers, steps_per_epoch, trainer.max_epochs))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        values = {"lr": trainer.optimizers[0].param_groups[0]["lr"]} if trainer.optimizers else {}
        if pl_module.exact is not None and pl_module.has_plain_loss:
            exact = pl_module.exact
            values["loss/exact"] = exact.mse(exact.weight(pl_module.penalty)).mean().float()
        pl_module.log_dict(values, sync_dist=True)
        share = excess_mse(pl_module)
        if share is None:
            return
        pl_module.log("excess_mse/train", share, prog_bar=True, sync_dist=True)
        pl_module.log("weight_error/train", weight_error(pl_module), sync_dist=True)
        if pl_module.penalty:
            pl_module.log("excess_loss/train", excess_loss(pl_module), sync_dist=True)
        if self.may_stop and self._is_reached(pl_module, trainer.global_step):
            trainer.should_stop = True

    def _is_reached(self, model: Any, steps: int) -> bool:
        share = excess_loss(model) if model.penalty else excess_mse(model)
        plan = getattr(model, "plan", None)
        overtime = plan is not None and steps >= plan.steps
        return share is not None and abs(share) < (OVERTIME_TOLERANCE if overtime else TOLERANCE)


def describe_training(model: Any, optimizers: list[Any], steps_per_epoch: int, max_epochs: int | None) -> str:
    """How a Regressor will be trained, and how soon that is expected to reach the optimum."""
    until = f"at most {max_epochs:,} epoch(s) of {steps_per_epoch:,} step(s)" if max_epochs != -1 else "no last epoch"
    plan, size = getattr(model, "plan", None), f"{sum(p.numel() for p in model.parameters()):,} parameter(s)"
    if plan is None:
        rates = [f"{type(each).__name__}, lr {each.param_groups[0]['lr']:.3g}" for each in optimizers]
        return f"train   {', '.join([size, *rates])}; {until}"
    noisy = " (batches are noisy: less is stable)" if plan.decay else ""
    rate = f"{plan.lr:.3g} = {100 * plan.lr / plan.lr_limit:.2g} % of the full-batch limit{noisy}"
    lines = [
        f"train   {size}, SGD, lr {rate}, momentum {plan.momentum:g}, batches of {plan.batch_size:,}; {until}",
    ]
    if model.exact is None:
        lines.append("        more than 2,000 features: no exact solution, and a rate that is safe but slow")
        return lines[0] + "\n" + lines[1]
    vague = model.exact.not_identifiable | nearly_collinear(model.exact)
    flags = zip(model.feature_names, vague, strict=True)
    names = [name for name, flag in flags if flag]
    if names:
        lines.append(f"        constant or collinear, without coefficients of their own: {', '.join(names[:20])}")
    soon = "more than this run has"
    if plan.steps_to_goal < MAX_STEPS:
        soon = f"about {math.ceil(plan.steps_to_goal / steps_per_epoch):,} epoch(s)"
    condition = model.exact.condition_number
    lines.append(f"        condition number {condition:.3g}; expected to be within 1 % after {soon}")
    if plan.lr > plan.lr_limit:
        lines.append(f"        warning: this lr diverges; stay below {plan.lr_limit:.3g}, or leave out --model.lr")
    return "\n".join(lines)
