"""Theory beside measurement: what descent should do, from the summary of the rows alone, and what it does."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from linreg import LinearRegression
from linreg.regression.exact.coefficients import variance_inflation
from linreg.regression.exact.expected import ExpectedDescent
from linreg.regression.exact.least_squares import LeastSquares
from tests.conftest import Train
from tests.tools import assert_same, load, scalars

ALL_ROWS = ["--data.noise_std", 1, "--data.batch_size", 800, "--model.lr", 0.05, "--max_epochs", 40]
MOMENTUM = ["--model.momentum", 0.9]


@pytest.mark.parametrize(
    "flags",
    [
        [],
        MOMENTUM,
        [*MOMENTUM, "--model.nesterov", "true"],
        pytest.param([*MOMENTUM, "--model.weight_decay", 0.05], marks=pytest.mark.slow),
        pytest.param(["--data.path", "configs/penguins.csv", "--data.target", "[year, sex2]"], marks=pytest.mark.slow),
    ],
)
def test_full_batches_do_what_theory_says(flags: list[object], train: Train, workplace: Path) -> None:
    """To float32, at every epoch: the proof that the optimizer is right."""
    text = Path("configs/penguins.csv").read_text().splitlines()
    table = [f"{line},{'sex2' if not i else i % 7}" for i, line in enumerate(text)]
    Path("configs/penguins.csv").write_text("\n".join(table))
    flags = [*ALL_ROWS, *flags] if "--data.path" not in flags else [*ALL_ROWS[2:], *flags]
    code, out = train(*flags, "--figures", "false")
    assert code == 0, out
    curves = scalars("runs/default/version_0")
    measured, expected = (np.array([v for _, v in curves[f"excess_mse/{name}"]]) for name in ("train", "expected"))
    assert len(measured) == 40
    np.testing.assert_allclose(measured, expected, rtol=3e-4, atol=1e-6 * measured[0])
    assert curves["excess_mse/log10"] == [
        (step, pytest.approx(math.log10(abs(value)), abs=1e-5)) for step, value in curves["excess_mse/train"]
    ]
    by_epoch = scalars("runs/default/version_0/by_epoch")["excess_mse/log10_by_epoch"]
    assert [step for step, _ in by_epoch] == [*range(40)]


@pytest.mark.parametrize(
    ("n", "batch", "lr", "momentum", "within"),
    [
        (64, 8, 0.02, 0.0, 0.25),
        (64, 8, 0.02, 0.8, 0.25),
        (64, 1, 0.01, 0.0, 0.25),
        (320, 1, 0.1, 0.0, 0.2),  # the noise is as large as the residuals are, and hence feeds itself
        (1_093, 1_024, 0.5, 0.0, 0.12),  # a last batch of 69 rows
    ],
)
def test_the_noise_of_mini_batches_is_expected(n: int, batch: int, lr: float, momentum: float, within: float) -> None:
    """Against the mean of many descents in numpy, each over rows in its own order."""
    rng = np.random.default_rng(0)
    epochs = 6 if n == 64 else 3
    x = rng.normal(size=(n, 2))
    y = x @ [[1.0], [0.3]] + rng.normal(size=(n, 1))
    exact = LeastSquares(2).update(*map(torch.from_numpy, (x, y)))
    z, t = ((side - side.mean(0)) / side.std(0) for side in (x, y))
    model = LinearRegression(2, lr=lr, momentum=momentum)
    model.exact = exact
    model.y_standardizer.fit(exact.mean[2:], exact.std[2:])
    expected = ExpectedDescent(model)
    many = 4_000 if n == 64 else 500
    weight, velocity = np.zeros((many, 3)), np.zeros((many, 3))
    z = np.c_[z, np.ones(n)]
    optimum = np.linalg.lstsq(z, t, rcond=None)[0][:, 0]
    least = np.square(z @ optimum - t[:, 0]).mean()
    for _ in range(epochs):
        order = rng.permuted(np.tile(np.arange(n), (many, 1)), axis=1)
        for i in range(0, n, batch):
            rows, targets = z[order[:, i : i + batch]], t[order[:, i : i + batch], 0]
            residual = np.einsum("mbd,md->mb", rows, weight) - targets
            velocity = momentum * velocity + 2 / rows.shape[1] * np.einsum("mb,mbd->md", residual, rows)
            weight = weight - lr * velocity
        mean = np.square(weight @ z.T - t[:, 0]).mean() / least - 1
        expected.advance(-(-n // batch), lr, momentum, nesterov=False, batch=batch)
        assert expected.excess() == pytest.approx(mean, rel=within)
    level = expected.noise_level(batch, lr, momentum, nesterov=False)
    assert expected.excess() == pytest.approx(mean, rel=within)  # as it was
    if n != 64:
        assert level == pytest.approx(mean, rel=within)
    for _ in range(100):
        expected.advance(-(-n // batch), lr, momentum, nesterov=False, batch=batch)
    assert level == pytest.approx(expected.excess(), rel=0.02)  # where the curve ends, and so the line of the pictures
    assert expected.noise_level(n, lr, momentum, nesterov=False) == 0
    assert {expected.noise_level(8, rate, 0.0, nesterov=False) for rate in (3, 1e6)} == {math.inf}
    assert expected.noise_level(1, 0.6, 0.0, nesterov=False) == math.inf


def test_the_expected_curve_goes_on_where_it_was(train: Train, workplace: Path) -> None:
    flags = ["--data.batch_size", 100, "--figures", "false", "--check_val_every_n_epoch", 2]
    assert train(*flags, "--max_epochs", 4)[0] == 0
    assert train(*flags, "--max_epochs", 2, "--name", "half")[0] == 0
    assert train("--ckpt_path", "runs/half/version_0/checkpoints/last.ckpt", "--max_epochs", 4)[0] == 0
    whole, half = (scalars(f"runs/{name}/version_0") for name in ("default", "half"))
    for tag in ("excess_mse/expected", "excess_mse/log10", "coef/x2"):
        assert half[tag] == whole[tag], tag
    whole, half = (scalars(f"runs/{name}/version_0/by_epoch") for name in ("default", "half"))
    assert half == whole
    whole, half = (
        load(f"runs/{name}/version_0/checkpoints/last.ckpt")["callbacks"]["ExactBaseline"]
        for name in ("default", "half")
    )
    assert half["history"][:, 0].tolist() == [1, 2, 3, 4]  # of which the picture is drawn
    assert_same(half, whole)


def test_what_is_no_plain_descent_has_no_theory(train: Train, workplace: Path) -> None:
    for i, flags in enumerate((["--model.optimizer", "Adam", "--model.lr", 0.1], ["--gradient_clip_val", 0.1])):
        code, out = train(*flags, "--data.batch_size", 100, "--max_epochs", 2, "--figures", "false")
        assert code == 0, out
        curves = scalars(f"runs/default/version_{i}")
        assert "excess_mse/log10" in curves
        assert "excess_mse/expected" not in curves


def test_variance_inflation_is_that_of_the_regressions() -> None:
    """VIF = 1 / (1 - R2) of each column regressed on the others."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, 3))
    x[:, 2] = x[:, 0] + 0.3 * x[:, 1] + 0.1 * rng.normal(size=50)
    found = variance_inflation(LeastSquares(3).update(torch.from_numpy(x), torch.from_numpy(x[:, :1])))
    for i in range(3):
        others = np.c_[np.delete(x, i, 1), np.ones(50)]
        left = x[:, i] - others @ np.linalg.lstsq(others, x[:, i], rcond=None)[0]
        assert float(found[i]) == pytest.approx(np.square(x[:, i] - x[:, i].mean()).sum() / np.square(left).sum())


