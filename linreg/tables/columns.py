"""The rows and columns that a model is trained on, and whether others are the same, and in the same units."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler

from linreg.system.errors import InputError
from linreg.system.ranks import rank
from linreg.system.screen import counted, say, wrapped

FAR, NEAR = 10, 3  # standard deviations of a training column between its mean and that of the other rows
ROUGHLY = 0.05  # of a power of ten between these means, as of grams and kilograms, for the second
NAMES = ("feature_names", "target_names", "levels")
Columns = tuple[list[str], list[str], dict[str, list[str]]]  # and the levels of those of text among the features
Moments = dict[str, list[float]]  # the mean and the standard deviation of each column


def training_rows(model: Any) -> Iterable[tuple[Tensor, Tensor]]:
    """The training rows in batches (x, y): of the data module, in order, or of the DataLoader in its place.

    Of several processes each has its share; together they are all rows.
    """
    check_widths(model, len(model.feature_names), len(model.target_names))
    data: Any = getattr(model.trainer, "datamodule", None)
    if hasattr(data, "evaluation_batches"):
        return data.evaluation_batches("train", apart=True)
    if rank():
        return []  # the first process sums them up for all: a shuffling loader may show each another order
    loader = model.trainer.fit_loop._data_source.dataloader()
    is_plain = type(getattr(loader, "sampler", None)) in (RandomSampler, SequentialSampler)
    if is_plain and loader.drop_last and len(loader):
        loader = DataLoader(loader.dataset, loader.batch_size, collate_fn=loader.collate_fn)  # else others each time
    with torch.random.fork_rng([]):  # a shuffling loader shall not shuffle otherwise for having been looked at
        batches = list(loader)
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


def units_of(model: Any) -> Tensor:
    """The means (0) and standard deviations (1) of a Regressor's columns, (2, D + T)."""
    sides = model.x_standardizer, model.y_standardizer
    return torch.stack([torch.cat([getattr(side, name).cpu() for side in sides]) for name in ("mean", "std")])


def note_other_units(before: Tensor, now: Tensor) -> None:
    """Says that the weights of a model were learned in other units than it has now, and mean something else in them."""
    if (before[0].any() or (before[1] != 1).any()) and not torch.allclose(before, now, 1e-6, 1e-12):
        found = "its weights were learned in the units of other rows; in those of these they are another model"
        say(wrapped(f"        {found}: this is no fine-tuning, but a new beginning"), not rank())


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


def columns_of(data: Any, model: Any) -> Columns:
    """The columns of some data; where they do not say, those of the model."""
    features, targets, levels = (getattr(data, name, getattr(model, name)) for name in NAMES)
    return list(features), list(targets), dict(levels)


def check_same_columns(before: Columns, now: Columns, remedy: str) -> None:
    """InputError unless the columns are those that a model was trained on, in their order, with the same levels."""
    for one, other in zip(before[:2], now[:2], strict=True):
        if one != other:
            raise InputError(f"the model was trained on the columns {one}, not on {other}; {remedy}")
    for name in before[2] | now[2]:
        levels, others = before[2].get(name), now[2].get(name)  # of which the first does not show in the names
        if levels != others:
            raise InputError(f"the model was trained on the levels {levels} of {name!r}, not {others}; {remedy}")


def same_units(model: Any, checkpoint: dict[str, Any], columns: Columns) -> None:
    """InputError if the checkpoint's columns, or their means and spreads, are not those of the training rows."""
    remedy = "start a new run without --ckpt_path"
    check_same_columns(columns, columns_of(model, model), remedy)
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


def known_moments(model: Any) -> Moments:
    """Of the columns of numbers that a model was trained on, where it knows them."""
    levels = {f"{name}={text}" for name, texts in getattr(model, "levels", {}).items() for text in texts}
    found: Moments = {}
    for side, names in (("x_standardizer", "feature_names"), ("y_standardizer", "target_names")):
        if (units := getattr(model, side, None)) is not None:
            pairs = zip(units.mean.tolist(), units.std.tolist(), strict=True)
            found |= {name: [*pair] for name, pair in zip(getattr(model, names), pairs, strict=True)}
    return {name: pair for name, pair in found.items() if name not in levels and pair != [0.0, 1.0]}


def say_other_units(known: Moments, means: Mapping[str, float]) -> None:
    """Says which columns lie so far from the training rows that their unit may be another."""
    for name, (mean, std) in known.items():
        here = means.get(name, mean)
        power = math.log10(here / mean) if here * mean > 0 else 0.0
        is_scaled = round(power) != 0 and abs(power - round(power)) < ROUGHLY
        if abs(here - mean) > (NEAR if is_scaled else FAR) * std:
            there = f"{mean:,.4g}, give or take {std:,.4g}, in the training rows"
            text = f"data    {name!r} averages {here:,.4g} here and {there}; is it in the same unit?"
            say(wrapped(text), not rank())
