"""The pictures of a regression: what was predicted at a few epochs, and how the way there compares with theory."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from linreg.regression.exact.least_squares import LeastSquares
from linreg.regression.exact.report import in_evaluation
from linreg.regression.pictures.theory import draw_theory
from linreg.report import figures
from linreg.report.findings import Picture

BARS = 20  # coefficients in a picture
LEAST_SHARE = 1e-3  # of the noise that is left in a row's residual; where it is less, the row alone decides its fit
EPOCHS = 2  # that are drawn, besides that of the report: each takes 0.06 s


def draw(model: Any, data: Any) -> Iterator[Picture]:
    """All pictures of a trained Regressor and the RegressionData that it was trained on."""
    split = "test" if data.row_counts["test"] else "train"
    x, y = (part[:: -(-len(part) // figures.MAX_POINTS)] for part in data.splits[split])
    of = f"{len(x):,} of {data.row_counts[split]:,} {split} rows"
    way = model.baseline
    kept = [*way.weights.items()]
    chosen = sorted({round(i) for i in np.linspace(0, len(kept) - 1, EPOCHS)}) if kept else []
    now = {name: value.clone() for name, value in model.hypothesis.state_dict().items()}
    for step, weights in [*(kept[i] for i in chosen), (None, now)]:
        model.hypothesis.load_state_dict(weights)
        for tag, figure in _of_weights(model, x, y, split, of, last=step is None):
            yield Picture(tag, figures.to_image(figure), step)
    if len(way.history):
        yield Picture("curves", figures.to_image(_curves(way.history, model)))
        if getattr(model, "plan", None) is not None:
            yield Picture("theory", figures.to_image(draw_theory(model, way.history)))


def _of_weights(model: Any, x: Tensor, y: Tensor, split: str, of: str, last: bool) -> Iterator[tuple[str, Any]]:
    """What can be drawn of the weights that a model has now, by tag."""
    exact, several = model.exact, len(model.target_names) > 1
    with torch.inference_mode(), in_evaluation(model):
        y_hat = model(x.to(model.device)).cpu()
    for t, target in enumerate(model.target_names):
        end = f"/{target}" if several else ""
        predicted, actual = y_hat[:, t].numpy(), y[:, t].numpy()
        yield f"predicted_vs_actual/{split}{end}", figures.predicted_vs_actual(predicted, actual, target, of)
        if exact is None:
            continue
        own = leverage(exact, x).numpy()
        sign = -1 if split == "train" else 1  # a row of the fit has drawn it to itself
        left = exact.mse(exact.weight())[t] * exact.std[exact.num_features + t] ** 2
        sigma = math.sqrt(float(left) * exact.num_rows / max(exact.degrees_of_freedom, 1)) or 1.0
        if x.shape[1] == 1:
            line = exact.predict(x, model.penalty)[:, t].numpy()
            half = 2 * sigma * leverage(exact, x, model.penalty).sqrt().numpy()
            names = model.feature_names[0], target, of
            figure = figures.fitted_line(x[:, 0].numpy(), actual, predicted, line, half, names)
            yield f"regression_line/{split}{end}", figure
        if last:
            share = np.where(1 + sign * own > LEAST_SHARE, 1 + sign * own, np.nan)
            scaled = (actual - predicted) / sigma / np.sqrt(share)
            size = exact.rank + int(exact.intercept)
            figure = figures.residual_plots(predicted, actual - predicted, scaled, own, size, of)
            yield f"residuals/{split}{end}", figure
            if model.is_linear and exact.degrees_of_freedom:
                yield f"coefficients{end}", _coefficients(model, t)


def leverage(exact: LeastSquares, x: Tensor, weight_decay: float = 0.0) -> Tensor:
    """The variance (N,) of the exact predictions for rows x (N, D), per that of the noise.

    Without weight decay it is the leverage: of rows that were fitted, the diagonal of the hat matrix.
    """
    z = (x.double() - exact.mean[: exact.num_features]) / exact.std[: exact.num_features]
    return (((z @ exact.svd[2]) * exact.inverse(weight_decay)).square().sum(1) + int(exact.intercept)) / exact.num_rows


def _coefficients(model: Any, target: int) -> Any:
    """Bars of the exact coefficients, per standard deviations of feature and target, so that they can be compared."""
    exact, d = model.exact, model.exact.num_features
    solution, unit = exact.solve(model.penalty), exact.std[:d] / exact.std[d + target]
    size, error = solution.coef[target] * unit, solution.coef_std_error[target] * unit
    learned = model.hypothesis.weight.detach().cpu()[target]
    known = [i for i in range(d) if error[i].isfinite()][:BARS]
    names = [model.feature_names[i] for i in known]
    size, half, learned = (part[known].double().numpy() for part in (size, 2 * error, learned))
    return figures.coefficient_bars(names, size, half, learned, "± 2 standard errors")


def _curves(history: Tensor, model: Any) -> Any:
    """The excess of each epoch, measured and expected, and the losses, each curve in a colour of its own."""
    epoch, _, share, expected, train, val = history.T.numpy()
    exact = float(model.exact.mse(model.exact.weight(model.penalty)).mean())
    figure, ((left, right),) = figures.panels(1, 2, width=9)
    curves = {"expected by theory": (epoch, expected, "-"), "measured": (epoch, share, ".--")}
    figures.log_curves(left, curves, ("epoch", "excess_mse"))
    has_val = np.isfinite(val)
    losses = {"train, mean over the epoch": (epoch, train, "-")}
    if has_val.any():
        losses["validation, after the epoch"] = epoch[has_val], val[has_val], "-"
    losses |= {"exact solution, train rows": (epoch, np.full(len(epoch), exact), "--")}
    figures.log_curves(right, losses, ("epoch", "loss"))
    right.set_yscale("linear")
    return figure
