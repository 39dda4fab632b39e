"""The report of a regression: learned beside exact beside true, the metrics of each split, and a verdict."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from linreg.metrics import about, as_plain
from linreg.regression.exact.baseline import excess, excess_loss
from linreg.regression.exact.coefficients import Row, as_csv, coefficient_rows
from linreg.regression.exact.learning_rate import GOAL, MAX_STEPS
from linreg.report.findings import Findings, show_number, table
from linreg.system.screen import wrapped

SHOWN = 20  # coefficients on screen


def report(model: Any, data: Any, confidence: float | None = None) -> Findings:
    """What a trained Regressor amounts to beside the exact solution of its training rows.

    Args:
        model: trained; measured in evaluation mode, and left in the mode that it was in.
        data: the RegressionData that it was trained on, with all of its rows.
        confidence: of the intervals to add to the coefficients, between 0 and 1.
    """
    was_training = model.training
    model.eval()
    exact = model.exact
    splits = [name for name, split in data.splits.items() if len(split[0])]
    metrics: dict[str, Any] = {name: measure(model, model, data, name) for name in splits}
    share = None
    if exact is not None:

        def predict_exactly(x: Tensor) -> Tensor:
            return exact.predict(x, model.penalty)

        metrics["exact"] = {name: measure(model, predict_exactly, data, name) for name in splits}
        variance = float((model.y_standardizer.std**2).mean())
        if "train" in metrics and "mse" in metrics["train"]:
            share = excess(metrics["train"]["mse"], metrics["exact"]["train"]["mse"], variance)
            metrics["excess_mse"] = share
        if model.penalty:
            share = metrics["excess_loss"] = excess_loss(model)
    metrics["rows"] = data.row_counts
    rows = coefficient_rows(model, data.table, confidence)
    findings = Findings(metrics, show(metrics, rows, model.knows_optimum), verdict(metrics, model, rows))
    findings.excess = None if model.has_own_loss else share
    findings.is_optimum, findings.rows = model.knows_optimum, rows
    findings.files = {"coefficients.csv": as_csv(rows)}
    model.train(was_training)
    return findings


@torch.inference_mode()
def measure(model: Any, predict: Callable[[Tensor], Tensor], data: Any, split: str) -> dict[str, Any]:
    """The model's metrics of a split's rows under any prediction, in the target's units; None if not finite.

    The loss is among them where it is not the mean squared error.
    """
    metrics = about(data.splits[split][1].double().mean(0), model.fresh_metrics())
    for metric in metrics.values(copy_state=False):
        metric.sync_on_compute = False  # every process has all of the rows
    loss, num_rows = 0.0, 0
    for x, y in data.evaluation_batches(split):
        y_hat, y = predict(x.to(model.device)), y.to(model.device)
        metrics.update(y_hat, y)
        if model.has_own_loss:
            standardized = (model.y_standardizer(side).to(model.dtype) for side in (y_hat, y))
            loss, num_rows = loss + float(model.loss(*standardized)) * len(y), num_rows + len(y)
    values = {name: as_plain(value) for name, value in metrics.compute().items()}
    if model.has_own_loss:
        values["loss"] = loss / num_rows if math.isfinite(loss) else None
    first = [name for name in ("loss", "mse", "rmse", "mae", "r2") if name in values]
    return {name: values[name] for name in [*first, *(name for name in values if name not in first)]}


def show(metrics: dict[str, Any], coefficients: list[Row], linear: bool) -> str:
    """The table learned / exact / true, and the metrics of each split beside those of the exact solution."""
    columns = [column for column in coefficients[0] if column != "name"]
    shown = coefficients if len(coefficients) <= SHOWN + 1 else [*coefficients[:SHOWN], coefficients[-1]]
    lines = table(
        [["coefficient", *columns]] + [[row["name"], *(show_number(row[name]) for name in columns)] for row in shown]
    )
    if len(shown) < len(coefficients):
        lines.insert(-1, f"  ... {len(coefficients) - len(shown)} more in coefficients.csv")
    exact, splits = metrics.get("exact"), [name for name in ("train", "val", "test") if name in metrics]
    beside = ["exact" if linear else "linear"] if exact else []
    rows = [["metric", *(column for split in splits for column in (split, *beside))]]
    for name, value in metrics[splits[0]].items() if splits else ():
        if isinstance(value, list):
            continue  # a table, which metrics.json holds
        sides = [(metrics[split], exact[split]) if exact else (metrics[split],) for split in splits]
        rows.append([name, *(show_number(side[name], 4) for pair in sides for side in pair)])
    return "\n".join([*lines, "", *table(rows)])


def verdict(metrics: dict[str, Any], model: Any, rows: list[Row]) -> str:
    """How far the training came, and what to do about it.

    A linear model is held against its optimum on the training rows; any other against the exact linear fit on rows that
    neither has seen, by the loss that it was trained on.
    """
    if metrics.get("excess_mse") is None:
        return "no exact solution to compare with"
    if model.knows_optimum:
        loss, share = ("loss with weight decay" if model.penalty else "loss"), metrics["excess_mse"]
        share = metrics.get("excess_loss", share)
        lines = [f"training {loss} is {_difference(share)} the optimum"]
        known = [(abs(row["learned"] - row["exact"]) / row["std_error"], row["name"]) for row in rows if has_error(row)]
        if known:
            distance, name = max(known)
            lines.append(
                f"the farthest coefficient, {name}, is {_plainly(distance)} standard errors from its exact value"
            )
        return "\n".join(wrapped(line) for line in [*lines, *next_step(share, model)])
    unseen = [name for name in ("val", "test") if name in metrics]
    name, parts = "loss" if model.has_own_loss else "mse", []
    for split in unseen:
        value, other = metrics[split][name], metrics["exact"][split][name]
        if value is None or other is None or (name == "loss" and min(value, other) <= 0):
            return ""  # since no share says anything of it
        parts.append(
            f"{_difference((value - other) / (other or 1.0))} that of the exact linear fit on the {split} rows"
        )
    if not parts:
        return "no rows were held out, so it cannot be compared with a linear fit"
    return f"{name} is " + ", ".join(parts)


def has_error(row: Row) -> bool:
    """Whether a coefficient's distance from the exact one can be counted in standard errors."""
    return bool(row["std_error"] > 0 and math.isfinite(row["std_error"]) and math.isfinite(row["exact"]))


