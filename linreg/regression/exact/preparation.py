"""What a model learns from its training rows before it is trained: their units, their exact solution, and a plan."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from linreg.errors import InputError
from linreg.regression.exact.learning_rate import Plan, make_cautious_plan, make_plan
from linreg.regression.exact.least_squares import MAX_COLUMNS, LeastSquares
from linreg.regression.standardizer import moments
from linreg.tables.data import RegressionData

if TYPE_CHECKING:
    from linreg.regression.regressor import Regressor

SAMPLED = 4_096  # rows whose bits are looked at when a run goes on


def prepare(model: Regressor, data: Any) -> None:
    """Goes through the training rows once; fills in the model's summary, standardizers and plan.

    Args:
        model: not trained yet.
        data: a RegressionData, or a data module with ``feature_names``, ``target_names`` and training batches.

    Raises:
        InputError: if the rate is left to the data, and the hypothesis is not linear.
    """
    model.feature_names, model.target_names = list(data.feature_names), list(data.target_names)
    d, t = len(model.feature_names), len(model.target_names)
    rows = data.in_order("train") if hasattr(data, "in_order") else data.train_dataloader()
    if d <= MAX_COLUMNS:
        model.summary = LeastSquares(d, t, model.has_intercept)
        for x, y in rows:
            model.summary.update(x, y)
        mean, std = model.summary.mean, model.summary.std
    else:
        mean, std = moments(rows, model.has_intercept)
    model.rows = fingerprint(data.splits, data.table.mapped) if isinstance(data, RegressionData) else None
    model.x_standardizer.fit(mean[:d], std[:d])
    model.y_standardizer.fit(mean[d:], std[d:])
    is_sgd = model.optimizer in ("SGD", "torch.optim.SGD")
    if is_sgd and model.lr is None and not model.is_linear:
        raise InputError("lr=None: only a LinearRegression has its rate chosen from the data; give --model.lr")
    if is_sgd and model.is_linear:
        model.plan = _plan(model, data.batch_size, rows)
        data.batch_size = model.plan.batch_size


def fingerprint(splits: dict[str, tuple[Tensor, Tensor]], mapped: bool) -> Tensor:
    """Rows and weighted sums of each column of each split (S, 1 + D + T), in which any other row or order shows.

    Args:
        splits: x (N, D) and y (N, T) of each.
        mapped: whether they are a file, of which some 4,096 rows have to do.
    """
    sums = []
    for split in splits.values():
        every = max(len(split[0]) // SAMPLED, 1) if mapped else 1
        weights = torch.arange(1, len(split[0][::every]) + 1, dtype=torch.float64).mul_(12.9898).cos_()
        num_rows = torch.tensor([len(split[0])], dtype=torch.float64)
        sums.append(torch.cat([num_rows, *(weights @ part[::every].double() for part in split)]))
    return torch.stack(sums)


def _plan(model: Regressor, batch_size: int | None, rows: Iterable[tuple[Tensor, Tensor]]) -> Plan:
    momentum = model.momentum if model.lr is None else model.momentum or 0.0
    if model.summary is None:
        d, t = len(model.feature_names), len(model.target_names)
        return make_cautious_plan(d, t, sum(len(x) for x, _ in rows), batch_size, model.lr, momentum)
    return make_plan(model.summary, batch_size, model.lr, momentum, model.nesterov, model.weight_decay)
