"""The lecture's model, whose optimum is known."""

from typing import Any

import torch
from torch import Tensor, nn

from linreg.regression.regressor import Regressor

NO_RESIDUAL = 1e-10  # of the target's variance: a float32 model cannot follow an exact fit below it


def excess(mse: float, exact: float, variance: float) -> float:
    """``(mse - exact) / exact``; where an exact fit leaves less than 1e-10 of the variance, that stands in for it."""
    return (mse - exact) / (max(exact, NO_RESIDUAL * variance) or 1.0)


class LinearRegression(Regressor):
    """The lecture's hypothesis ``H(x) = W x + b``.

    Args:
        num_features: D.
        num_targets: T.
        bias: whether there is a b; without one the plane goes through the origin of the data's own units.
        **training: see Regressor.
    """

    is_linear = True

    def __init__(self, num_features: int, num_targets: int = 1, bias: bool = True, **training: Any) -> None:
        self.has_intercept = bias
        hypothesis = nn.Linear(num_features, num_targets, bias)
        for parameter in hypothesis.parameters():
            nn.init.zeros_(parameter)  # from zero, descent finds the minimum norm where several weights fit best
        super().__init__(hypothesis, num_features, num_targets, **training)

    @property
    def coef(self) -> Tensor:
        """W (T, D) in the data's units, in float64."""
        return self.hypothesis.weight.detach() * self.y_standardizer.std[:, None] / self.x_standardizer.std

    @property
    def intercept(self) -> Tensor:
        """b (T,) in the data's units, in float64; zeros without a bias."""
        if self.hypothesis.bias is None:
            return torch.zeros_like(self.y_standardizer.mean)
        return self.y_standardizer.inverse(self.hypothesis.bias.detach()) - self.coef @ self.x_standardizer.mean

    def weight_error(self) -> float | None:
        """The distance of the weight from the exact one, as a share of its length, in standardized units."""
        if self.summary is None:
            return None
        exact = self.summary.weight(self.weight_decay)
        return float((self.hypothesis.weight.detach().cpu() - exact).norm() / (exact.norm() or 1.0))

    def excess_mse(self) -> float | None:
        """As in Regressor; it follows from the summary, without a pass over the rows."""
        if self.summary is None:
            return None
        bias = 0.0 if self.hypothesis.bias is None else self.hypothesis.bias.detach().cpu()
        variance = self.y_standardizer.std.cpu() ** 2  # targets count in their own units, as in the metrics
        mse = self.summary.mse(self.hypothesis.weight.detach().cpu(), bias) @ variance
        exact = self.summary.mse(self.summary.weight(self.weight_decay)) @ variance
        return excess(float(mse), float(exact), float(variance.sum()))