def next_step(share: float, model: Any) -> list[str]:
    """What to do where the optimum was missed, a line or none."""
    plan, trainer = getattr(model, "plan", None), model.trainer
    if plan is None or abs(share) <= GOAL:
        return []
    leave_out = "" if model.lr is None else ", or leave out --model.lr"
    a_epoch = max(int(trainer.num_training_batches), 1)
    expected = math.ceil(plan.steps_to_goal / a_epoch)
    if plan.lr > plan.lr_limit:
        return [f"lr {plan.lr:.3g} is above the full-batch limit {plan.lr_limit:.3g}: lower it{leave_out}"]
    if trainer.current_epoch < expected:
        about = f"more than {expected:,}" if plan.steps_to_goal >= MAX_STEPS else f"about {expected:,}"
        return [f"{trainer.current_epoch:,} of {about} epochs: raise --max_epochs{leave_out}"]
    if plan.noise > GOAL / 2:
        rattle = f"batches of {plan.batch_size:,} at lr {plan.lr:.3g} rattle by about {_percent(plan.noise)}"
        return [f"{rattle}: lower it{leave_out}"]
    return []


def _difference(share: float) -> str:
    return f"{_plainly(1 + share)} times" if share >= 1 else f"{_percent(share)} {'above' if share > 0 else 'below'}"


def _percent(share: float) -> str:
    return "less than 0.0001 %" if abs(share) < 1e-6 else f"{_plainly(abs(100 * share))} %"


def _plainly(value: float) -> str:
    """Two digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
