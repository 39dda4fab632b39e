"""Poisson regression: counts, whose expected number is the exponential of a line (Nelder and Wedderburn 1972)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import poisson_nll_loss

from linreg import RegressionData, Regressor, Table


class Visits(RegressionData):
    """Counts that double with about three more of the first column, or with seven less of the second."""

    def load(self) -> Table:
        generator = torch.Generator().manual_seed(0)
        x = 10 + 3 * torch.randn(2_000, 2, generator=generator)
        expected = (x @ torch.tensor([[0.2], [-0.1]])).exp()
        return Table(x, torch.poisson(expected, generator=generator), ["distance", "price"], ["visits"])


class Exponential(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.exp()


class PoissonRegression(Regressor):
    """Its prediction is a number above 0; its verdict compares the squared errors with those of the linear fit.

    Args:
        num_features: D.
        num_targets: T.
        **training: see Regressor.
    """

    def __init__(self, num_features: int, num_targets: int = 1, **training: Any) -> None:
        hypothesis = nn.Sequential(nn.Linear(num_features, num_targets), Exponential())
        super().__init__(hypothesis, num_features, num_targets, **training)

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        return poisson_nll_loss(y_hat, y, log_input=False)

    def fit_standardizers(self, rows: Any) -> None:
        super().fit_standardizers(rows)
        std = self.y_standardizer.std
        self.y_standardizer.fit(torch.zeros_like(std), torch.ones_like(std))  # a count stays what it is
