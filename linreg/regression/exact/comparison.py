"""What is said of a training beside the exact solution: how far it came, and what to do about it."""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

from linreg.regression.exact.baseline import OVERTIME_TOLERANCE, TOLERANCE, farthest_target
from linreg.regression.exact.coefficients import Row
from linreg.regression.exact.learning_rate import GOAL, MAX_CELLS, MAX_STEPS, MOMENTA, HessianSpectrum, make_plan
from linreg.system.screen import counted, told_from, wrapped

Metrics = dict[str, Any]
TRIED = 1_000  # rows
HUGE, LEAST = 1e6, 1e-300  # a share of which no digit says anything, and what it can be a share of


def verdict(metrics: Metrics, model: Any, rows: list[Row]) -> str:
    """How good the trained model is, from the content of metrics.json and the rows of its coefficients.

    A linear model is held against its optimum on the training rows; any other against the exact linear fit on rows that
    neither has seen, by the loss that it was trained on if the other has it too, and by what is worse of it.
    """
    if metrics.get("excess_mse") is None:
        return "no exact solution to compare with"
    lines = beside_optimum(metrics, model, rows) if model.knows_optimum else beside_linear_fit(metrics, model)
    return "\n".join(wrapped(line) for line in lines)


def beside_optimum(metrics: Metrics, model: Any, rows: list[Row]) -> Iterator[str]:
    """How far a linear model is from its optimum, and what to do where it missed that."""
    loss, share = "loss", "excess_loss" if "excess_loss" in metrics else "excess_mse"
    if model.penalty:
        loss = "loss with weight decay"
    elif share == "excess_loss":
        loss = f"loss of {farthest_target(model)[1]}, the farthest target,"
    if model.exact is None or model.exact.degrees_of_freedom or model.penalty:
        yield f"training {loss} is {_difference(metrics[share])} the optimum"
    else:
        yield "as many columns as rows: the exact solution fits every row, nothing is left to compare"
    known = [row for row in rows if 0 < row["std_error"] < math.inf and math.isfinite(row["exact"])]
    if known:
        distance, name = max((abs(row["learned"] - row["exact"]) / row["std_error"], row["name"]) for row in known)
        yield f"the farthest coefficient, {name}, is {_plainly(distance)} standard errors from its exact value"
    yield from next_step(metrics[share], model) or afterword(metrics[share], model)


def beside_linear_fit(metrics: Metrics, model: Any) -> Iterator[str]:
    """How a model does beside the exact linear fit, and beside the mean, on the rows that were held out."""
    unseen = [split for split in ("val", "test") if split in metrics]
    if not unseen:
        yield "no rows were held out, so it cannot be compared with a linear fit"
    loss, mse = ({split: share(metrics, split, name) for split in unseen} for name in ("loss", "mse"))
    if unseen and model.has_own_loss and None in loss.values():
        why = "is that of its own step" if model.has_own_step else "is not 0 for predictions that are the targets"
        yield f"its loss {why}, so that a linear fit has none to compare"
    for name, shares in (("loss", loss), ("mse", mse)):
        told = {s: value for s, value in shares.items() if value is not None}
        if name == "mse":  # of which no more is said than that it is worse, where the loss is said to be better
            told = {s: value for s, value in told.items() if (of_loss := loss[s]) is None or of_loss <= 0 < value}
        if told:
            parts = [f"{_difference(value)} that of the exact linear fit on the {s} rows" for s, value in told.items()]
            yield f"{name} is {', '.join(parts)}"
    r2 = {split: metrics[split].get("r2") for split in unseen}
    if worse := [f"{split} {value:.2g}" for split, value in r2.items() if value is not None and value < 0]:
        yield f"worse than predicting the mean of the target: r2 of {', '.join(worse)}"


def share(metrics: Metrics, split: str, name: str) -> float | None:
    """How far a metric is above that of the exact linear fit, as a share of it; None where one of them is unknown."""
    value, other = (found[split].get(name) for found in (metrics, metrics["exact"]))
    return None if value is None or other is None else (value - other) / max(other, LEAST)


