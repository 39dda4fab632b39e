"""The end of a run: learned beside exact beside true, as a table on screen and as files in the run's folder."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from linreg.atomic import write_whole
from linreg.errors import RunError
from linreg.metrics import RegressionMetrics
from linreg.regression.exact.coefficients import Row, coefficient_rows, write_coefficients
from linreg.regression.exact.least_squares import LeastSquares
from linreg.regression.linear_regression import excess
from linreg.regression.regressor import Regressor
from linreg.report.figures import MAX_POINTS, fitted_line, predicted_vs_actual, to_image
from linreg.runs.folder import RunLogger
from linreg.screen import say
from linreg.tables.data import RegressionData

SHOWN = 20  # coefficients on screen


@dataclass
class Result:
    """What a trained model amounts to beside the exact solution of its training rows (None for too wide a table)."""

    model: Regressor
    data: RegressionData
    exact: LeastSquares | None

    def metrics(self) -> dict[str, Any]:
        """The content of metrics.json; null where a metric does not exist (R2 of one row)."""
        splits = {name: split for name, split in self.data.splits.items() if len(split[0])}
        result: dict[str, Any] = {name: measure(self.model, self.data, name) for name in splits}
        if self.exact is not None:
            result["exact"] = {name: measure(self.predict_exactly, self.data, name) for name in splits}
            variance = float((self.model.y_standardizer.std**2).mean())
            result["excess_mse"] = excess(result["train"]["mse"], result["exact"]["train"]["mse"], variance)
        return result | {"rows": self.data.row_counts}

    def predict_exactly(self, x: Tensor) -> Tensor:
        return self.exact.predict(x, self.model.weight_decay)


@torch.inference_mode()
def measure(predict: Callable[[Tensor], Tensor], data: RegressionData, split: str) -> dict[str, float | None]:
    """MSE, RMSE, MAE and R2 of a split's rows, in the target's units."""
    metrics = RegressionMetrics(share=False)
    mean = data.splits[split][1].mean(0)
    for x, y in data.in_order(split):
        metrics.update(predict(x) - mean, y - mean)
    values = {name: float(value) for name, value in metrics.compute().items()}
    return {name: values[name] if math.isfinite(values[name]) else None for name in ("mse", "rmse", "mae", "r2")}


def show(metrics: dict[str, Any], coefficients: list[Row], linear: bool) -> str:
    """The table learned / exact / true, the metrics beside the exact solution's, and the verdict."""
    columns = [column for column in coefficients[0] if column != "name"]
    shown = coefficients if len(coefficients) <= SHOWN + 1 else [*coefficients[:SHOWN], coefficients[-1]]
    lines = _table(
        [["coefficient", *columns]] + [[row["name"], *(_number(row[column]) for column in columns)] for row in shown]
    )
    if len(shown) < len(coefficients):
        lines.insert(-1, f"  ... {len(coefficients) - len(shown)} more in coefficients.csv")
    exact = metrics.get("exact", {})
    rows = [["metric", "learned", *(["exact"] if exact else [])]]
    for split in [name for name in ("train", "val", "test") if name in metrics]:
        for name, value in metrics[split].items():
            rows.append([f"{name}/{split}", _number(value), *([_number(exact[split][name])] if exact else [])])
    return "\n".join(["", *lines, "", *_table(rows), "", verdict(metrics, linear)])


def verdict(metrics: dict[str, Any], linear: bool) -> str:
    """One line that says how far the training came."""
    share = metrics.get("excess_mse")
    if share is None:
        return "no exact solution to compare with"
    percent = f"{abs(100 * share):.2g} %"
    side = "above" if share > 0 else "below"
    return f"training loss is {percent} {side} " + ("the optimum" if linear else "that of the exact linear fit")


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.7g}"


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    first, *others = widths
    return [
        "  ".join([row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], others, strict=True))])
        for row in rows
    ]


def finish(model: Regressor, data: RegressionData, logger: Any, confidence: float | None = None) -> float | None:
    """Reports on a trained model, into its run's folder if it has one and on screen; returns its excess MSE.

    Args:
        model: trained.
        data: what it was trained on.
        logger: a RunLogger, if the run has a folder.
        confidence: of the intervals to add to the coefficients, between 0 and 1.
    """
    result = Result(model, data, model.summary)
    metrics, coefficients = result.metrics(), coefficient_rows(model, data.table, confidence)
    lines = [show(metrics, coefficients, model.is_linear)]
    if isinstance(logger, RunLogger):
        folder = Path(logger.log_dir)
        write_whole(folder / "metrics.json", (json.dumps(metrics, indent=2) + "\n").encode())
        write_coefficients(folder / "coefficients.csv", coefficients)
        lines.append(f"run     {folder}")
        if logger.curves:
            draw(result, logger)
            logger.save()
            lines.append(f"curves  tensorboard --logdir {folder.parents[1]}")
    say("\n".join(lines))
    return metrics.get("excess_mse")


def check(share: float | None, most: float | None, linear: bool) -> None:
    """RunError if a run was asked to come within ``most`` of the exact solution and did not.

    Args:
        share: the excess MSE; a linear model's may be below 0 with weight decay, and has to be as near to 0.
        most: above 0; None asks for nothing.
        linear: whether the exact solution is the model's own optimum.
    """
    if most is not None and not (share is not None and (abs(share) if linear else share) <= most):
        found = "there is no exact solution to hold it against" if share is None else f"its excess_mse is {share:.2g}"
        raise RunError(f"the run missed --check {most:g}: {found}")


def draw(result: Result, logger: RunLogger) -> None:
    """Logs the pictures to TensorBoard: predicted against actual, and for a single feature the line itself."""
    split = "test" if result.data.row_counts["test"] else "train"
    x, y = (part[:: -(-len(part) // MAX_POINTS)] for part in result.data.splits[split])
    with torch.inference_mode():
        y_hat = result.model(x)
    step = result.model.trainer.global_step
    for t, target in enumerate(result.data.target_names):
        figures = {f"predicted_vs_actual/{split}": predicted_vs_actual(y_hat[:, t], y[:, t], target)}
        if x.shape[1] == 1 and result.exact is not None:
            exact = result.predict_exactly(x)[:, t]
            feature = result.data.feature_names[0]
            figures[f"regression_line/{split}"] = fitted_line(x[:, 0], y[:, t], y_hat[:, t], exact, feature, target)
        for tag, figure in figures.items():
            name = tag if len(result.data.target_names) == 1 else f"{tag}/{target}"
            logger.experiment.add_image(name, to_image(figure), step, dataformats="HWC")
