"""The exact statistics of several processes, each of which has summed up its own share of the rows."""

import torch
import torch.distributed as dist
from torch import Tensor

from linreg.regression.exact.least_squares import LeastSquares
from linreg.system.ranks import rank, wire, world


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
            dist.send(pack(own).to(wire()), rank() - step)
        elif rank() + step < world():
            vector = torch.empty_like(pack(own)).to(wire())
            dist.recv(vector, rank() + step)
            own = merge_in_order(own, unpack(vector.cpu(), own))
        step *= 2
    if world() == 1:
        return own
    vector = pack(own).to(wire())
    dist.broadcast(vector, 0)
    return unpack(vector.cpu(), own)


def merge_in_order(one: LeastSquares, other: LeastSquares) -> LeastSquares:
    """Both summaries as one; a process may have had no row."""
    return one.merge(other) if one.num_rows and other.num_rows else one if one.num_rows else other


def pack(summary: LeastSquares) -> Tensor:
    """A summary as one vector of float64: the number of rows, three vectors of columns, and a whole R factor."""
    width = summary.r.shape[1]
    r = torch.cat([summary.r, summary.r.new_zeros(width - len(summary.r), width)])
    num_rows = torch.tensor([summary.num_rows], dtype=torch.float64)
    return torch.cat([num_rows, summary.shift, summary.min, summary.max, r.flatten()])


def unpack(vector: Tensor, like: LeastSquares) -> LeastSquares:
    """The summary that was packed, of the same columns as another one."""
    summary = LeastSquares(like.num_features, like.num_targets, like.intercept)
    columns, width = len(like.shift), like.r.shape[1]
    num_rows, summary.shift, summary.min, summary.max, r = vector.split([1, *[columns] * 3, width**2])
    summary.num_rows = int(num_rows)
    summary.r = r.view(width, width)[: min(summary.num_rows, width)].clone()
    return summary
