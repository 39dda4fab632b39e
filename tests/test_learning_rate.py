"""The chosen rate against gradient descent itself."""

import numpy as np
import pytest
import torch

from linreg import LeastSquares
from linreg.regression.exact.learning_rate import GOAL, HessianSpectrum, evenly, make_plan, stability_limit


def table(kappa: float, n: int = 300, d: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Columns whose condition number is about kappa, and a target that every direction has the same share in."""
    rng = np.random.default_rng(1)
    u, _ = np.linalg.qr(rng.normal(size=(n, d)))
    v, _ = np.linalg.qr(rng.normal(size=(d, d)))
    x = u * np.geomspace(kappa, 1, d) @ v
    x = (x - x.mean(0)) / x.std(0)
    y = u.sum(1) * np.sqrt(n / d) + rng.normal(size=n)
    return x, ((y - y.mean()) / y.std())[:, None]


def summarize(x: np.ndarray, y: np.ndarray) -> LeastSquares:
    return LeastSquares(x.shape[1]).update(torch.from_numpy(x), torch.from_numpy(y))


def descend(x: np.ndarray, y: np.ndarray, lr: float, momentum: float, nesterov: bool, steps: int) -> list[float]:
    """torch's SGD on the whole table, from zero, in float64: the loss after each step."""
    a, b = torch.from_numpy(x), torch.from_numpy(y)
    w = torch.zeros(x.shape[1], 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=lr, momentum=momentum, nesterov=nesterov)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        (a @ w - b).square().mean().backward()
        optimizer.step()
        losses.append(float((a @ w - b).detach().square().mean()))
    return losses


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_the_limit_is_where_it_diverges(momentum: float, nesterov: bool) -> None:
    x, y = table(3)
    top = stability_limit(2 * float(summarize(x, y).eigenvalues[0]), momentum, nesterov)
    below, above = (descend(x, y, share * top, momentum, nesterov, 2_000)[-1] for share in (0.99, 1.01))
    assert below < 1
    assert above > 1e3


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_the_expected_curve_is_the_true_one(momentum: float, nesterov: bool) -> None:
    x, y = table(10)
    summary = summarize(x, y)
    times = [1, 2, 5, 30, 200]
    curve = HessianSpectrum(summary, 0.0).curve(times, 0.1, momentum, nesterov)
    losses = np.array(descend(x, y, 0.1, momentum, nesterov, 200))[np.array(times) - 1]
    exact = float(summary.mse(summary.weight()))
    np.testing.assert_allclose(curve, losses / exact - 1, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("kappa", [1, 10, 100, 300])
def test_the_plan_for_all_rows_keeps_its_word(kappa: float) -> None:
    x, y = table(kappa)
    summary = summarize(x, y)
    plan = make_plan(summary, batch_size=len(x))
    assert plan.lr < plan.lr_limit
    losses = descend(x, y, plan.lr, plan.momentum, False, plan.steps_to_goal)
    assert losses[-1] < (1 + GOAL) * float(summary.mse(summary.weight()))
    assert not plan.decay


@pytest.mark.parametrize("batch_size", [16, 64])
def test_the_plan_for_mini_batches_reaches_the_goal(batch_size: int) -> None:
    x, y = table(10)
    x = np.concatenate([x, x[:3] * 30])  # rows far out: what makes mini-batches unstable
    y = np.concatenate([y, y[:3] * 30])
    summary = summarize(x, y)
    x, y = ((c - c.mean(0)) / c.std(0) for c in (x, y))
    plan = make_plan(summary, batch_size)
    assert plan.decay
    rng, w, v = np.random.default_rng(0), np.zeros((5, 1)), np.zeros((5, 1))
    for step in range(plan.most_steps):
        rows = rng.choice(len(x), batch_size, replace=False)
        v = plan.momentum * v + 2 / batch_size * x[rows].T @ (x[rows] @ w - y[rows])
        w = w - plan.lr * plan.lr_factor(step) * v
    excess = float(((x @ w - y) ** 2).mean() / summary.mse(summary.weight())) - 1
    assert excess < GOAL


def test_a_noisy_rate_falls_and_falls_again() -> None:
    plan = make_plan(summarize(*table(3)), batch_size=16)
    n = plan.steps
    shares = [plan.lr_factor(step) for step in (0, n // 2, 3 * n // 4, n - 1, n, 7 * n // 4, 2 * n)]
    assert shares == pytest.approx([1, 1, 0.5, 0.02, 1 / 4, 1 / 8, 1 / 16], abs=0.02)


def test_a_given_rate_and_batch_are_kept() -> None:
    plan = make_plan(summarize(*table(3)), batch_size=7, lr=0.01, momentum=0.5)
    assert (plan.lr, plan.momentum, plan.batch_size, plan.decay) == (0.01, 0.5, 7, False)


def test_a_batch_size_left_open_grows_with_the_condition() -> None:
    easy, hard = (make_plan(summarize(*table(kappa, n=20_000))) for kappa in (1, 200))
    assert easy.batch_size < hard.batch_size


@pytest.mark.parametrize(("n", "batch_size"), [(1_000, 1_000), (1_093, 1_093), (2_100, 1_050), (1_600, 1_024)])
def test_no_last_batch_of_a_few_rows_is_planned(n: int, batch_size: int) -> None:
    """69 rows at a rate for 1,024 would be noise: all rows then, or batches that are somewhat larger."""
    assert evenly(1_024, n) == max(batch_size, 1_024)
    chosen = make_plan(summarize(*table(3, n=n))).batch_size
    assert chosen in (batch_size, n)
    assert not 0 < n % chosen < chosen / 2
