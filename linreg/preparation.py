"""What a model learns from its training rows before it is trained: their units, their exact solution, and a plan."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from linreg.errors import InputError
from linreg.learning_rate import Plan, make_cautious_plan, make_plan
from linreg.least_squares import MAX_COLUMNS, LeastSquares
from linreg.standardizer import moments

if TYPE_CHECKING:
    from linreg.model import Regressor

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
    model.rows = checksum(*data.splits["train"]) if hasattr(data, "splits") else None
    model.x_standardizer.fit(mean[:d], std[:d])
    model.y_standardizer.fit(mean[d:], std[d:])
    is_sgd = model.optimizer in ("SGD", "torch.optim.SGD")
    if is_sgd and model.lr is None and not model.is_linear:
        raise InputError("lr=None: only a LinearRegression has its rate chosen from the data; give --model.lr")
    if is_sgd and model.is_linear:
        model.plan = _plan(model, data.batch_size, rows)
        data.batch_size = model.plan.batch_size


def checksum(x: Tensor, y: Tensor) -> int:
    """The CRC-32 of some 4,096 rows, evenly spaced: tells rows apart that have the same means and spreads."""
    every = max(len(x) // SAMPLED, 1)
    return zlib.crc32(y[::every].contiguous().numpy(), zlib.crc32(x[::every].contiguous().numpy()))


def _plan(model: Regressor, batch_size: int | None, rows: Iterable[tuple[Tensor, Tensor]]) -> Plan:
    momentum = model.momentum if model.lr is None else model.momentum or 0.0
    if model.summary is None:
        d, t = len(model.feature_names), len(model.target_names)
        return make_cautious_plan(d, t, sum(len(x) for x, _ in rows), batch_size, model.lr, momentum)
    return make_plan(model.summary, batch_size, model.lr, momentum, model.nesterov, model.weight_decay)
