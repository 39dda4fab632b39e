"""Quantile regression: another loss for the lecture's hypothesis (Koenker and Bassett 1978)."""

from typing import Any

import torch
from torch import Tensor, nn

from linreg import Regressor


class QuantileRegression(Regressor):
    """A line below which a share of the targets lies; its verdict is about the pinball loss, and not the MSE.

    Args:
        num_features: D.
        num_targets: T.
        quantile: that share, between 0 and 1.
        **training: see Regressor.
    """

    def __init__(self, num_features: int, num_targets: int = 1, quantile: float = 0.9, **training: Any) -> None:
        super().__init__(nn.Linear(num_features, num_targets), num_features, num_targets, **training)
        self.quantile = quantile

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        residual = y - y_hat
        return torch.maximum(self.quantile * residual, (self.quantile - 1) * residual).mean()
