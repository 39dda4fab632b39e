"""A table's fingerprint, which a checkpoint holds, to know the rows that it was trained on when it meets them again."""

from collections.abc import Mapping

import torch
from torch import Tensor

SAMPLED = 4_096  # rows of a split whose bits are looked at where it is large


def fingerprint(splits: Mapping[str, tuple[Tensor, Tensor]], is_sampled: bool) -> Tensor:
    """Rows and weighted sums of each column of each split (S, 1 + D + T), in which any other row or order shows.

    Args:
        splits: the rows x (N, D), y (N, T) of each, in their order.
        is_sampled: whether to look at some of its rows, evenly spaced.
    """
    sums = []
    for split in splits.values():
        every = max(len(split[0]) // SAMPLED, 1) if is_sampled else 1
        weights = torch.arange(1, len(split[0][::every]) + 1, dtype=torch.float64).mul_(12.9898).cos_()
        num_rows = torch.tensor([len(split[0])], dtype=torch.float64)
        sums.append(torch.cat([num_rows, *(weights @ part[::every].double() for part in split)]))
    return torch.stack(sums)
