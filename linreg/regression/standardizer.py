"""Standardization as a layer: the checkpoint that holds the weights holds their units too."""

from collections.abc import Callable, Iterable
from functools import reduce

import torch
from torch import Tensor, nn

from linreg.system.ranks import gathered

Sums = tuple[int, Tensor, Tensor, Tensor, Tensor]  # of some rows: their number, means, squares about these, least, most


class Standardized(tuple[Tensor, Tensor]):
    """A batch (x, y), both float32, that is in standardized units already."""


class Standardizer(nn.Module):
    """Maps columns to mean 0 and standard deviation 1, and back.

    The arithmetic is float64 whatever the model's precision: a column of years or of Unix times keeps 3e-7 of its
    spread when it is standardized in float64 and cast afterwards, and 9e-4 the other way round.

    Args:
        num_columns: the number of columns, C.

    Shapes:
        ``forward`` and ``inverse`` take (N, C) and return (N, C) in float64.
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


def _both(one: Sums, other: Sums) -> Sums:
    """What is kept of both: Chan, Golub & LeVeque 1979."""
    (n, mean, squares, low, high), (m, *others) = one, other
    if not m:
        return one
    shift = others[0] - mean
    squares = squares + others[1] + shift**2 * n * m / (n + m)
    return n + m, mean + shift * m / (n + m), squares, others[2].clamp(max=low), others[3].clamp(min=high)


def moments(batches: Iterable[tuple[Tensor, Tensor]], intercept: bool = True) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (D + T,) of tables too wide for a ``LeastSquares``, from batches in order."""
    zero = torch.zeros(())
    none: Sums = (0, zero, zero, zero + torch.inf, zero - torch.inf)
    rows = (torch.cat(batch, dim=1).double() for batch in batches)
    each = ((len(x), x.mean(0), (x - x.mean(0)).square().sum(0), x.amin(0), x.amax(0)) for x in rows)
    n, mean, squares, low, high = reduce(_both, gathered(reduce(_both, each, none)))
    if not intercept:
        squares, mean = squares + n * mean**2, torch.zeros_like(mean)
    std = (squares / n).sqrt()
    return mean, torch.where((std == 0) | (intercept & (low == high)), 1.0, std)
