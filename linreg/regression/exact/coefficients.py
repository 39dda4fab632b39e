"""The table of coefficients: learned, exact with its uncertainty, and true where that is known."""

import csv
import io
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from linreg.regression.exact.least_squares import LeastSquares
from linreg.system.screen import as_text
from linreg.tables.table import Table

Row = dict[str, Any]


def coefficient_rows(model: Any, table: Table, confidence: float | None = None) -> list[Row]:
    """A row a coefficient of a trained Regressor, in the data's units, each target's intercept last.

    With a ``confidence`` there is an interval around each exact one; those of the table are the true ones, if known.
    """
    columns: dict[str, tuple[Tensor, Tensor]] = {}
    if model.is_linear:
        columns["learned"] = model.coef, model.intercept
    if model.exact is not None:
        solution = model.exact.solve(model.penalty)
        vague = nearly_collinear(model.exact)
        solution.coef[:, vague], solution.coef_std_error[:, vague] = torch.nan, torch.nan
        exact, error = (solution.coef, solution.intercept), (solution.coef_std_error, solution.intercept_std_error)
        columns |= {"exact": exact, "std_error": error}
        if confidence is not None:
            t = t_quantile((1 + confidence) / 2, model.exact.degrees_of_freedom)
            columns["ci_low"] = exact[0] - t * error[0], exact[1] - t * error[1]
            columns["ci_high"] = exact[0] + t * error[0], exact[1] + t * error[1]
    if table.true_coef is not None and table.true_intercept is not None:
        columns["true"] = table.true_coef, table.true_intercept
    rows = []
    for t, target in enumerate(model.target_names):
        prefix = f"{target}: " if len(model.target_names) > 1 else ""
        for d, feature in enumerate(model.feature_names):
            rows.append({"name": prefix + feature} | {name: float(coef[t, d]) for name, (coef, _) in columns.items()})
        if model.has_intercept:
            intercepts = {name: float(intercept[t]) for name, (_, intercept) in columns.items()}
            rows.append({"name": f"{prefix}(intercept)"} | intercepts)
    return rows


def nearly_collinear(exact: LeastSquares) -> Tensor:
    """Which features (D,) have a coefficient that is nothing but rounding: (D,) of bool.

    Less than 1e-7 of such a column's norm is its own, and not a combination of others (where R's ``lm`` draws the
    line), and its coefficient is within two standard errors of 0, however large.
    """
    d = exact.num_features
    own = exact.std[:d] / variance_inflation(exact).sqrt().clamp(min=1e-300)
    norm = (exact.mean[:d] ** 2 + exact.std[:d] ** 2).sqrt()
    solution = exact.solve()
    return (own < 1e-7 * norm) & (solution.coef.abs() < 2 * solution.coef_std_error).all(0)


def variance_inflation(exact: LeastSquares) -> Tensor:
    """By how much (D,) the other features inflate the variance of a coefficient, at least 1: the VIF."""
    _, s, v = exact.svd
    return (v / s).square().sum(1)


def as_csv(rows: list[Row]) -> bytes:
    """The rows as CSV, with an empty cell for what the data do not determine."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*rows[0]])
    writer.writeheader()
    for row in rows:
        values = {k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
        writer.writerow(values | {"name": as_text(row["name"])})
    return text.getvalue().encode()


def t_quantile(probability: float, degrees_of_freedom: int) -> float:
    """The quantile of Student's t distribution, to 6 digits, from 0.5 to below 1; NaN without a degree of freedom."""
    if not degrees_of_freedom:
        return float("nan")
    # With t = sqrt(n) tan(angle) the density becomes cos(angle)^(n - 1) on a finite range.
    angle = np.linspace(0, min(np.pi / 2, 40 / np.sqrt(degrees_of_freedom)), 400_001)
    density = np.cos(angle) ** (degrees_of_freedom - 1)
    area = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return float(np.sqrt(degrees_of_freedom) * np.tan(np.interp((2 * probability - 1) * area[-1], area, angle)))
