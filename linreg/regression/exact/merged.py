"""The exact statistics of several processes, each of which has summed up its own share of the rows."""

from typing import Any

import torch.distributed as dist

from linreg.regression.exact.least_squares import LeastSquares
from linreg.system.ranks import from_first, rank, wire, world


def merged(own: LeastSquares) -> LeastSquares:
    """The summary of the rows of all processes, the same to the bit in each of them.

    Neighbours merge first, then pairs of neighbours and so on, in the order of their ranks, so that no process receives
    more than log2(world) summaries; the first one has the last, and tells it to all.

    Args:
        own: the summary of this process's rows, perhaps of none.
    """
    step = 1
    while step < world() and rank() % step == 0:
        if rank() % (2 * step):
            dist.send_object_list([own], rank() - step, device=wire())
        elif rank() + step < world():
            received: list[Any] = [None]
            dist.recv_object_list(received, rank() + step, device=wire())
            own = merge_in_order(own, received[0])
        step *= 2
    return from_first(own)


def merge_in_order(one: LeastSquares, other: LeastSquares) -> LeastSquares:
    """Both summaries as one; a process may have had no row."""
    return one.merge(other) if one.num_rows and other.num_rows else one if one.num_rows else other
