"""The metrics of a regression, in the target's units, summed in float64 over all rows of a stage."""

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MeanSquaredError, MetricCollection, R2Score

from linreg.system.errors import InputError

LOADER = "/dataloader_idx_"  # Lightning's mark of one of several loaders, at the end of a tag


class ShiftedR2(R2Score):
    """R2 (NaN of a target of one value) of targets (N, T) that may lie far from 0, in units however small.

    It is summed about ``center`` (T,), which changes nothing but the digits: squares of years lose those of days.
    """

    center: Tensor | float = 0.0

    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update(preds - self.center, target - self.center)

    def compute(self) -> Tensor:
        squares = self.sum_squared_error - self.sum_error * (self.sum_error / self.total)
        varies = squares > 1e-13 * self.sum_squared_error  # else they are rounding; torchmetrics draws the line at 1e-4
        return torch.where(varies, 1 - self.residual / squares, torch.nan).mean()


class RegressionMetrics(MetricCollection):
    """MSE, RMSE, MAE and R2 of predictions and targets, both (N, T); ``add_metrics`` adds others."""

    def __init__(self) -> None:
        rmse, mae = MeanSquaredError(squared=False), MeanAbsoluteError()
        super().__init__({"mse": MeanSquaredError(), "rmse": rmse, "mae": mae, "r2": ShiftedR2()})
        self.set_dtype(torch.float64)


def about(center: Tensor, metrics: MetricCollection) -> MetricCollection:
    """The metrics, all in float64, and R2 summed about a center (T,)."""
    for metric in metrics.values(copy_state=False):
        metric.set_dtype(torch.float64)
        if isinstance(metric, ShiftedR2):
            metric.center = center
    return metrics


def apart(values: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The metrics that are one number, and as nested lists those that are tables; InputError for what is neither."""
    for tag, value in values.items():
        if not isinstance(value, Tensor):
            found = f"the metric {tag} is a {type(value).__name__}, where a tensor is expected"
            raise InputError(f"{found}; take one of a number, such as the area of a curve, or a table")
    tables = {tag: as_plain(value) for tag, value in values.items() if value.numel() > 1}
    return {tag: value for tag, value in values.items() if value.numel() == 1}, tables


def as_plain(value: Any) -> Any:
    """A metric's value as JSON can hold it: a number, nested lists of them for a table, None for what is not finite."""
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, list):
        return [as_plain(each) for each in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None
