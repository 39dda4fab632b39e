"""Standardization as a layer: the checkpoint that holds the weights holds their units too."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class _Pair(NamedTuple):
    x: Tensor
    y: Tensor


class Standardized(_Pair):
    """A batch that is in standardized units already; of named fields, since DDP makes a plain tuple of any other.

    ``type(batch)((x, y))`` makes one, or a plain pair, like the batch of whatever stage it was.
    """

    def __new__(cls, x: Any, y: Any = None) -> "Standardized":
        return super().__new__(cls, *(x if y is None else (x, y)))


class Standardizer(nn.Module):
    """Maps columns to mean 0 and standard deviation 1, and back; ``forward`` and ``inverse`` take and give (N, C).

    The arithmetic is float64 whatever the model's precision: a column of years or of Unix times keeps 3e-7 of its
    spread when it is standardized in float64 and cast afterwards, and 9e-4 the other way round.

    Args:
        num_columns: the number of columns, C.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, num_columns: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_columns, dtype=torch.float64))
        self.register_buffer("std", torch.ones(num_columns, dtype=torch.float64))

    def fit(self, mean: Tensor, std: Tensor) -> None:
        """Takes over a mean and a standard deviation, each of shape (C,); a constant column's std has to be 1."""
        self.mean.copy_(mean)
        self.std.copy_(std)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def inverse(self, z: Tensor) -> Tensor:
        """From standardized units back to the data's own."""
        return z * self.std + self.mean

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Standardizer":
        # `model.half()` and `--precision bf16-true` move this layer to a device, but never out of float64.
        return super()._apply(lambda buffer: buffer.to(fn(buffer).device), recurse)
