"""Mini-batches straight from tensors, in an order that is a function of (seed, epoch) alone."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

NEAR, MIXED = 4_096, 16  # rows read together, and how many such blocks are mixed; 100 times as fast as rows at random


class TensorBatches:
    """Iterates over rows in batches; a Lightning loader without workers or per-row Python.

    The order of the rows depends on the seed and the epoch only, so a resumed run sees what the uninterrupted run
    would have seen. Several processes share each batch between them, and every row is seen once.

    Args:
        x: (N, D) features.
        y: (N, T) targets.
        batch_size: rows of a batch, of all processes together, at least 1.
        seed: shuffles the rows anew in each epoch, but yields N or more at once, in place; None keeps their order.
        distributed: False gives every process all rows.
        mapped: whether x and y are a file whose rows lie in random order already: then rows near each other are read
            together.
        kind: the class of tuple that a batch is.
        drop_last: whether to leave out the last batch where it is smaller, and not the only one.
    """

    batch_sampler = None  # Lightning looks for it wherever there is a sampler
    seen = 0  # batches that the next iteration passes over

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        batch_size: int,
        seed: int | None = None,
        distributed: bool = True,
        mapped: bool = False,
        kind: Callable[[Any], tuple[Tensor, Tensor]] = tuple,
        drop_last: bool = False,
    ) -> None:
        self.x, self.y, self.kind = x, y, kind
        self.num_rows = (len(x) - len(x) % batch_size if drop_last else 0) or len(x)  # of an epoch
        self.batch_size, self.seed, self.mapped = batch_size, seed, mapped
        self.rank, self.world = 0, 1
        if distributed and dist.is_initialized() and self.num_rows >= dist.get_world_size():
            self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.epoch = 0

    @property
    def sampler(self) -> "TensorBatches":
        """Lightning calls ``loader.sampler.set_epoch(epoch)`` before each epoch, also after a resume."""
        return self

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        full, rest = divmod(self.num_rows, self.batch_size)
        return full + (rest >= self.world or not full)  # a rest too small to share goes with the batch before it

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        num_rows, last = self.num_rows, len(self) - 1
        first, self.seen = self.seen, 0
        if not last and self.world == 1 and self.seed is not None and num_rows == len(self.x):
            yield self.kind((self.x, self.y))  # the same rows in any order: nothing is gathered
            return
        order = self._order(len(self.x))
        order = None if order is None else order.to(self.x.device)
        for i in range(first, last + 1):
            start, end = i * self.batch_size, num_rows if i == last else (i + 1) * self.batch_size
            if order is None:
                part = slice(start + self.rank, end, self.world)
                yield self.kind((self.x[part].clone(), self.y[part].clone()))
                continue
            rows = order[start:end][self.rank :: self.world]
            yield self.kind((self.x.index_select(0, rows), self.y.index_select(0, rows)))

    def _order(self, num_rows: int) -> Tensor | None:
        if self.seed is None:
            return None
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        if not self.mapped:
            return torch.randperm(num_rows, generator=generator)
        order, starts = [], torch.randperm(-(-num_rows // NEAR), generator=generator) * NEAR
        for some in starts.split(MIXED):
            rows = torch.cat([start + torch.arange(min(NEAR, num_rows - start)) for start in some.tolist()])
            order.append(rows[torch.randperm(len(rows), generator=generator)].int())
        return torch.cat(order)
