"""A convolutional network on pictures of digits, which are drawn here, with dropout and its accuracy."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics.classification import MulticlassAccuracy

from linreg import DataModule, Module

SHAPES = ["111101101101111", "010110010010111", "111001111100111", "111001111001111", "101101111001001"]
SHAPES += ["111100111001111", "111100111101111", "111001010010010", "111101111101111", "111101111001111"]  # 5 x 3


class Digits(DataModule):
    """Pictures (1, 8, 8) of the digits 0 to 9, each somewhere in its picture; the ground is 0, a digit 1, and noise."""

    def __init__(self, num_rows: int = 4_000, noise_std: float = 0.2, **loading: Any) -> None:
        super().__init__(**loading)
        self.num_rows, self.noise_std = num_rows, noise_std

    def load(self) -> Any:
        generator = torch.Generator().manual_seed(0)
        shapes = torch.tensor([[int(pixel) for pixel in shape] for shape in SHAPES]).reshape(10, 5, 3)
        x = self.noise_std * torch.randn(self.num_rows, 1, 8, 8, generator=generator)
        y = torch.arange(self.num_rows) % 10
        corners = torch.stack([torch.randint(0, most, (self.num_rows,), generator=generator) for most in (4, 6)], 1)
        for picture, digit, (top, left) in zip(x, y, corners.tolist(), strict=True):
            picture[0, top : top + 5, left : left + 3] += shapes[digit]
        return x, y


class CNN(Module):
    def __init__(self, num_classes: int, width: int = 16, dropout: float = 0.2, **training: Any) -> None:
        layers = [nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU()]
        layers += [nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(dropout), nn.Linear(32 * width, num_classes)]
        super().__init__(nn.Sequential(*layers), {"accuracy": MulticlassAccuracy(num_classes)}, **training)

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(y_hat, y)
