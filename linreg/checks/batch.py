"""The rows of a batch, whatever it is made of: tuples, lists and dicts of tensors (N, ...); what a model predicts."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from linreg.checks.fits import alone
from linreg.verdict import CannotTell

INPUTS = ("x", "input", "inputs", "features", "image", "images", "input_ids", "tokens")  # in a dict, what comes first
TARGETS = ("y", "target", "targets", "label", "labels")  # and last


def tensors(batch: Any) -> list[Tensor]:
    """The tensors of a batch, inputs first and targets last; those of a dict by the names of its keys."""
    if isinstance(batch, dict):
        batch = [batch[key] for key in sorted(batch, key=lambda key: (key in TARGETS) - (key in INPUTS))]
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
    """The inputs and the targets of a batch; CannotTell for one that is not just these two, or does not name them."""
    found, is_named = tensors(batch), isinstance(batch, dict) and len({*batch} & {*TARGETS}) == 1
    if len(found) < 2 or (not is_named and len(tree_flatten(batch)[0]) != 2) or not num_rows(batch):
        raise CannotTell("a batch is no pair of inputs and targets")
    return found[0], found[-1]


def flat(values: Tensor) -> Tensor:
    """Columns (N, K) in float64."""
    return values.double().reshape(len(values), -1)


def predict(model: Any, batch: Any, seed: int = 0) -> Tensor:
    """What a model predicts for each row, (N, K); CannotTell for one that predicts no rows."""
    names = [name for name in inspect.signature(model.forward).parameters if name not in TARGETS]
    try:
        with alone(seed), torch.no_grad():
            if type(model).predict_step is not LightningModule.predict_step:
                found = call(model.predict_step, batch)
            elif isinstance(batch, dict) and {*names} & {*batch}:
                found = model(**{name: batch[name] for name in names if name in batch})
            else:
                found = model(batch if isinstance(batch, dict) else tensors(batch)[0])
    except Exception as error:
        raise CannotTell(f"it predicts nothing for a batch: {type(error).__name__}: {str(error)[:80]}") from None
    parts = [flat(each) for each in tensors(found) if len(each) == len(tensors(batch)[0])]
    if not parts:
        raise CannotTell("what it predicts has no row for each row")
    return torch.cat(parts, 1)


def call(step: Callable[..., Any], batch: Any) -> Any:
    """A step of a batch; the batch's number is given to one that takes it."""
    return step(*(batch, 0)[: len(inspect.signature(step).parameters)])
