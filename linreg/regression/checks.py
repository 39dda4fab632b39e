"""What the doctor can ask of a regression beyond what is true of any training; ``context`` is that of its checks."""

from typing import Any

import torch

from linreg.regression.exact.least_squares import LeastSquares
from linreg.regression.gradient import mse_gradient
from linreg.verdict import CannotTell, Verdict, judge


def units_are_those_of_training_rows(context: Any) -> Verdict:
    """The standardizers hold the means and spreads of the training rows, and of no others."""
    model = context.copy()
    x, y = context.rows()
    if not model.exact or len(x) != getattr(context.data, "row_counts", {}).get("train"):
        raise CannotTell("not all rows were read, or there are too many columns")
    rows = LeastSquares(x.shape[1], y.shape[1], model.has_intercept).update(x, y)
    found = torch.cat([model.x_standardizer.mean, model.y_standardizer.mean]).cpu()
    standard = [(side.mean != 0) | (side.std != 1) for side in (model.x_standardizer, model.y_standardizer)]
    off = float(((found - rows.mean) / rows.std).abs().mul(torch.cat(standard).cpu()).max())  # or left as they are
    return judge(off < 1e-6, f"means differ by {off:.1g} of a spread", "rounding", "look at fit_standardizers")


def gradient_is_the_formula(context: Any) -> Verdict:
    """The gradient of autograd is the lecture's, ``2/m sum (W x + b - y) x``."""
    model = context.copy()
    x, y = model.standardize(context.train[0])
    context.observe(model, context.train[0]).loss.backward()
    weight, bias = model.hypothesis.weight, model.hypothesis.bias
    formula = mse_gradient(x, y, weight.detach(), None if bias is None else bias.detach())[1]
    off = float((weight.grad - formula).norm() / formula.norm().clamp(min=1e-12))
    return judge(off < 1e-3, f"they differ by {off:.1g} of it", "rounding", "look at loss and training_step")
