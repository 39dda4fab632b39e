"""The report of a regression: learned beside exact beside true, the metrics of each split, and a verdict."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from linreg.metrics import about, as_plain
from linreg.regression.exact.baseline import excess, excess_loss
from linreg.regression.exact.coefficients import Row, as_csv, coefficient_rows
from linreg.report.figures import MAX_POINTS, fitted_line, predicted_vs_actual, to_image
from linreg.report.findings import Findings, show_number, table

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
    findings = Findings(metrics, show(metrics, rows, model.knows_optimum), verdict(metrics, model))
    findings.excess = None if model.has_own_loss else share
    findings.is_optimum, findings.rows = model.knows_optimum, rows
    findings.files, findings.images = {"coefficients.csv": as_csv(rows)}, lambda: draw(model, data)
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
    """The table learned / exact / true, and the metrics beside those of the exact solution."""
    columns = [column for column in coefficients[0] if column != "name"]
    shown = coefficients if len(coefficients) <= SHOWN + 1 else [*coefficients[:SHOWN], coefficients[-1]]
    lines = table(
        [["coefficient", *columns]] + [[row["name"], *(show_number(row[name]) for name in columns)] for row in shown]
    )
    if len(shown) < len(coefficients):
        lines.insert(-1, f"  ... {len(coefficients) - len(shown)} more in coefficients.csv")
    exact = metrics.get("exact", {})
    rows = [["metric", "learned", *(["exact" if linear else "linear"] if exact else [])]]
    for split in [name for name in ("train", "val", "test") if name in metrics]:
        for name, value in metrics[split].items():
            if isinstance(value, list):
                continue  # which metrics.json holds
            other = [show_number(exact[split][name])] if exact else []
            rows.append([f"{name}/{split}", show_number(value), *other])
    return "\n".join([*lines, "", *table(rows)])


def verdict(metrics: dict[str, Any], model: Any) -> str:
    """One line that says how far the training came.

    A linear model is held against its optimum on the training rows; any other against the exact linear fit on rows that
    neither has seen, by the loss that it was trained on.
    """
    if metrics.get("excess_mse") is None:
        return "no exact solution to compare with"
    if model.knows_optimum:
        loss = "loss with weight decay" if model.penalty else "loss"
        return f"training {loss} is {_difference(metrics.get('excess_loss', metrics['excess_mse']))} the optimum"
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


def _difference(share: float) -> str:
    return f"{abs(100 * share):.2g} % {'above' if share > 0 else 'below'}"


def draw(model: Any, data: Any) -> dict[str, np.ndarray]:
    """Predicted against actual, and for a single feature the line itself, by tag."""
    split = "test" if data.row_counts["test"] else "train"
    x, y = (part[:: -(-len(part) // MAX_POINTS)] for part in data.splits[split])
    was_training = model.training
    with torch.inference_mode():
        y_hat = model.eval()(x.to(model.device)).cpu()
    model.train(was_training)
    images = {}
    for t, target in enumerate(data.target_names):
        figures = {f"predicted_vs_actual/{split}": predicted_vs_actual(y_hat[:, t], y[:, t], target)}
        if x.shape[1] == 1 and model.exact is not None:
            exact = model.exact.predict(x, model.penalty)[:, t]
            feature = data.feature_names[0]
            figures[f"regression_line/{split}"] = fitted_line(x[:, 0], y[:, t], y_hat[:, t], exact, feature, target)
        for tag, figure in figures.items():
            images[tag if len(data.target_names) == 1 else f"{tag}/{target}"] = to_image(figure)
    return images
