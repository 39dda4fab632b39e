"""What a learning rate would do, without training: the excess that it leaves, and along which way."""

import math
from typing import Any

import numpy as np
from torch import Tensor

from linreg.regression.exact.learning_rate import HessianSpectrum
from linreg.report import figures

STEPS = (10, 100, 1_000)
WAYS = 4  # eigenvectors that are drawn, from the largest curvature to the smallest


def draw_theory(model: Any, history: Tensor) -> Any:
    """Two panels: the excess over the learning rate, with the limit and this run; the error along each eigenvector.

    Of each epoch in ``history`` the steps are the second number, the excess the third.
    """
    plan, spectrum = model.plan, HessianSpectrum(model.exact, model.penalty)
    figure, (pair,) = figures.panels(1, 2, width=9)
    excess_over_rate(pair[0], spectrum, plan.lr_limit, plan.momentum, model.nesterov)
    _, steps, share, *_ = history[-1].tolist()
    pair[0].plot([plan.lr], [max(share, 1e-12)], "o", color="black", label=f"this run, {steps:,.0f} steps")
    if 0 < plan.noise < math.inf:
        name = f"noise of batches of {plan.batch_size:,}, at epochs' ends"
        pair[0].axhline(plan.noise, color=figures.PINK, linestyle=":", label=name)
    pair[0].legend(fontsize="small", framealpha=0.5)
    times = np.unique(np.geomspace(1, max(steps, 10), 120).astype(int))
    parts = spectrum.parts(times, plan.lr, plan.momentum, model.nesterov)
    seen = np.flatnonzero(spectrum.excess > 0)
    chosen = seen[np.unique(np.linspace(0, len(seen) - 1, WAYS).astype(int))] if len(seen) else []
    curves = {f"curvature {spectrum.eigenvalues[i]:.3g}": (times, parts[:, i], "-") for i in chosen}
    names = "step", "excess_mse along an eigenvector", "at this rate, all rows a step"
    figures.log_curves(pair[1], curves, names, log_x=True)
    pair[1].set_ylim(bottom=max(pair[1].get_ylim()[0], 1e-12))
    return figure


def excess_over_rate(axes: Any, spectrum: HessianSpectrum, limit: float, momentum: float, nesterov: bool) -> None:
    """The excess after some numbers of full-batch steps over the learning rate, with the limit as a line."""
    rates = np.append(np.geomspace(limit / 1_000, limit, 80), np.linspace(1, 1.1, 12) * limit)
    found = np.array([spectrum.curve(STEPS, rate, momentum, nesterov) for rate in rates])
    curves = {f"after {n:,} steps": (rates, found[:, i], "-") for i, n in enumerate(STEPS)}
    figures.log_curves(axes, curves, ("learning rate", "excess_mse", f"momentum {momentum:g}, from zero"), log_x=True)
    axes.axvline(limit, color="black", linestyle="--", label=f"limit {limit:.3g}")
    axes.set_ylim(1e-10, 1e10 * max(float(spectrum.excess.sum()), 1.0))
