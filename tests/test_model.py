"""The model against formulas worked out by hand and by numpy."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from linreg import InputError, LinearRegression, Regressor, SyntheticData
from linreg.metrics import RegressionMetrics, about
from linreg.regression.exact.baseline import excess_mse
from tests.conftest import Train
from tests.tools import events, ols


def fit(model: Regressor, data: SyntheticData, tmp_path: Path, **settings: Any) -> Trainer:
    trainer = Trainer(
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        accelerator="cpu",
        **settings,
    )
    trainer.fit(model, datamodule=data)
    return trainer


def standardized(data: SyntheticData) -> tuple[np.ndarray, np.ndarray]:
    x, y = (part.numpy() for part in data.splits["train"])
    return (x - x.mean(0)) / x.std(0), (y - y.mean(0)) / y.std(0)


@pytest.mark.parametrize(
    ("momentum", "nesterov", "weight_decay"), [(0.0, False, 0.0), (0.9, False, 0.1), (0.9, True, 0.1)]
)
def test_steps_by_hand(momentum: float, nesterov: bool, weight_decay: float, tmp_path: Path) -> None:
    """Three full-batch steps of W := W - lr v, v := m v + 2/m sum (W x + b - y) x + w W; no decay of the bias."""
    data = SyntheticData(num_rows=60, num_features=2, batch_size=60)
    settings = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
    model = LinearRegression(2, lr=0.1, **settings)
    w = model.hypothesis.weight.detach().numpy().astype(float).T
    b = model.hypothesis.bias.detach().numpy().astype(float)
    x, y = standardized(data)
    v_w, v_b = np.zeros_like(w), np.zeros_like(b)
    for _ in range(3):
        error = x @ w + b - y
        g_w, g_b = 2 / len(x) * x.T @ error + weight_decay * w, 2 / len(x) * error.sum(0)
        v_w, v_b = momentum * v_w + g_w, momentum * v_b + g_b
        w = w - 0.1 * (g_w + momentum * v_w if nesterov else v_w)
        b = b - 0.1 * (g_b + momentum * v_b if nesterov else v_b)
    fit(model, data, tmp_path, max_epochs=3)
    np.testing.assert_allclose(model.hypothesis.weight.detach().T, w, atol=1e-6)
    np.testing.assert_allclose(model.hypothesis.bias.detach(), b, atol=1e-6)


def test_standardizers_are_fitted_on_training_rows_only(tmp_path: Path) -> None:
    data = SyntheticData(num_rows=60, val_fraction=0.5)
    model = LinearRegression(3)
    fit(model, data, tmp_path, max_epochs=1)
    x, y = data.splits["train"]
    np.testing.assert_allclose(model.x_standardizer.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(model.y_standardizer.std, y.std(0, correction=0), rtol=1e-12)


def test_coefficients_in_the_datas_units_are_the_model(tmp_path: Path) -> None:
    data = SyntheticData(num_rows=60)
    for bias in (True, False):
        model = LinearRegression(3, bias=bias)
        fit(model, data, tmp_path, max_epochs=5)
        x = data.table.x
        torch.testing.assert_close(model(x), x @ model.coef.T + model.intercept, rtol=1e-5, atol=1e-6)
        assert model.coef.shape == (1, 3)
        assert bias or model(torch.zeros(1, 3)).item() == 0


def test_excess_is_what_a_pass_over_the_rows_gives(tmp_path: Path) -> None:
    data = SyntheticData(num_rows=200)
    model = LinearRegression(3)
    fit(model, data, tmp_path, max_epochs=2)
    x, y = data.splits["train"]
    exact = np.square(y.numpy() - np.c_[x, np.ones(len(x))] @ ols(x, y)).mean()
    mse = (model(x) - y).square().mean().item()
    assert excess_mse(model) == pytest.approx((mse - exact) / exact, rel=1e-4)


def test_a_flat_target_is_refused_and_never_broadcasts() -> None:
    model = LinearRegression(2)
    with pytest.raises(InputError, match=r"unsqueeze\(1\)"):
        model.loss(model.hypothesis(torch.randn(5, 2)), torch.randn(5))


def test_metrics_equal_one_pass_over_uneven_batches() -> None:
    rng = np.random.default_rng(0)
    y = 1e6 + rng.normal(size=(1_000, 2))
    y_hat = y + 0.1 * rng.normal(size=y.shape)
    metrics = about(torch.full((2,), 1e6), RegressionMetrics())
    for rows in np.split(np.arange(1_000), [64, 512, 999]):
        metrics.update(torch.from_numpy(y_hat[rows]), torch.from_numpy(y[rows]))
    error = y_hat - y
    expected = {
        "mse": np.square(error).mean(),
        "rmse": np.sqrt(np.square(error).mean()),
        "mae": np.abs(error).mean(),
        "r2": np.mean(1 - np.square(error).sum(0) / np.square(y - y.mean(0)).sum(0)),
    }
    for name, value in metrics.compute().items():
        assert value.item() == pytest.approx(expected[name], rel=1e-9)


def test_r2_of_one_row_is_nan() -> None:
    metrics = RegressionMetrics()
    metrics.update(torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64))
    assert metrics.compute()["r2"].isnan()


@pytest.mark.parametrize(
    "settings",
    [{"lr": 0.0}, {"lr": float("nan")}, {"momentum": 1.0}, {"weight_decay": -1.0}, {"optimizer": "Adem"}]
    + [{"optimizer": "os.system"}, {"lr": 0.1, "nesterov": True}, {"optimizer": "Adam", "momentum": 0.5}]
    + [{"optimizer": {"class_path": "torch.optim.Adam", "init_args": {"bets": 1}}}],
)
def test_settings_that_cannot_work_are_refused_at_once(settings: dict) -> None:
    with pytest.raises(InputError):
        LinearRegression(2, **settings)


def test_any_module_is_a_hypothesis_and_any_optimizer_trains_it(tmp_path: Path) -> None:
    data = SyntheticData(num_rows=100)
    hypothesis = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    scheduler = {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 10}, "interval": "step"}
    model = Regressor(hypothesis, 3, optimizer="Adam", lr=0.03, weight_decay=1e-4, lr_scheduler=scheduler)
    trainer = fit(model, data, tmp_path, max_epochs=25)
    groups = trainer.optimizers[0].param_groups
    assert isinstance(trainer.optimizers[0], torch.optim.Adam)
    assert [group["weight_decay"] for group in groups] == [1e-4, 0.0]
    assert groups[0]["lr"] == pytest.approx(0.03 * 0.1**2)
    assert excess_mse(model) is None


def test_a_rate_is_not_chosen_for_a_hypothesis_without_a_known_optimum(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--model\.lr"):
        fit(Regressor(nn.Sequential(nn.Linear(3, 1)), 3), SyntheticData(), tmp_path, max_epochs=1)


def test_several_targets(tmp_path: Path) -> None:
    data = SyntheticData(num_rows=300)
    y = torch.cat([data.table.y, 100 - 3 * data.table.x[:, :1]], 1)
    data.table.y, data.table.target_names = y, ["a", "b"]
    model = LinearRegression(3, 2)
    fit(model, data, tmp_path, max_epochs=60)
    x, y = (part.numpy() for part in data.splits["train"])
    exact = ols(x, y)
    np.testing.assert_allclose(model.coef, exact[:-1].T, atol=1e-2)
    np.testing.assert_allclose(model.intercept, exact[-1], atol=1e-2)


def test_a_full_batch_is_remembered_and_no_other_one(train: Train) -> None:
    """20,000 rows at once: the loss of the validation rows is their own, and the answer that of smaller batches."""
    flags = ["--data.num_rows", 20_000, "--data.noise_std", 1.0, "--max_epochs", 25]
    assert train(*flags, "--data.batch_size", 20_000, "--model.lr", 0.3)[0] == 0
    metrics = json.loads(Path("runs/default/version_0/metrics.json").read_text())
    assert metrics["excess_mse"] < 1e-6
    model = LinearRegression.load_from_checkpoint("runs/default/version_0/checkpoints/best.ckpt", weights_only=True)
    found = events(Path("runs/default/version_0"))
    loss, mse = (found.Scalars(tag)[-1].value for tag in ("loss/val", "mse/val"))
    assert loss * float(model.y_standardizer.std) ** 2 == pytest.approx(mse, rel=1e-5)
    assert mse == pytest.approx(metrics["val"]["mse"], rel=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, 2024.0, 1e9 + 0.3])
@pytest.mark.parametrize("center", ["mean", "elsewhere"])
def test_r2_of_a_target_of_one_value_is_nan(value: float, center: str) -> None:
    y = torch.full((1_000, 1), value, dtype=torch.float64)
    metrics = about(y.mean(0) + (center == "elsewhere") * 3, RegressionMetrics())
    for rows in y.split(64):
        metrics.update(rows + 1e-3, rows)
    assert metrics.compute()["r2"].isnan()


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_r2_is_the_same_in_any_unit(unit: float) -> None:
    y, y_hat = torch.randn(2, 100, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    metrics = RegressionMetrics()
    metrics.update(unit * y_hat, unit * y)
    expected = 1 - float(((y - y_hat) ** 2).sum() / ((y - y.mean()) ** 2).sum())
    assert float(metrics.compute()["r2"]) == pytest.approx(expected, rel=1e-9)
