"""The rows of a batch, whatever it is made of: tuples, lists and dicts of tensors (N, ...)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from linreg.verdict import CannotTell


def tensors(batch: Any) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(batch)[0] if isinstance(leaf, Tensor) and leaf.ndim]


def change(batch: Any, function: Callable[[Tensor], Tensor]) -> Any:
    return tree_map(lambda leaf: function(leaf) if isinstance(leaf, Tensor) and leaf.ndim else leaf, batch)


def num_rows(batch: Any) -> int:
    """N, if all tensors begin with the same N; CannotTell otherwise."""
    sizes = {len(each) for each in tensors(batch)}
    if len(sizes) != 1:
        raise CannotTell(f"the tensors of a batch have no common number of rows: {sorted(sizes)}")
    return sizes.pop()


def together(batches: Sequence[Any]) -> Any:
    """One batch of the rows of several; CannotTell if they do not fit together."""
    flat, specs = zip(*map(tree_flatten, batches), strict=True)
    if len({tuple(each.shape[1:] for each in tensors(batch)) for batch in batches}) > 1:
        raise CannotTell("rows differ in shape")
    leaves = [torch.cat(p) if isinstance(p[0], Tensor) and p[0].ndim else p[0] for p in zip(*flat, strict=True)]
    return tree_unflatten(leaves, specs[0])


def pair(batch: Any) -> tuple[Tensor, Tensor]:
    """The inputs and the targets of a batch; CannotTell for one that is not just these two."""
    if len(tensors(batch)) != 2 or len(tree_flatten(batch)[0]) != 2 or not num_rows(batch):
        raise CannotTell("a batch is no pair of inputs and targets")
    return tensors(batch)[0], tensors(batch)[1]


def flat(values: Tensor) -> Tensor:
    """Columns (N, K) in float64."""
    return values.double().reshape(len(values), -1)
