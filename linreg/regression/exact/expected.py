"""What SGD should do, an epoch at a time: the excess that theory expects of it, from the summary of the rows alone.

Along each eigenvector of the Hessian, with curvature l and error e, a step is linear in e and the velocity v:
``v := m v + l e + noise; e := e - lr v`` (Polyak 1964), or ``e - lr (l e + m v)`` after that with Nesterov's momentum.
All rows at once have no noise, and then the expected excess is the measured one but for rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

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
        error = self.state[: self.targets, :, 0] + self.offset
        mean = (self.share @ (error**2 - self.offset**2)) @ self.spread / self.optimal
        return float(mean + self.state[self.targets, :, 0] @ self.spread)

    def advance(self, steps: int, lr: float, momentum: float, nesterov: bool) -> None:
        """An epoch: ``steps`` batches of the shuffled rows, each row in one of them."""
        gain = lr * (1 + momentum) if nesterov else lr
        kept = lr * momentum * (momentum if nesterov else 1)
        ones = torch.ones_like(self.curvature)
        rows = [1 - gain * self.curvature, -kept * ones, self.curvature, momentum * ones]
        step, kick = torch.stack(rows, 1).reshape(-1, 2, 2), torch.tensor([[-gain], [1.0]], dtype=torch.float64)
        power, covariance, total = repeated(step, (kick @ kick.T).expand_as(step), steps)
        self.state[: self.targets] = (power @ self.state[: self.targets, ..., None])[..., 0]
        spread = power @ self.state[self.targets :].transpose(0, 1) @ power.mT
        self.state[self.targets :] = spread.transpose(0, 1)
        if steps == 1:
            return
        pushed = total @ kick  # what a batch has of a row, the others of the epoch lack: together their noise is 0
        covariance = (covariance - pushed @ pushed.mT / steps) * steps / (steps - 1)
        batch = self.num_rows / steps
        level = (self.noise + self.excess()) * (self.num_rows - batch) / max(self.num_rows - 1, 1) / batch
        noise = (2 / self.targets) ** 2 * level * self.spread[:, None, None] * covariance
        self.state[self.targets :] += noise.transpose(0, 1)


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
