"""A recurrent network on windows of a series, which is split by time: it never sees a value of a later split."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torchmetrics import MeanAbsoluteError

from linreg import DataModule, Module, Windows


class Waves(DataModule):
    """Windows (length, 1) of two waves and noise, and the value (1, 1) after each."""

    def __init__(self, length: int = 24, num_values: int = 2_000, **loading: Any) -> None:
        super().__init__(split="order", **loading)
        self.length, self.num_values = length, num_values

    def load(self) -> Any:
        time = torch.arange(self.num_values)
        noise = torch.randn(self.num_values, generator=torch.Generator().manual_seed(0))
        series = (time / 3).sin() + (time / 7).cos() + 0.1 * noise
        return Windows(series[:, None], self.length)


class Recurrent(Module):
    """A GRU, whose last state says the next value.

    Args:
        input_shape: of the data, (length, values at a time).
        width: of its state.
        **training: see Module.
    """

    def __init__(self, input_shape: list[int], width: int = 32, **training: Any) -> None:
        super().__init__(metrics={"mae": MeanAbsoluteError()}, **training)
        self.gru, self.head = nn.GRU(input_shape[-1], width, batch_first=True), nn.Linear(width, input_shape[-1])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(x)[0][:, -1:])

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        return mse_loss(y_hat, y)
