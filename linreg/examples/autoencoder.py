"""A variational autoencoder: several losses, each with its curve, of pictures without their labels."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from linreg import Module


class Autoencoder(Module):
    """Draws a code from a normal distribution that the picture decides, and the picture anew from that code.

    Args:
        input_shape: of the data.
        num_codes: numbers in a code.
        width: units of the hidden layers.
        beta: weight of the Kullback-Leibler divergence of the code from a standard normal one (Higgins et al. 2017).
        **training: see Module.
    """

    def __init__(
        self, input_shape: list[int], num_codes: int = 8, width: int = 128, beta: float = 0.01, **training: Any
    ) -> None:
        super().__init__(**training)
        pixels, self.beta = math.prod(input_shape), beta
        self.encode = nn.Sequential(nn.Flatten(), nn.Linear(pixels, width), nn.ReLU(), nn.Linear(width, 2 * num_codes))
        layers = [nn.Linear(num_codes, width), nn.ReLU(), nn.Linear(width, pixels), nn.Unflatten(1, input_shape)]
        self.decode = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """The picture (N, ...) again, from the mean of its code."""
        return self.decode(self.encode(x).chunk(2, dim=1)[0])

    def step(self, batch: Any) -> dict[str, Tensor]:
        x, _ = batch
        mean, log_variance = self.encode(x).chunk(2, dim=1)
        code = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        reconstruction = mse_loss(self.decode(code), x)
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).mean() / 2
        return {"loss": reconstruction + self.beta * divergence, "reconstruction": reconstruction, "kl": divergence}
