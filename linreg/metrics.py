"""The metrics of a regression, in the target's units."""

import torch
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MeanSquaredError, MetricCollection, R2Score


class _R2(R2Score):
    def compute(self) -> Tensor:
        return super().compute() if self.total > 1 else torch.full_like(self.residual.mean(), torch.nan)


class RegressionMetrics(MetricCollection):
    """MSE, RMSE, MAE and R2 (NaN for fewer than two rows), summed in float64.

    Args:
        postfix: appended to the names mse, rmse, mae and r2.
        share: whether several processes have seen different rows, so that their sums have to be added.
    """

    def __init__(self, postfix: str | None = None, share: bool = True) -> None:
        rmse = MeanSquaredError(squared=False, sync_on_compute=share)
        mse, mae, r2 = (cls(sync_on_compute=share) for cls in (MeanSquaredError, MeanAbsoluteError, _R2))
        metrics = {"mse": mse, "rmse": rmse, "mae": mae, "r2": r2}
        super().__init__(metrics, postfix=postfix)
        self.set_dtype(torch.float64)