def comparable_loss(model: Any, data: Any) -> Callable[..., Any] | None:
    """A model's own loss of (x, y, y_hat) for any predictions, where it is one: 0 if they are the targets."""

    def loss(x: Any, y: Any, y_hat: Any) -> Any:
        return model.loss(*(model.y_standardizer(side).to(model.dtype) for side in (y_hat, y)))

    if not model.has_own_loss or model.has_own_step:
        return None
    y = next(y for _, y in data.splits.values() if len(y))[:TRIED].to(model.device)
    some = y[: len(y) // 2 + 1]  # fewer rows too: a loss may use what its hypothesis kept of the last ones
    with torch.inference_mode(), contextlib.suppress(Exception):  # nothing that it is asked here may end a run
        return loss if all(abs(float(loss(None, rows, rows))) < 1e-6 for rows in (y, some)) else None
    return None


def next_step(share: float, model: Any) -> list[str]:
    """What to do where the optimum was missed, a line or none."""
    plan, trainer = getattr(model, "plan", None), model.trainer
    if abs(share) <= GOAL:
        return []
    if plan is None:
        epochs = counted(trainer.current_epoch, "epoch")
        return [f"{epochs} were too few at this rate: raise --max_epochs, or try another --model.lr"]
    leave_out = "" if model.lr is None else ", or leave out --model.lr"
    expected = math.ceil(plan.steps_to_goal / max(int(trainer.num_training_batches), 1))
    if plan.lr > plan.lr_limit:
        times = told_from(plan.lr / plan.lr_limit, 1, 3)
        return [f"lr {plan.lr:.3g} is {times} times the full-batch limit {plan.lr_limit:.3g}: lower it{leave_out}"]
    if trainer.current_epoch < expected:
        about = f"more than {expected:,}" if plan.steps_to_goal >= MAX_STEPS else f"about {expected:,}"
        return [f"{trainer.current_epoch:,} of {about} epochs: raise --max_epochs{leave_out}"]
    if plan.noise > GOAL / 2:
        return [f"batches of {plan.batch_size:,} at lr {plan.lr:.3g} {_rattle(plan.noise)}: lower it{leave_out}"]
    return []


def afterword(share: float, model: Any) -> list[str]:
    """Of a run that came near: where it stood at its end, if the best epoch was luck, and what ended it short."""
    plan, way, lines = getattr(model, "plan", None), model.baseline, []
    if plan is not None and plan.noise > GOAL and not plan.decay and len(way.history):
        last = _difference(float(way.history[-1, 2]))
        lines.append(f"the last epoch was {last} it; batches of {plan.batch_size:,} {_rattle(plan.noise)} at this lr")
    if not way.may_stop or abs(share) <= TOLERANCE:
        return lines
    cap, is_plain = f"{model.trainer.max_epochs:,}", plan is None or not plan.decay
    farther = "raise --max_epochs" if is_plain else flags_to_the_end(model)
    if plan is not None and way.ended_at == OVERTIME_TOLERANCE:
        rule = f"{_percent(TOLERANCE)}, after step {plan.steps:,} within {_percent(OVERTIME_TOLERANCE)}"
        lines.append(f"a run ends within {rule}: {farther}")
    elif model.trainer.current_epoch >= model.trainer.max_epochs:
        lines.append(f"{cap} of {cap} epochs, the most that a run takes by itself: {farther}")
    return lines


def flags_to_the_end(model: Any) -> str:
    """What is expected to come within the tolerance where noise is in the way: all rows a step, soonest of momenta."""
    exact, how = model.exact, (model.nesterov, model.weight_decay)
    if exact.num_rows * exact.num_features > MAX_CELLS:
        return "take a smaller --model.lr, and raise --max_epochs"
    modes = HessianSpectrum(exact, model.weight_decay)
    plans = [make_plan(exact, exact.num_rows, None, momentum, *how) for momentum in MOMENTA[int(model.nesterov) :]]
    steps, momentum = min((modes.steps_to(TOLERANCE, p.lr, p.momentum, model.nesterov), p.momentum) for p in plans)
    return f"last.ckpt comes to it with --batch_size {exact.num_rows} --momentum {momentum:g} --max_epochs {steps}"


def _difference(share: float) -> str:
    if share > HUGE:
        return "more than a million times"
    return f"{_plainly(1 + share)} times" if share >= 1 else f"{_percent(share)} {'above' if share > 0 else 'below'}"


def _rattle(level: float) -> str:
    return "make noise that grows without end" if math.isinf(level) else f"rattle by about {_percent(level)}"


def _percent(share: float) -> str:
    return "less than 0.0001 %" if abs(share) < 1e-6 else f"{_plainly(abs(100 * share))} %"


def _plainly(value: float) -> str:
    """Two digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
