"""Models with one mistake each, for ``configs/broken``; not to be copied."""

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import mse_loss

from linreg import Module, Regressor


class Cut(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach()


class FrozenLayer(Regressor):
    """Its first layer stays as it was drawn, since no gradient passes the cut."""

    def __init__(self, num_features: int, num_targets: int = 1, width: int = 32, **training: Any) -> None:
        layers = nn.Linear(num_features, width), nn.ReLU(), Cut(), nn.Linear(width, num_targets)
        super().__init__(nn.Sequential(*layers), num_features, num_targets, **training)


class RawColumns(Module):
    """A line through columns as they are: the largest decides how small the rate has to be for all."""

    def __init__(self, num_features: int, num_targets: int = 1, **training: Any) -> None:
        line = nn.Linear(num_features, num_targets)
        for parameter in line.parameters():
            nn.init.zeros_(parameter)
        super().__init__(line, **training)

    def forward(self, x: Tensor) -> Tensor:
        return self.hypothesis(x.float())

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        return mse_loss(y_hat, y.float())
