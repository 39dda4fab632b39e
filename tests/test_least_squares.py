"""The exact solution against numpy's, which sees all rows at once."""

import numpy as np
import pytest
import torch

from linreg import LeastSquares
from linreg.regression.exact.merged import moments, summary
from tests.tools import ols

RNG = np.random.default_rng(0)


def table(n: int = 60, d: int = 4, t: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Columns of scales from 1e-4 to 1e5, far from zero."""
    scale = np.geomspace(1e-4, 1e5, d)
    x = RNG.normal(size=(n, d)) * scale + 30 * scale
    y = (x / scale) @ RNG.normal(size=(d, t)) + RNG.normal(size=(n, t))
    return torch.from_numpy(x), torch.from_numpy(y)


def in_chunks(x: torch.Tensor, y: torch.Tensor, size: int, intercept: bool = True) -> LeastSquares:
    found = LeastSquares(x.shape[1], y.shape[1], intercept)
    for rows in zip(x.split(size), y.split(size), strict=True):
        found.update(*rows)
    return found


@pytest.mark.parametrize("size", [1, 7, 1_000])
@pytest.mark.parametrize("targets", [1, 3])
def test_agrees_with_numpy_in_any_chunks(size: int, targets: int) -> None:
    x, y = table(t=targets)
    solution = in_chunks(x, y, size).solve()
    exact = ols(x, y)
    np.testing.assert_allclose(solution.coef, exact[:-1].T, rtol=1e-11)
    np.testing.assert_allclose(solution.intercept, exact[-1], rtol=1e-11)


def test_moments_agree_with_numpy() -> None:
    x, y = table()
    rows = torch.cat([x, y], 1).numpy()
    summary = in_chunks(x, y, 7)
    np.testing.assert_allclose(summary.mean, rows.mean(0), rtol=1e-13)
    np.testing.assert_allclose(summary.std, rows.std(0), rtol=1e-13)
    for intercept in (True, False):
        mean, std = moments(zip(x.split(7), y.split(7), strict=True), intercept)
        np.testing.assert_allclose(mean, rows.mean(0) * intercept, rtol=1e-13)
        np.testing.assert_allclose(std, np.sqrt(((rows - mean.numpy()) ** 2).mean(0)), rtol=1e-13)


def test_standard_errors_agree_with_the_textbook() -> None:
    x, y = table(n=40)
    a = np.c_[np.ones(40), (x - x.mean(0)) / x.std(0)]
    residual = y.numpy() - a @ np.linalg.lstsq(a, y.numpy(), rcond=None)[0]
    variance = (residual**2).sum() / (40 - 5)
    expected = np.sqrt(variance * np.diag(np.linalg.inv(a.T @ a)))[1:] / x.std(0).numpy()
    solution = in_chunks(x, y, 9).solve()
    np.testing.assert_allclose(solution.coef_std_error[0], expected, rtol=1e-9)
    raw = np.c_[np.ones(40), x[:, :1].numpy()]
    one = in_chunks(x[:, :1], y, 9).solve()
    rest = y.numpy() - raw @ np.linalg.lstsq(raw, y.numpy(), rcond=None)[0]
    of_intercept = np.sqrt((rest**2).sum() / 38 * np.linalg.inv(raw.T @ raw)[0, 0])
    np.testing.assert_allclose(one.intercept_std_error[0], of_intercept, rtol=1e-9)


def test_standard_errors_with_weight_decay_are_those_of_the_ridge() -> None:
    x, y = table(n=40)
    z, scale = ((x - x.mean(0)) / x.std(0, correction=0)).numpy(), x.std(0, correction=0).numpy()
    plain = np.c_[np.ones(40), z]
    rest = y.numpy() - plain @ np.linalg.lstsq(plain, y.numpy(), rcond=None)[0]
    shrunk = np.linalg.inv(z.T @ z + 40 * 3 / 2 * np.eye(4))  # mean((y - z w)^2) + 3 / 2 |w|^2
    covariance = (rest**2).sum() / 35 * (shrunk @ z.T @ z @ shrunk) / np.outer(scale, scale)
    mean = x.mean(0).numpy()
    of_intercept = np.sqrt((rest**2).sum() / 35 / 40 + mean @ covariance @ mean)
    solution = in_chunks(x, y, 9).solve(3.0)
    np.testing.assert_allclose(solution.coef_std_error[0], np.sqrt(np.diag(covariance)), rtol=1e-9)
    np.testing.assert_allclose(solution.intercept_std_error[0], of_intercept, rtol=1e-9)


def test_halves_merge_to_the_whole() -> None:
    x, y = table(n=100)
    whole = in_chunks(x, y, 100).solve()
    left, right = in_chunks(x[:30], y[:30], 7), in_chunks(x[30:], y[30:], 7)
    for first, second in ((left, right), (in_chunks(x[30:], y[30:], 7), in_chunks(x[:30], y[:30], 7))):
        merged = first.merge(second)
        assert merged.num_rows == 100
        np.testing.assert_allclose(merged.solve().coef, whole.coef, rtol=1e-11)


@pytest.mark.parametrize("batches", [1, 2, 3, 4, 11])
def test_threads_share_the_batches_between_them(batches: int) -> None:
    x, y = table(n=5 * batches, t=2)
    found = [summary(zip(x.split(5), y.split(5), strict=True), 4, 2, True) for _ in range(2)]
    assert found[0].num_rows == len(x)
    assert torch.equal(found[0].r, found[1].r)
    whole = LeastSquares(4, 2).update(x, y)
    np.testing.assert_allclose(found[0].mean, whole.mean, rtol=1e-13)
    np.testing.assert_allclose(found[0].std, whole.std, rtol=1e-12)
    np.testing.assert_allclose(found[0].solve().coef, whole.solve().coef, rtol=1e-10)


def test_a_batch_that_cannot_be_read_ends_the_pass() -> None:
    x, y = table(n=30)
    with pytest.raises(RuntimeError):
        summary([(x[:10], y[:10]), (x[10:20], y[10:15])], 4, 1, True)
    with pytest.raises(ZeroDivisionError):
        summary(((x[:1], y[: i // (2 - i)]) for i in range(1, 3)), 4, 1, True)


def test_the_loss_of_any_linear_model_follows_from_the_summary() -> None:
    x, y = table(t=2)
    summary = in_chunks(x, y, 7)
    z_x = (x - x.mean(0)) / x.std(0, correction=0)
    z_y = (y - y.mean(0)) / y.std(0, correction=0)
    weight, bias = torch.randn(2, 4, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    expected = (z_x @ weight.T + bias - z_y).square().mean(0)
    torch.testing.assert_close(summary.mse(weight, bias), expected, rtol=1e-11, atol=0)


def test_weight_decay_is_the_ridge_of_the_same_objective() -> None:
    x, y = table()
    summary = in_chunks(x, y, 7)
    z_x = (x - x.mean(0)) / x.std(0, correction=0)
    z_y = (y - y.mean(0)) / y.std(0, correction=0)
    weight = summary.weight(0.3).clone().requires_grad_()
    ((z_x @ weight.T - z_y).square().mean() + 0.3 / 2 * weight.square().sum()).backward()
    assert weight.grad.abs().max() < 1e-12


def test_without_intercept() -> None:
    x, y = table()
    solution = in_chunks(x, y, 7, intercept=False).solve()
    scaled = x.numpy() / np.abs(x.numpy()).max(0)
    expected = np.linalg.lstsq(scaled, y.numpy(), rcond=None)[0].T / np.abs(x.numpy()).max(0)
    np.testing.assert_allclose(solution.coef, expected, rtol=1e-9)
    assert solution.intercept.item() == 0


def test_collinear_and_constant_columns_give_the_minimum_norm() -> None:
    x, y = table(n=50, d=2)
    x = torch.cat([x, x[:, :1] * 2 + 1, torch.full((50, 1), 0.1, dtype=torch.float64)], 1)  # std of 0.1s: 3e-17
    summary = in_chunks(x, y, 7)
    assert summary.constant.tolist() == [False, False, False, True, False]
    assert summary.rank == 2
    weight = summary.weight()[0]
    assert weight[0] == pytest.approx(weight[2].item(), rel=1e-9)  # shared equally: the shortest of all solutions
    assert weight[3] == 0
    np.testing.assert_allclose(summary.predict(x), in_chunks(x[:, :2], y, 7).predict(x[:, :2]), rtol=1e-9)
    assert summary.solve().coef_std_error[0].isnan().tolist() == [True, False, True, True]


NOISE = [759, -2048, 2048, -2048, 2523, -2048, 2048, -2048, 1838, -2048, 2048]
NOISE += NOISE[-2::-1]  # the residuals of Wampler 3, 4 and 5, orthogonal to all powers
WAMPLER = [(1, 1.0, 0, 8.5), (2, 0.1, 0, 11), (3, 1.0, 1, 8.5), (4, 1.0, 100, 7.5), (5, 1.0, 10_000, 5.8)]


def test_an_intercept_beside_columns_that_add_up_to_a_constant_has_no_error_of_its_own() -> None:
    male = (RNG.random(60) < 0.4).astype(float)
    other, noise = RNG.normal(5, 1, size=60), RNG.normal(size=(60, 1))
    for columns, is_known in (
        ([male, 1 - male, other], False),
        ([other, 7 - 2 * other], False),
        ([other, 2 * other], True),
        ([male, np.full(60, 3.0), other], True),  # whose own coefficient has none, as in R
    ):
        solution = LeastSquares(len(columns), 1).update(*map(torch.from_numpy, (np.stack(columns, 1), noise))).solve()
        assert bool(solution.intercept_std_error.isfinite()) == is_known


@pytest.mark.parametrize("size", [3, 7, 21])
@pytest.mark.parametrize(("name", "ratio", "noise", "digits"), WAMPLER)
def test_certified_digits_of_wampler(name: int, ratio: float, noise: int, digits: float, size: int) -> None:
    """NIST's Wampler sets 1 to 5: y = 1 + r x + ... + r^5 x^5 at x = 0..20, powers whose condition number is 1,632."""
    x = torch.arange(21, dtype=torch.float64)[:, None] ** torch.arange(1, 6)
    exact = ratio ** torch.arange(1, 6, dtype=torch.float64)
    y = (1 + x @ exact + noise * torch.tensor(NOISE, dtype=torch.float64))[:, None]
    solution = in_chunks(x, y, size).solve()
    error = torch.cat([solution.intercept - 1, solution.coef[0] / exact - 1]).abs().max()
    assert -torch.log10(error) > digits


def test_large_chunks_go_a_faster_way_to_the_same_place() -> None:
    x, y = table(n=50_000, d=6)
    fast, slow = in_chunks(x, y, 5_000), in_chunks(x, y, 4_000)
    np.testing.assert_allclose(fast.solve().coef, slow.solve().coef, rtol=1e-10)
    np.testing.assert_allclose(fast.solve().coef, ols(x, y)[:-1].T, rtol=1e-10)
    x[40_000:] *= 1e9  # other rows than before: the short way is not safe there
    fast, slow = in_chunks(x, y, 5_000), in_chunks(x, y, 4_000)
    np.testing.assert_allclose(fast.solve().coef, slow.solve().coef, rtol=1e-7)


@pytest.mark.parametrize("offset", [0.0, 1e14, 4e15])
def test_a_column_that_is_far_off_blurs_no_other(offset: float) -> None:
    """Account numbers, beside two columns of which the target is all but the difference."""
    rng = np.random.default_rng(0)
    a, b, noise = rng.normal(size=(3, 1_000))
    x = np.column_stack([a, a + 2e-3 * b, offset + rng.permutation(1_000)])
    y = 500 * (x[:, 1] - x[:, 0]) + 0.01 * noise
    summary = LeastSquares(3, 1).update(torch.from_numpy(x), torch.from_numpy(y)[:, None])
    design = np.column_stack([np.ones(1_000), (x - x[0]) / x.std(0)])
    least = np.mean((design @ np.linalg.lstsq(design, y, rcond=None)[0] - y) ** 2)
    assert summary.rank == 3
    residual = summary.predict(torch.from_numpy(x))[:, 0].numpy() - y
    assert np.mean(residual**2) == pytest.approx(least, rel=1e-6)
