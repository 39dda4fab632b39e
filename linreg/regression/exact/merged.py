"""The exact statistics of several threads and processes, each of which has summed up its own share of the rows."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from itertools import chain, zip_longest
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from linreg.regression.exact.least_squares import LeastSquares
from linreg.system.ranks import from_first, rank, summed, wire, world

THREADS = 4  # whatever the cores are, for the same bits on any machine


def summary(rows: Iterable[tuple[Tensor, Tensor]], *columns: Any) -> LeastSquares:
    """The LeastSquares of batches (x, y) of rows, in several threads: the first takes every fourth batch, and so on."""
    parts = [LeastSquares(*columns) for _ in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as pool:
        for some in zip_longest(*[iter(rows)] * THREADS):
            for taken in [pool.submit(part.update, *each) for part, each in zip(parts, some, strict=True) if each]:
                taken.result()
    return reduce(LeastSquares.merge, parts)


def merged(own: LeastSquares) -> LeastSquares:
    """The summary of the rows of all processes from that of this one's own, the same to the bit in each of them.

    Neighbours merge first, then pairs of neighbours and so on, in the order of their ranks, so that no process receives
    more than log2(world) summaries; the first one has the last, and tells it to all.
    """
    step = 1
    while step < world() and rank() % step == 0:
        if rank() % (2 * step):
            dist.send_object_list([own], rank() - step, device=wire())
        elif rank() + step < world():
            received: list[Any] = [None]
            dist.recv_object_list(received, rank() + step, device=wire())
            own = own.merge(received[0])
        step *= 2
    return from_first(own)


def moments(batches: Iterable[tuple[Tensor, Tensor]], intercept: bool = True) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (D + T,) of tables too wide for a ``LeastSquares``, from batches in order.

    They are summed about the first row: a column of years keeps its digits, and a constant one is 0 throughout.
    """
    rows = (torch.cat(batch, dim=1).double() for batch in batches)
    first = next(rows, None)
    origin = from_first(None if first is None else first[0])  # the first process has rows if any has
    sums = torch.zeros(3, len(origin), dtype=torch.float64)
    for part in chain([] if first is None else [first], rows):
        away = part - origin
        sums += torch.stack([torch.ones_like(away), away, away**2]).sum(1)
    n, shift, squares = summed(sums)
    mean, variance = origin + shift / n, (squares / n - (shift / n) ** 2).clamp(min=0)
    if not intercept:
        variance, mean = variance + mean**2, torch.zeros_like(mean)
    return mean, torch.where(variance == 0, 1.0, variance.sqrt())
