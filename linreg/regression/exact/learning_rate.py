"""A learning rate, a momentum and a number of steps from the spectrum of the data.

For the loss ``mean((z_y - z_x W^T)^2)`` the Hessian H is known exactly, so stability and speed are no guesswork:

- Full batch: SGD is stable below ``2 (1 + b) / lmax`` with momentum b, below ``2 (1 + b) / ((1 + 2 b) lmax)`` with
  Nesterov's. (Polyak 1964; Nesterov 1983; both follow from the 2 x 2 recursion of each eigenvector.)
- Mini-batches of B out of N rows see the curvature of single rows too: the rate divided by 1 - b has to stay below
  ``B / L`` where L bounds one row's curvature. (Gower et al. 2019, "SGD: General Analysis and Improved Rates".)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from linreg.regression.exact.expected import ExpectedDescent
from linreg.regression.exact.least_squares import LeastSquares

GOAL = 0.01  # "within 1 % of the optimum"
MOMENTA = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995)
SHARE = 0.7  # of the full-batch limit
SLOWER = (1.0, 1 / 4, 1 / 16, 1 / 64)  # of a noisy rate: the slower, the longer the way, and the less noise at its end
BATCH_SIZES = (1_024, 8_192, 65_536)  # to choose from, besides all rows
FEW = 8  # batches of an epoch; of many, each is noisy, and the rate is chosen for that
MAX_CELLS = 1 << 26  # of a full batch: a step needs 16 bytes for each
MAX_STEPS = 20_000  # what a run without --max_epochs spends at most
TIMES = np.unique(np.geomspace(1, MAX_STEPS, 300).astype(int))


@dataclass(frozen=True)
class DescentPlan:
    """How to train: a stable rate, a momentum, and how many steps they are expected to take."""

    batch_size: int
    lr: float
    momentum: float
    lr_limit: float  # the rate above which full-batch gradient descent diverges
    steps_to_goal: int  # until the expected loss is within GOAL of the optimum
    steps: int  # to come well within it
    decay: bool  # whether the rate has to fall because mini-batches are noisy
    noise: float = 0.0  # the share of the optimal loss by which they keep a constant rate above it at epochs' ends

    def lr_factor(self, step: int) -> float:
        """The share of ``lr`` at a step: with noise, 1 for half of ``steps``, then a linear fall to 1 %.

        A run that goes on longer does the same again from a quarter of the rate: noise that is larger than expected
        (a few rows far out, with large residuals) needs smaller rates.
        """
        cycle, within = divmod(step, self.steps)
        return max(min(1.0, 2.0 - 2.0 * within / self.steps), 0.01) / 4**cycle

    @property
    def most_steps(self) -> int:
        """What a run may spend that ends by itself when it has reached the optimum."""
        return 4 * self.steps if self.decay else self.steps

    @property
    def divergence_remedy(self) -> str:
        """What to do where the loss has no bound."""
        times, limit = self.lr / self.lr_limit, f"all rows at once diverge above {self.lr_limit:.3g}"
        where = f"that is {times:.3g} times the limit: {limit}" if times > 1 else f"{limit}, noisy batches sooner"
        return f"{where}; without --model.lr it is chosen"


def stability_limit(lmax: float, momentum: float = 0.0, nesterov: bool = False) -> float:
    """The full-batch rate above which SGD diverges, for a Hessian whose largest eigenvalue is lmax."""
    return 2 * (1 + momentum) / (lmax * (1 + 2 * momentum if nesterov else 1))


def make_plan(
    summary: LeastSquares,
    batch_size: int | None = None,
    lr: float | None = None,
    momentum: float | None = None,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> DescentPlan:
    """Chooses what was not given (in standardized units) so that the optimum of the rows is expected soonest."""
    modes = HessianSpectrum(summary, weight_decay)
    momenta = [momentum] if momentum is not None else MOMENTA[bool(nesterov) :]
    smaller = [size for size in BATCH_SIZES if size < summary.num_rows] or [BATCH_SIZES[0]]
    sizes = [batch_size] if batch_size else [evenly(size, summary.num_rows) for size in smaller]
    if not batch_size and summary.num_rows > BATCH_SIZES[0] and summary.num_rows * summary.num_features < MAX_CELLS:
        sizes.append(summary.num_rows)
    plans = [
        _plan(modes, min(size, summary.num_rows), lr, b, nesterov, slower)
        for size in sizes
        for b in momenta
        for slower in (SLOWER if lr is None and size < summary.num_rows else SLOWER[:1])
    ]

    def cost(plan: DescentPlan) -> tuple[float, float, float]:
        step = 1 + plan.batch_size * summary.num_features / 300_000  # a step's fixed cost, and what its rows add to it
        reached = float(modes.curve([MAX_STEPS], plan.lr, plan.momentum, nesterov)[0])
        return plan.steps * step, plan.steps_to_goal * step, reached

    return min(plans, key=cost)


def evenly(size: int, num_rows: int) -> int:
    """``size``, or somewhat more where a last batch of few rows would be noisier than the rate allows for."""
    batches = max(num_rows // size, 1)
    return math.ceil(num_rows / batches) if batches < FEW and 0 < num_rows % size < size / 2 else size


def _plan(
    modes: "HessianSpectrum", batch: int, lr: float | None, momentum: float, nesterov: bool, slower: float
) -> DescentPlan:
    top = stability_limit(modes.lmax, momentum, nesterov)
    part = (modes.num_rows - batch) / max(modes.num_rows - 1, 1)  # how noisy: 0 for all rows, about 1 for a few of many
    noise = part * modes.row_curvature / batch
    rate = lr or slower / (1 / (SHARE * top) + noise / (1 - momentum))
    to_goal = modes.steps_to(GOAL / 2, rate, momentum, nesterov)
    # A constant rate leaves this share of the loss to noise; its fall over n steps divides that by sqrt(pace n).
    stall = part * rate / (1 - momentum) * modes.trace / (2 * batch)
    pace = rate / (1 - momentum) * modes.trace / len(modes.eigenvalues)
    steps = min(int(max(4 * to_goal, 2 * (stall / (GOAL / 10)) ** 2 / pace, 100)), MAX_STEPS)
    return DescentPlan(batch, rate, momentum, top, to_goal, steps, part > 0 and lr is None)


def make_cautious_plan(
    num_features: int, num_targets: int, num_rows: int, batch_size: int | None, lr: float | None, momentum: float | None
) -> DescentPlan:
    """Without a spectrum: the trace of the Hessian bounds its largest eigenvalue, so that the rate is safe, if slow."""
    batch, b = min(batch_size or BATCH_SIZES[0], num_rows), 0.9 if momentum is None else momentum
    top = stability_limit(2 * (num_features + 1) / num_targets, b)
    rate = lr or (SHARE * top if batch == num_rows else (1 - b) * SHARE * top)
    return DescentPlan(batch, rate, b, top, MAX_STEPS, MAX_STEPS // 10, decay=batch < num_rows and lr is None)


def plan_descent(model: Any, data: Any) -> DescentPlan:
    """The plan for a LinearRegression that knows its training rows; data that leave a batch size to it are told."""
    momentum = model.momentum if model.lr is None else model.momentum or 0.0
    batch_size = getattr(data, "batch_size", None)
    if model.exact is None:
        num_rows = getattr(data, "row_counts", {}).get("train") or MAX_CELLS  # a DataLoader's may be any number
        sizes = len(model.feature_names), len(model.target_names), num_rows
        plan = make_cautious_plan(*sizes, batch_size, model.lr, momentum)
    else:
        plan = make_plan(model.exact, batch_size, model.lr, momentum, model.nesterov, model.weight_decay)
        how = plan.lr, plan.momentum, model.nesterov
        noise = ExpectedDescent(model).noise_level(plan.batch_size, *how)
        modes, goal = HessianSpectrum(model.exact, model.weight_decay), max(GOAL - noise, GOAL / 2)
        about = modes.steps_to(goal, *how)
        to_goal = modes.steps_to(goal, *how, times=np.arange(int(0.96 * about), about + 1))
        plan = replace(plan, noise=noise, steps_to_goal=max(to_goal, 1))  # which the choice can do without
    if hasattr(data, "planned_batch_size"):
        data.planned_batch_size = plan.batch_size
    return plan


class HessianSpectrum:
    """The loss along the eigenvectors of the Hessian: how curved it is, and how much of it is there to lose."""

    def __init__(self, summary: LeastSquares, weight_decay: float) -> None:
        targets, self.num_rows = summary.num_targets, summary.num_rows
        exact = summary.weight(weight_decay)
        constant = [1.0] if summary.intercept or not summary.rank else []  # the bias has a direction of its own
        self.eigenvalues = np.append(summary.eigenvalues.numpy(), constant) * 2 / targets + weight_decay
        start = (exact @ summary.svd[2]).square().sum(0).numpy() * summary.eigenvalues.numpy()
        self.excess = np.append(start, [0.0] * len(constant))
        self.excess /= max(float(summary.mse(exact).sum()), 1e-10 * targets)
        self.lmax, self.trace = float(self.eigenvalues.max()), float(self.eigenvalues.sum())
        (low, high), d = ((v - summary.mean) / summary.std for v in (summary.min, summary.max)), summary.num_features
        farthest = torch.maximum(low[:d].square(), high[:d].square()).sum()
        self.row_curvature = 2 / targets * (float(farthest) + summary.intercept) + weight_decay

    def steps_to(self, goal: float, lr: float, momentum: float, nesterov: bool, times: np.ndarray = TIMES) -> int:
        """The number of steps, of ``times``, after which the noiseless excess loss stays below ``goal``."""
        curve = self.curve(times, lr, momentum, nesterov)
        above = np.flatnonzero(~(curve <= goal))
        return int(times[min(above[-1] + 1, len(times) - 1) if len(above) else 0])

    def curve(self, times: Sequence[int] | np.ndarray, lr: float, momentum: float, nesterov: bool) -> np.ndarray:
        """The excess loss over the optimum, as a share of it, after each number of full-batch steps from zero."""
        return self.parts(times, lr, momentum, nesterov).sum(1)

    def parts(self, times: Sequence[int] | np.ndarray, lr: float, momentum: float, nesterov: bool) -> np.ndarray:
        """The same along each eigenvector, a column each."""
        h = lr * self.eigenvalues
        kept = 1 - h if nesterov else np.ones_like(h)
        p = (1 + momentum) * (1 - h) if nesterov else 1 + momentum - h  # e[t+1] = p e[t] - q e[t-1]
        first = 1 - (1 + momentum) * h if nesterov else 1 - h
        root = np.sqrt(p**2 - 4 * momentum * kept + 1e-14j)  # the 1e-14 keeps the two roots apart
        r1, r2 = (p + root) / 2, (p - root) / 2
        a = (first - r2) / (r1 - r2)
        t = np.asarray(times)[:, None]
        log1, log2 = (np.log(np.where(r == 0, 1e-300, r)) for r in (r1, r2))
        with np.errstate(over="ignore", invalid="ignore"):
            error = np.abs(a * np.exp(log1 * t) + (1 - a) * np.exp(log2 * t))  # 5 times as fast as r1**t
            return self.excess * error**2
