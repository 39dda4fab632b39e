"""The lecture, slide by slide: each test states its equation and holds the project's own code, or torch, against it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from linreg import LinearRegression, SyntheticData
from linreg.regression.gradient import formula_step, mse_gradient
from linreg.regression.regressor import Regressor
from tests.conftest import Train
from tests.tools import events


def in_raw_units(num_features: int, coef: list[float], intercept: float) -> LinearRegression:
    """A model with the given coefficients; its standardizers still map every number to itself."""
    model = LinearRegression(num_features)
    with torch.no_grad():
        model.hypothesis.weight.copy_(torch.tensor([coef]))
        model.hypothesis.bias.fill_(intercept)
    return model


def test_a_model_is_a_hypothesis() -> None:
    """Simple: H(x) = W x + b. Multiple: y = a1 x1 + a2 x2 + a3 x3 + b."""
    simple = in_raw_units(1, [2.0], 1.0)
    assert simple(torch.tensor([[3.0]])).item() == 2 * 3 + 1
    multiple = in_raw_units(3, [2.0, -1.0, 0.5], 4.0)
    assert multiple(torch.tensor([[1.0, 2.0, 6.0]])).item() == 2 * 1 - 1 * 2 + 0.5 * 6 + 4


def test_regression_is_continuous_and_classification_is_not() -> None:
    """A regression moves with its input as little as one likes; a class does not move, until it jumps."""
    model, x = in_raw_units(1, [2.0], 1.0), torch.tensor([[0.3], [0.3 + 1e-4]])
    step = (model(x)[1] - model(x)[0]).item()
    assert step == pytest.approx(2e-4, rel=1e-2)
    scores = nn.Linear(1, 3)(torch.linspace(-5, 5, 10_001)[:, None])
    labels = scores.argmax(1)
    assert set(labels.tolist()) <= {0, 1, 2}
    assert (labels[1:] != labels[:-1]).sum() <= 2


def test_mean_squared_error() -> None:
    """loss(w) = 1/N sum (y_hat - y)^2, in numpy np.mean((w[0] * x + w[1] - t) ** 2)."""
    rng = np.random.default_rng(0)
    x, t, w = rng.normal(size=50), rng.normal(size=50), (1.5, -0.5)
    model = in_raw_units(1, [w[0]], w[1])
    loss = model.loss(model(torch.from_numpy(x)[:, None]), torch.from_numpy(t)[:, None])
    assert loss.item() == pytest.approx(np.mean((w[0] * x + w[1] - t) ** 2), rel=1e-6)


def test_gradient_descent_looks_for_the_minimum() -> None:
    """f(x*) = min f(x): a positive slope says go left, a negative one go right, and at x* it is zero."""
    for start, left in ((4.0, True), (-3.0, False)):
        x = torch.tensor(start, requires_grad=True)
        ((x - 1) ** 2).backward()
        assert (x.grad > 0) == left
        step = x.detach() - 0.1 * x.grad
        assert (step < x) == left
        assert (step - 1) ** 2 < (x - 1) ** 2
    bottom = torch.tensor(1.0, requires_grad=True)
    ((bottom - 1) ** 2).backward()
    assert bottom.grad == 0


def test_partial_derivatives() -> None:
    """f(x, y) = x^2 + x y + y^2 has f_x = 2 x + y and f_y = x + 2 y."""
    x, y = (torch.tensor(value, requires_grad=True) for value in (1.5, -4.0))
    (x**2 + x * y + y**2).backward()
    assert x.grad == 2 * 1.5 - 4.0
    assert y.grad == 1.5 + 2 * -4.0
    generator = torch.Generator().manual_seed(0)  # and of the mean squared error, by W and b: by finite differences
    x, y, w, b = (torch.randn(s, generator=generator, dtype=torch.float64) for s in ((9, 2), (9, 1), (1, 2), (1,)))
    loss, by_w, by_b = mse_gradient(x, y, w, b)
    assert loss.item() == pytest.approx(np.mean((x.numpy() @ w.numpy().T + b.numpy() - y.numpy()) ** 2))
    for parameter, gradient in ((w, by_w), (b, by_b)):
        for i in range(parameter.numel()):
            step = torch.zeros(parameter.numel(), dtype=torch.float64)
            step[i] = 1e-6
            steps = [step.view_as(p) if p is parameter else 0 * p for p in (w, b)]
            above = mse_gradient(x, y, w + steps[0], b + steps[1])[0]
            below = mse_gradient(x, y, w - steps[0], b - steps[1])[0]
            assert gradient.flatten()[i].item() == pytest.approx(((above - below) / 2e-6).item(), rel=1e-6)


def test_cost_gradient_and_update(train: Train, workplace: Path) -> None:
    """cost(W) = 1/m sum (W x - y)^2, its gradient 2/m sum (W x - y) x, and W := W - alpha grad: a real run's steps."""
    alpha, flags = (
        0.1,
        ["--data.num_rows", 50, "--data.num_features", 1, "--data.batch_size", 50, "--model.bias", "false"],
    )
    assert train(*flags, "--model.lr", alpha, "--max_epochs", 4, "--logger", "false", "--name", "update")[0] == 0
    x, y = (part.numpy() for part in SyntheticData(num_rows=50, num_features=1).splits["train"])
    x, y = x / np.sqrt((x**2).mean()), y / np.sqrt((y**2).mean())  # through the origin: scaled, not shifted
    w = 0.0
    for _ in range(4):
        w = w - alpha * 2 / len(x) * np.sum((w * x - y) * x)
    (path,) = Path().rglob("last.ckpt")
    assert torch.load(path, weights_only=True)["state_dict"]["hypothesis.weight"].item() == pytest.approx(w, abs=1e-6)
    layer = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    torch.nn.init.zeros_(layer.weight)
    step = formula_step(layer, torch.optim.SGD(layer.parameters(), lr=alpha))
    for _ in range(4):
        step(torch.from_numpy(x), torch.from_numpy(y))
    assert layer.weight.item() == pytest.approx(w)


