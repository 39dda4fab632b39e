"""What SGD should do, an epoch at a time: the excess that theory expects of it, from the summary of the rows alone.

Along each eigenvector of the Hessian, with curvature l and error e, a step is linear in e and the velocity v:
``v := m v + l e + noise; e := e - lr v`` (Polyak 1964), or ``e - lr (l e + m v)`` after that with Nesterov's momentum.
All rows at once have no noise, and then the expected excess is the measured one but for rounding.

The noise of a batch is as large as the residuals are, hence grows with the excess: of rows from a normal distribution,
its variance along an eigenvector is as the loss that all of them have left, and once more its own excess (the fourth
moment; Feuer & Weinstein 1985, "Convergence analysis of LMS filters with uncorrelated Gaussian data").
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

MOST_PARTS = 64  # of an epoch, about; the noise is as large throughout each as at its beginning
ROUNDS = 4  # of noise that feeds itself
FOR_EVER = 1 << 50  # epochs
NO_RESIDUAL = 1e-10  # of the target's variance: a float32 model cannot follow an exact fit below it


class ExpectedDescent:
    """The expected error and velocity of a linear model along each eigenvector, and the covariance of both.

    Args:
        model: a LinearRegression that knows its exact solution, about to be trained.
        state: where an interrupted training has left it; None begins with the model's weights, at rest.

    Attributes:
        state: (T + 2, K, 2): of T targets and K eigenvectors the mean (error, velocity), then their covariance.
    """

    def __init__(self, model: Any, state: Tensor | None = None) -> None:
        exact, targets = model.exact, len(model.target_names)
        _, s, v = exact.svd
        bias = torch.ones(int(model.has_intercept), dtype=torch.float64)  # has a direction of its own
        self.spread = torch.cat([s**2, bias])  # of the rows along each eigenvector
        self.own = torch.cat([1 + 0 * s, -bias])  # a bias sees a column of ones, whose fourth moment is 1 and not 3
        self.curvature = self.spread * 2 / targets + torch.cat([model.weight_decay + 0 * s, 0 * bias])
        self.num_rows, self.targets = exact.num_rows, targets
        optimum = exact.weight(model.weight_decay)
        self.offset = torch.cat([(optimum - exact.weight()) @ v, bias.expand(targets, -1) * 0], 1)  # decay's own doing
        self.share = model.y_standardizer.std.cpu() ** 2  # of each target in the metrics
        variance, left = float(self.share.sum()), float(exact.mse(optimum) @ self.share)
        self.optimal = max(left, NO_RESIDUAL * variance) or 1.0
        self.noise = left / self.optimal
        weight, b = model.hypothesis.weight.detach().cpu(), model.hypothesis.bias
        error = torch.cat([(weight - optimum) @ v, *([] if b is None else [b.detach().cpu().double()[:, None]])], 1)
        self.state = torch.zeros(targets + 2, len(self.spread), 2, dtype=torch.float64)
        self.state[:targets, :, 0] = error
        if state is not None and state.shape == self.state.shape:
            self.state = state.to(self.state)

    def excess(self) -> float:
        """The expected training MSE above the optimum, as a share of it."""
        return float(self._parts(self.state).sum())

    def _parts(self, state: Tensor) -> Tensor:
        """The excess along each eigenvector (K,)."""
        error = state[: self.targets, :, 0] + self.offset
        mean = self.share @ (error**2 - self.offset**2) / self.optimal
        return (mean + state[self.targets, :, 0]) * self.spread

    def advance(self, steps: int, lr: float, momentum: float, nesterov: bool, batch: int | None = None) -> None:
        """An epoch: ``steps`` batches of the shuffled rows, each row in one of them, the last one the smallest."""
        step, kick = self._step(lr, momentum, nesterov)
        fed, even = (kick @ kick.T).expand_as(step), self.num_rows / steps
        each = batch if batch and math.ceil(self.num_rows / batch) == steps else even
        came = torch.zeros_like(step)  # what would have come in if batches had nothing to do with each other, and
        pushed = torch.zeros_like(step[..., :1])  # what all have pushed: the last ones lack those rows
        edges = [*np.unique(np.geomspace(1, steps, MOST_PARTS).astype(int)) - 1, steps]  # the last step by itself
        for start, end in pairwise(map(int, edges)):
            size = each if end < steps else self.num_rows - each * (steps - 1)
            power, covariance, total = repeated(step, fed, end - start)
            parts = self._parts(self.state) + self.spread * self._batch_noise(came, pushed)[:, 0, 0]
            level = ((self.noise + parts.sum() + self.own * parts) * self.spread).clamp(min=0)[:, None, None]
            came = power @ came @ power.mT + level * covariance * self.num_rows / size
            pushed = power @ pushed + level.sqrt() * (total @ kick)
            self.state[: self.targets] = (power @ self.state[: self.targets, ..., None])[..., 0]
            spread = power @ self.state[self.targets :].transpose(0, 1) @ power.mT
            self.state[self.targets :] = spread.transpose(0, 1)
        self.state[self.targets :] += self._batch_noise(came, pushed).transpose(0, 1)

    def _batch_noise(self, came: Tensor, pushed: Tensor) -> Tensor:
        """The covariance (K, 2, 2) that an epoch's batches have made so far."""
        return (2 / self.targets) ** 2 * (came - pushed @ pushed.mT) / max(self.num_rows - 1, 1)

    def noise_level(self, batch: int, lr: float, momentum: float, nesterov: bool) -> float:
        """The share of the optimal loss by which batches keep a constant rate above it at epochs' ends; inf: it grows.

        It is where ``excess`` comes to rest: what an epoch brings in, and what is left of all before it. Noise makes
        more noise, of which each round adds a share that soon is the same: the rounds are a geometric series.
        """
        if batch >= self.num_rows:
            return 0.0
        steps, begun, levels = math.ceil(self.num_rows / batch), self.state, [0.0]
        epoch = torch.matrix_power(self._step(lr, momentum, nesterov)[0], steps)
        self.state = torch.zeros_like(begun)
        for _ in range(ROUNDS):
            rest = self.state[self.targets :].transpose(0, 1)
            self.advance(steps, lr, momentum, nesterov, batch)
            came = self.state[self.targets :].transpose(0, 1) - epoch @ rest @ epoch.mT
            self.state = torch.zeros_like(begun)
            self.state[self.targets :] = repeated(epoch, came, FOR_EVER)[1].transpose(0, 1)
            levels.append(self.excess())
        self.state = begun
        *_, before, level, last = levels
        share = (last - level) / (level - before) if level > before else 0.0
        return last + (last - level) * share / (1 - share) if last < math.inf and share < 1 else math.inf

    def _step(self, lr: float, momentum: float, nesterov: bool) -> tuple[Tensor, Tensor]:
        """What a step makes of (error, velocity) along each eigenvector (K, 2, 2), and of the noise of a gradient."""
        gain = lr * (1 + momentum) if nesterov else lr
        kept = lr * momentum * (momentum if nesterov else 1)
        ones = torch.ones_like(self.curvature)
        rows = [1 - gain * self.curvature, -kept * ones, self.curvature, momentum * ones]
        return torch.stack(rows, 1).reshape(-1, 2, 2), torch.tensor([[-gain], [1.0]], dtype=torch.float64)


def repeated(step: Tensor, noise: Tensor, times: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of a linear step (K, 2, 2), taken again and again by squaring: its power, and what has come in at each of them.

    Returns:
        ``step^n``, the covariance ``sum_j step^j noise (step^j)^T``, and ``sum_j step^j``, j from 0 to n - 1.
    """
    one = torch.eye(2, dtype=step.dtype).expand_as(step)
    power, covariance, total = step, noise, one
    for digit in f"{times:b}"[1:]:
        covariance, total = covariance + power @ covariance @ power.mT, total + power @ total
        power = power @ power
        if digit == "1":
            covariance, total, power = noise + step @ covariance @ step.mT, one + step @ total, step @ power
    return power, covariance, total
