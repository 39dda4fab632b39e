"""The report of a regression: learned beside exact beside true, and the metrics of each split beside those of exact."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from linreg.metrics import as_plain
from linreg.module import by_name
from linreg.regression.exact.baseline import excess, excess_loss
from linreg.regression.exact.coefficients import Row, as_csv, coefficient_rows
from linreg.regression.exact.comparison import comparable_loss, verdict
from linreg.report.findings import Findings, show_number, table
from linreg.system.ranks import summed

SHOWN = 20  # coefficients on screen
Loss = Callable[[Tensor, Tensor, Tensor], Any]  # of x, y and predictions


def report(model: Any, data: Any, confidence: float | None = None) -> Findings:
    """What a trained Regressor amounts to beside the exact solution of its training rows, in evaluation mode.

    With a ``confidence``, between 0 and 1, the coefficients have intervals.
    """
    with in_evaluation(model):
        exact = model.exact
        splits = [name for name, split in data.splits.items() if len(split[0])]
        loss = (lambda x, y, y_hat: by_name(model.step((x, y)))["loss"]) if model.has_own_loss else None
        metrics: dict[str, Any] = {name: measure(model, model, data, name, loss) for name in splits}
        share = None
        if exact is not None:
            predict, loss = partial(exact.predict, weight_decay=model.penalty), comparable_loss(model, data)
            metrics["exact"] = {name: measure(model, predict, data, name, loss) for name in splits}
            variance = float((model.y_standardizer.std**2).mean())
            if "train" in metrics and "mse" in metrics["train"]:
                share = excess(metrics["train"]["mse"], metrics["exact"]["train"]["mse"], variance)
                metrics["excess_mse"] = share
            if (of_loss := excess_loss(model)) is not None:
                share = metrics["excess_loss"] = of_loss
        metrics["rows"] = data.row_counts
        rows = coefficient_rows(model, data.table, confidence)
    text, known = show(metrics, rows, model.knows_optimum), None if model.has_own_loss else share
    files = {"coefficients.csv": as_csv(rows)}
    return Findings(metrics, text, verdict(metrics, model, rows), known, model.knows_optimum, rows, files)


@contextmanager
def in_evaluation(model: Any) -> Iterator[None]:
    """A model in evaluation mode; afterwards each of its parts is in its own again."""
    modes = {part: part.training for part in model.modules()}
    model.eval()
    yield
    for part, mode in modes.items():
        part.training = mode


@torch.inference_mode()
def measure(
    model: Any, predict: Callable[[Tensor], Tensor], data: Any, split: str, loss: Loss | None
) -> dict[str, Any]:
    """The model's metrics of a split's rows under any prediction, in the target's units; None if not finite.

    The loss is among them where it is not the mean squared error.
    """
    metrics, batches = model.fresh_metrics(), data.evaluation_batches(split)
    for metric in metrics.values(copy_state=False):
        metric.distributed_available_fn = lambda: batches.world > 1  # else every process has all of the rows
    total, num_rows = 0.0, 0
    for x, y in batches:
        x, y = x.to(model.device), y.to(model.device)
        y_hat = predict(x)
        metrics.update(y_hat, y)
        total, num_rows = total + (float(loss(x, y, y_hat)) * len(y) if loss else 0.0), num_rows + len(y)
    values = {name: as_plain(value) for name, value in metrics.compute().items()}
    if loss:
        totals = torch.tensor([total, num_rows], dtype=torch.float64)
        totals = summed(totals) if batches.world > 1 else totals
        values["loss"] = as_plain(float(totals[0] / totals[1]))
    order = dict.fromkeys(("loss", "mse", "rmse", "mae", "r2", *values))
    return {name: values[name] for name in order if name in values}


def show(metrics: dict[str, Any], coefficients: list[Row], linear: bool) -> str:
    """The table learned / exact / true, and the metrics of each split beside those of the exact solution."""
    columns = [column for column in coefficients[0] if column != "name"]
    shown = coefficients if len(coefficients) <= SHOWN + 1 else [*coefficients[:SHOWN], coefficients[-1]]
    cells = [[row["name"], *(show_number(row[name]) for name in columns)] for row in shown]
    lines = table([["coefficient", *columns], *cells])
    if len(shown) < len(coefficients):
        lines.insert(-1, f"  ... {len(coefficients) - len(shown)} more in coefficients.csv")
    exact, splits = metrics.get("exact"), [name for name in ("train", "val", "test") if name in metrics]
    beside = ["exact" if linear else "linear"] if exact else []
    rows = [["metric", *(column for split in splits for column in (split, *beside))]]
    for name, value in metrics[splits[0]].items() if splits else ():
        if isinstance(value, list):
            continue  # a table, which metrics.json holds
        sides = [(metrics[split], exact[split]) if exact else (metrics[split],) for split in splits]
        rows.append([name, *(show_number(side.get(name), 4) for pair in sides for side in pair)])
    return "\n".join([*lines, "", *table(rows)])
