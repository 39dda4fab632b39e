"""The rows and columns that a regression is trained on: where they come from, and whether they are those of before."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from linreg.system.errors import InputError
from linreg.system.ranks import rank
from linreg.system.screen import counted

Levels = dict[str, list[str]]
Columns = tuple[list[str], list[str], Levels]  # the names of features and targets, the levels of columns of text


def training_rows(model: Any) -> Iterable[tuple[Tensor, Tensor]]:
    """The training rows in batches (x, y): of the data module, in order, or of the DataLoader in its place.

    Of several processes each has its share; together they are all rows.

    Raises:
        InputError: for batches that are none of (N, D) and (N, T).
    """
    data: Any = getattr(model.trainer, "datamodule", None)
    if hasattr(data, "evaluation_batches"):
        return data.evaluation_batches("train", apart=True)
    if rank():
        return []  # the first process sums them up for all: a shuffling loader may show each another order
    with torch.random.fork_rng([]):  # a shuffling loader shall not shuffle otherwise for having been looked at
        batches = list(model.trainer.fit_loop._data_source.dataloader())
    if not batches:
        raise InputError("the training data have no batch; are there fewer rows than batch_size, with drop_last?")
    for batch in batches:
        if not (isinstance(batch, tuple | list) and [type(side) for side in batch] == [Tensor, Tensor]):
            kind = type(batch).__name__
            raise InputError(f"a batch: a tuple (x, y) of two tensors is expected, not a {kind} of {len(batch)}")
        for side, letter in zip(batch, "xy", strict=True):
            if side.ndim != 2:
                found = f"{letter} of a batch has the shape {tuple(side.shape)}"
                raise InputError(f"{found}: rows and columns are expected; {letter}.unsqueeze(1) makes one column")
        check_widths(model, batch[0].shape[1], batch[1].shape[1])
    return batches


def check_widths(model: Any, num_features: int, num_targets: int) -> None:
    """InputError for a model that was made for another number of columns than the data have."""
    sizes = len(model.x_standardizer.mean), len(model.y_standardizer.mean)
    if sizes != (num_features, num_targets):
        made = f"the {type(model).__name__} was made with num_features={sizes[0]} and num_targets={sizes[1]}"
        found = f"{counted(num_features, 'feature')} and {counted(num_targets, 'target')}"
        raise InputError(f"{made}; the data have {found}")


def read_columns(checkpoint: dict[str, Any]) -> Columns:
    """The columns in a checkpoint, which may be a stranger's; InputError if there are none, or no units for them."""
    columns = checkpoint.get("columns")
    sides = [columns.get(side) for side in ("features", "targets")] if isinstance(columns, dict) else [None]
    if not isinstance(columns, dict) or not all(
        isinstance(names, list) and names and {*map(type, names)} == {str} and len({*names}) == len(names)
        for names in sides
    ):
        raise InputError("the checkpoint does not say which columns it was trained on; take another one")
    levels, features = columns.get("levels", {}), {*columns["features"]}
    if not isinstance(levels, dict) or not all(
        isinstance(texts, list)
        and len(texts) > 1
        and {*map(type, texts)} == {str}
        and {f"{name}={text}" for text in texts[1:]} <= features
        for name, texts in levels.items()
    ):
        raise InputError("the checkpoint has features that are not its levels of columns of text; take another one")
    for name, value in checkpoint["state_dict"].items():
        is_scale = name.endswith("_standardizer.std")
        if "_standardizer." in name and not (value.isfinite().all() and (not is_scale or (value > 0).all())):
            raise InputError(f"the checkpoint's {name} holds no units that a column can have; take another one")
    return columns["features"], columns["targets"], levels


def check_same_columns(model: Any, data: Any) -> None:
    """InputError for data to measure a model on whose columns are not those that it was trained on, in their order."""
    for side in ("feature_names", "target_names"):
        before, now = getattr(model, side), list(getattr(data, side, getattr(model, side)))
        if before != now:
            raise InputError(f"the model was trained on the columns {before}, not on {now}; name them")
    check_same_levels(model.levels, getattr(data, "levels", model.levels))


def check_same_levels(before: Levels, now: Levels) -> None:
    """InputError if the columns of text have other levels, of which the first does not show in the names."""
    for name in before | now:
        if before.get(name) != now.get(name):
            raise InputError(f"the model was trained on the levels {before.get(name)} of {name!r}, not {now.get(name)}")


def same_units(model: Any, checkpoint: dict[str, Any], columns: Columns) -> None:
    """InputError if the checkpoint's columns, or their means and spreads, are not those of the training rows."""
    before, now = [*columns[0], *columns[1]], [*model.feature_names, *model.target_names]
    remedy = "start a new run without --ckpt_path"
    if before != now:
        raise InputError(f"the checkpoint was trained on the columns {before}, not on {now}; {remedy}")
    check_same_levels(columns[2], model.levels)
    bias, now_bias = (params.get("bias") for params in (checkpoint["hyper_parameters"], model.hparams))
    if bias != now_bias:
        raise InputError(f"--model.bias was {bias}, not {now_bias}; leave it out, or {remedy}")
    saved, fresh = checkpoint["state_dict"], model.state_dict()
    for name in (name for name in fresh if "_standardizer." in name):
        spread = fresh[name].abs() + fresh[name.replace(".mean", ".std")]
        if name not in saved or saved[name].shape != spread.shape:
            raise InputError(f"the checkpoint's model has weights of another shape; {remedy}")
        if not bool(((saved[name] - fresh[name]).abs() <= 1e-9 * spread).all()):
            found = "the training rows are not those of the checkpoint: the file or the split changed"
            raise InputError(f"{found}; give the same data as before, or {remedy}")