def test_tensors_are_made() -> None:
    """From a list (the type is inferred), from an array, like another one (keeps shape and type, or overrides it)."""
    data = torch.tensor([[1, 2], [3, 4]])
    assert data.dtype == torch.int64
    assert torch.tensor([1.0, 2.0]).dtype == torch.float32
    array = np.array([[1.0, 2.0]])
    assert torch.from_numpy(array).dtype == torch.float64
    ones = torch.ones_like(data)
    assert (ones.shape, ones.dtype) == (data.shape, data.dtype)
    assert torch.rand_like(data, dtype=torch.float).dtype == torch.float32
    assert (data.shape, data.device.type) == ((2, 2), "cpu")


def test_tensors_move_to_an_accelerator() -> None:
    """tensor.to(device), where there is one."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    assert torch.ones(2).to(device).device.type == device.type


def test_tensors_are_indexed_and_multiplied() -> None:
    """tensor[:, 1] = 0; mul and * go element by element, matmul and @ are the matrix product."""
    tensor = torch.ones(4, 4)
    tensor[:, 1] = 0
    assert tensor.sum(0).tolist() == [4, 0, 4, 4]
    a, b = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[10.0, 20.0], [30.0, 40.0]])
    assert (a * b).tolist() == a.mul(b).tolist() == [[10, 40], [90, 160]]
    assert (a @ b).tolist() == a.matmul(b).tolist() == [[70, 100], [150, 220]]


def test_the_optimizer() -> None:
    """optimizer = SGD([W], lr=0.15); zero_grad, backward, step: as one makes it from the model's own settings."""
    model = LinearRegression(1, lr=0.15, bias=False)
    optimizer = model.configure_optimizers()
    assert isinstance(optimizer, torch.optim.SGD)
    x, y = torch.tensor([[1.0], [2.0]], dtype=torch.float64), torch.tensor([[2.0], [4.0]], dtype=torch.float64)
    for _ in range(2):  # without zero_grad the second gradient would add to the first
        before = model.hypothesis.weight.item()
        optimizer.zero_grad()
        model.training_step((x, y), 0).backward()
        gradient = 2 / 2 * ((before * 1 - 2) * 1 + (before * 2 - 4) * 2)
        assert model.hypothesis.weight.grad.item() == pytest.approx(gradient, rel=1e-6)
        optimizer.step()
        assert model.hypothesis.weight.item() == pytest.approx(before - 0.15 * gradient, rel=1e-6)


@pytest.mark.slow
def test_batch_and_stochastic_gradient_descent(train: Train, workplace: Path) -> None:
    """On the same budget of rows: every row a step is dear and smooth, one row a step is cheap and noisy."""
    steps, excess = {}, {}
    for name in ("batch", "mini_batch", "stochastic"):
        assert train("--config", f"configs/{name}.yaml")[0] == 0
        curve = events(workplace / f"runs/{name}/version_0").Scalars("excess_mse/train")
        steps[name], excess[name] = curve[-1].step + 1, [event.value for event in curve]
    assert steps == {"batch": 20, "mini_batch": 260, "stochastic": 4_000}, "20 epochs of 200 rows: rows a step"
    at_end = {name: values[-1] for name, values in excess.items()}
    rattle = {name: np.std(values[10:]) for name, values in excess.items()}
    assert at_end["batch"] > 1 > at_end["stochastic"], f"few dear steps are far, many cheap ones near: {at_end}"
    assert np.all(np.diff(excess["batch"]) < 0), f"each batch step goes down: {excess['batch']}"
    assert np.any(np.diff(excess["stochastic"]) > 0), f"stochastic steps go up too: {excess['stochastic']}"
    assert rattle["stochastic"] > 10 * rattle["mini_batch"], f"the smaller the batch, the noisier the end: {rattle}"


def test_the_hypothesis_may_be_another() -> None:
    """The same loss and step for a bigger model, whose hypothesis is any function with parameters."""
    model = Regressor(nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1)), 2, lr=0.1)
    model.training_step((torch.randn(8, 2), torch.randn(8, 1)), 0).backward()
    assert all(parameter.grad is not None for parameter in model.hypothesis.parameters())
