"""A table's fingerprint, which a checkpoint holds, to know the rows that it was trained on when it meets them again."""

from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import Tensor

SAMPLED = 4_096  # rows of a split whose bits are looked at where it is large
Sides: TypeAlias = tuple[Tensor, Tensor]  # x (N, D), y (N, T)


def fingerprint(splits: Mapping[str, Sides], is_sampled: bool) -> Tensor:
    """Rows and weighted sums of each column of each split (S, 1 + D + T), in which any other row or order shows.

    Args:
        splits: the rows of each, in their order.
        is_sampled: whether to look at some of its rows, evenly spaced.
    """
    sums = []
    for split in splits.values():
        every = max(len(split[0]) // SAMPLED, 1) if is_sampled else 1
        weights = torch.arange(1, len(split[0][::every]) + 1, dtype=torch.float64).mul_(12.9898).cos_()
        num_rows = torch.tensor([len(split[0])], dtype=torch.float64)
        sums.append(torch.cat([num_rows, *(weights @ part[::every].double() for part in split)]))
    return torch.stack(sums)


def is_near(before: Tensor, now: Tensor, sides: Sides) -> bool:
    """Whether two fingerprints are the same but for rounding, by the sizes of the values of a table's two sides."""
    if (before.shape, before.dtype) != (now.shape, now.dtype):
        return False
    size = torch.cat([torch.maximum(side.amax(0).abs(), side.amin(0).abs()).double() for side in sides])
    rounding = 1e-14 * now[:, :1] * torch.cat([torch.zeros(1), size])
    return bool(((before - now).abs() <= rounding).all())
