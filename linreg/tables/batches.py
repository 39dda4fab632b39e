"""Mini-batches straight from tensors, in an order that is a function of (seed, epoch) alone."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from linreg.system.errors import InputError
from linreg.system.ranks import own_part, rank, weight, world

NEAR, MIXED = 4_096, 16  # rows read together, and how many such blocks are mixed; 100 times as fast as rows at random


class TensorBatches:
    """Iterates over rows in batches; a Lightning loader without workers or per-row Python.

    The order of the rows depends on the seed and the epoch only, so a resumed run sees what the uninterrupted run
    would have seen. Several processes share each batch between them, and every row is seen once; a process for which a
    training batch has no row takes one that counts for nothing.

    Args:
        x: (N, D) features.
        y: (N, T) targets.
        batch_size: rows of a batch, of all processes together, at least 1.
        seed: shuffles the rows anew in each epoch, but yields N or more at once, in place; None keeps their order.
        shared: False gives every process all rows.
        training: whether each batch is that of one process whatever its rows; else those that are too few for all join
            the batch before, and are given to all if there is none.
        mapped: whether x and y are a file whose rows lie in random order already: then rows near each other are read
            together.
        kind: makes a batch of a pair of tensors.
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
        shared: bool = True,
        training: bool = False,
        mapped: bool = False,
        kind: Callable[[Any], tuple[Tensor, Tensor]] = tuple,
        drop_last: bool = False,
    ) -> None:
        self.x, self.y, self.kind = x, y, kind
        self.num_rows = (len(x) - len(x) % batch_size if drop_last else 0) or len(x)  # of an epoch
        self.batch_size, self.seed, self.mapped = batch_size, seed, mapped
        is_shared = shared and (training or self.num_rows >= world())
        self.rank, self.world = (rank(), world()) if is_shared else (0, 1)
        self.least = 1 if training else self.world  # rows of the last batch
        self.epoch = 0
        self.last, self.versions = list[Tensor](), list[int]()  # of the one batch of an epoch
        self.is_lent: bool | None = None  # whether that is the table; None in the first

    @property
    def sampler(self) -> "TensorBatches":
        """Lightning calls ``loader.sampler.set_epoch(epoch)`` before each epoch, also after a resume."""
        return self

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        full, rest = divmod(self.num_rows, self.batch_size)
        return full + (rest >= self.least or not full) if self.num_rows else 0

    def weight_of(self, batch_idx: int) -> float:
        """What a mean over this process's rows of a batch counts in the mean over all processes."""
        return weight(min(self.batch_size, self.num_rows - batch_idx * self.batch_size))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        num_rows, last = self.num_rows, len(self) - 1
        first, self.seen = self.seen, 0
        if not last and self.seed is not None and num_rows == len(self.x):
            part = own_part(num_rows) if self.world > 1 else slice(None)
            yield self.kind(self._whole(part if len(self.x[part]) else slice(1)))  # in any order: nothing is gathered
            return
        drawn = self._drawn(len(self.x))
        order, at = torch.empty(0) if self.seed is None else next(drawn), 0  # the epoch's rows from this one on
        for i in range(first, last + 1):
            start, end = i * self.batch_size, num_rows if i == last else (i + 1) * self.batch_size
            own = range(start + self.rank, end, self.world) or range(start, start + 1)
            if self.seed is None:
                part = slice(own.start, own.stop, own.step)
                yield self.kind((self.x[part].clone(), self.y[part].clone()))
                continue
            while at + len(order) < end:
                passed = min(start - at, len(order))
                order, at = torch.cat([order[passed:], next(drawn)]), at + passed
            rows = order[own.start - at : own.stop - at : own.step]
            yield self.kind((self.x.index_select(0, rows), self.y.index_select(0, rows)))

    def _whole(self, part: slice) -> tuple[Tensor, Tensor]:
        """The table's own rows, or a copy if steps change their batch in place: the first epoch's, a copy, tells."""
        if self.last:
            is_changed = [side._version for side in self.last] != self.versions
            if is_changed and self.is_lent:
                found = "a step changes its batch in place, though the first did not, and with it the table"
                raise InputError(f"{found}; write x = x * 2, and not x.mul_(2)")
            self.is_lent = not (is_changed or self.mapped) and self.is_lent is not False
        self.last = [self.x[part], self.y[part]] if self.is_lent else [self.x[part].clone(), self.y[part].clone()]
        self.versions = [side._version for side in self.last]  # which torch counts up with each change in place
        return self.last[0], self.last[1]

    def _drawn(self, num_rows: int) -> Iterator[Tensor]:
        """The rows of an epoch in their order, some at a time: all of a mapped table's would not fit memory either."""
        generator = torch.Generator().manual_seed((self.seed or 0) * 1_000_003 + self.epoch)
        if not self.mapped:
            yield torch.randperm(num_rows, generator=generator).to(self.x.device)
            return
        starts = torch.randperm(-(-num_rows // NEAR), generator=generator) * NEAR
        for some in starts.split(MIXED):
            rows = torch.cat([start + torch.arange(min(NEAR, num_rows - start)) for start in some.tolist()])
            yield rows[torch.randperm(len(rows), generator=generator)].to(self.x.device)
