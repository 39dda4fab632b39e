"""Mini-batches straight from tensors, in an order that is a function of (seed, epoch) alone."""

from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor


class TensorBatches:
    """Iterates over the rows of ``x`` and ``y`` in batches; a Lightning loader without workers or per-row Python.

    The order of the rows depends on the seed and the epoch only, so a resumed run sees what the uninterrupted run
    would have seen. Under several processes each takes its share of the same global batch, and every row once.

    Args:
        x: (N, D) features.
        y: (N, T) targets.
        batch_size: rows of a (global) batch, at least 1; N or more yields all rows at once, in place.
        seed: shuffles the rows anew in each epoch; None keeps their order.
    """

    batch_sampler = None  # Lightning looks for it wherever there is a sampler

    def __init__(self, x: Tensor, y: Tensor, batch_size: int, seed: int | None = None) -> None:
        self.x, self.y, self.batch_size, self.seed = x, y, batch_size, seed
        self.epoch = 0

    @property
    def sampler(self) -> "TensorBatches":
        """Lightning calls ``loader.sampler.set_epoch(epoch)`` before each epoch, also after a resume."""
        return self

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.x) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        num_rows = len(self.x)
        if self.batch_size >= num_rows and world == 1:
            yield self.x, self.y  # batch gradient descent: the same rows in any order, so nothing is gathered
            return
        order = torch.arange(num_rows)
        if self.seed is not None:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            order = torch.randperm(num_rows, generator=generator)
        for rows in order.to(self.x.device).split(self.batch_size):
            rows = rows[rank::world]
            yield self.x.index_select(0, rows), self.y.index_select(0, rows)