def test_columns_that_repeat_others_are_named(train: Train, workplace: Path) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 100))
    rows = np.c_[a, b, a + 0.01 * rng.normal(size=100), a + b]
    Path("table.csv").write_text("\n".join(["one,two,copy,y", *(",".join(map(str, row)) for row in rows.tolist())]))
    code, out = train("--data.path", "table.csv", "--data.target", "y", "--max_epochs", 1)
    assert code == 0, out
    said = " ".join(out.split())
    assert "columns that nearly repeat others, with their VIF: " in said
    named = said.split("with their VIF: ")[1].split(";")[0]
    assert "one (" in named
    assert "copy (" in named
    assert "two" not in named
    assert max(map(len, out.splitlines())) <= 80


def test_within_a_percent_is_counted_exactly(train: Train, workplace: Path) -> None:
    """Of one feature and all rows, a step leaves (1 - 2 lr) of the error: the epoch is the first below 1 %."""
    code, out = train("--config", "configs/batch.yaml", "--figures", "false")
    assert code == 0, out
    excess = scalars("runs/batch/version_0")["excess_mse/expected"][-1][1]  # after 20 epochs
    epochs = 20 + math.ceil(math.log(0.01 / excess) / math.log(0.96**2))
    assert f"expected to be within 1 % after about {epochs} epochs" in " ".join(out.split())
