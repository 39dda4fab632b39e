"""``python train.py lecture``: three ways to the optimum in one picture, and the surface below them against numpy."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from linreg import InputError, LinearRegression, RegressionData, SyntheticData, Table
from tests.conftest import ROOT, Process, Train
from tests.tools import events, ols

FOLDER = Path("runs/lecture/version_0")
SHAPE = (900, 1500)


def read(folder: Path) -> dict[str, dict[str, float]]:
    found = json.loads((folder / "metrics.json").read_text())["lecture"]
    return {regime: {k: v for k, v in row.items() if k != "seconds"} for regime, row in found.items()}


@pytest.mark.slow
def test_the_lecture_in_one_command(process: Process, train: Train, workplace: Path) -> None:
    """Batch stops half-way, mini-batches arrive, stochastic descent is there first and rattles."""
    done = process("lecture")
    assert (done.returncode, done.stderr) == (0, "")
    assert str(FOLDER / "lecture.png") in done.stdout
    assert imread(FOLDER / "lecture.png").shape[:2] == SHAPE
    found = read(FOLDER)
    steps = {regime: (row["batch_size"], row["steps"], row["epochs"]) for regime, row in found.items()}
    assert steps == {"batch": (200, 20, 20), "mini-batch": (16, 260, 20), "stochastic": (1, 4_000, 20)}
    assert found["batch"]["excess_mse"] > 1 > 0.01 > found["mini-batch"]["excess_mse"]
    assert [image.step for image in events(FOLDER).Images("lecture")] != []
    assert train("lecture", "--config", FOLDER / "config.yaml")[0] == 0
    assert read(FOLDER.with_name("version_1")) == found


def test_any_table_has_its_lecture(train: Train, workplace: Path) -> None:
    typed = ["--data.path", "configs/penguins.csv", "--data.target", "body_mass_g", "--max_epochs", 1]
    code, out = train("lecture", *typed, "--name", "mine", "--logger", "false")
    assert code == 0, out
    assert "200 of 274 training rows" in out
    folder = Path("runs/mine/version_0")
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "lecture.png", "metrics.json"]
    assert read(folder)["stochastic"]["steps"] == 200


def test_the_picture_of_the_readme_is_of_that_size() -> None:
    assert imread(ROOT / ".github/lecture.png").shape[:2] == SHAPE


class Rows(RegressionData):
    def __init__(self, table: Table) -> None:
        super().__init__()
        self.table = table


def test_the_surface_and_the_ways_are_exact() -> None:
    """Of one feature, in the data's units: the MSE of every line over all rows; and the lecture's descent in numpy."""
    data = SyntheticData(num_rows=100, num_features=1, noise_std=1.0)
    lesson = LinearRegression(1).lesson(data)
    x, y = (side.numpy() for side in data.splits["train"])
    (slope,), (intercept,) = ols(x, y)
    least = np.square(slope * x + intercept - y).mean()
    a, b = np.meshgrid(np.linspace(-2, 5, 7), np.linspace(-3, 3, 5))
    mse = np.square(a[..., None] * x[:, 0] + b[..., None] - y[:, 0]).mean(-1)
    np.testing.assert_allclose(lesson.surface(a, b), mse / least - 1, rtol=1e-9)
    np.testing.assert_allclose(lesson.place(lesson.optimum[None])[0], [slope, intercept], rtol=1e-9)
    z, t = ((side - side.mean()) / side.std() for side in (x[:, 0], y[:, 0]))
    w, c, lr = 0.0, -1.0, 0.3
    for point, share in zip(lesson.descent(lr), lesson.excess(lesson.descent(lr)), strict=True):
        assert point.tolist() == pytest.approx([w, c], rel=1e-9, abs=1e-12)
        residual = w * z + c - t
        assert share == pytest.approx(np.square(residual).mean() * y.var() / least - 1, rel=1e-6, abs=1e-9)
        w, c = w - lr * 2 * (residual * z).mean(), c - lr * 2 * residual.mean()


def test_the_axes_are_those_of_curvature() -> None:
    """Of several features: along the eigenvectors of numpy's correlation matrix, the surface as curved as these say."""
    data = SyntheticData(num_rows=100, num_features=3)
    lesson = LinearRegression(3).lesson(data)
    values, vectors = np.linalg.eigh(np.corrcoef(data.splits["train"][0].numpy().T))
    way = lesson.optimum + torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = (way - lesson.optimum)[:, :-1].numpy() @ vectors[:, [-1, 0]]
    np.testing.assert_allclose(np.abs(lesson.place(way)), np.abs(expected), rtol=1e-6)
    one = lesson.surface(np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    assert one[0] / one[1] == pytest.approx(values[-1] / values[0])


def test_the_surface_below_columns_that_repeat_each_other_is_a_valley() -> None:
    """All ways lead along the one eigenvector, which is both axes: there the surface is the excess, across it flat."""
    x = torch.randn(100, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    data = Rows(Table(torch.cat([x, 2 * x], 1), x[:, 0] + x[:, 0].roll(1)))
    lesson = LinearRegression(2).lesson(data)
    way = lesson.descent(lesson.lr)
    np.testing.assert_allclose(lesson.surface(*lesson.place(way).T), lesson.excess(way), rtol=1e-6)
    assert lesson.surface(np.array([1.0]), np.array([-1.0])) == pytest.approx([0.0])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--check", 0.01], "--check"),
        (["--figures", "false"], "--figures"),
        (["--chunk", 4], "--chunk"),
        (["--fast_dev_run", "true"], "--fast_dev_run"),
        (["--model.bias", "false"], "intercept"),
        (["--data.noise_std", 0], "do not determine"),
        (["--data.path", "configs/penguins.csv", "--data.target", "[body_mass_g, year]"], "one target"),
        (["--model", "net.Net"], "has no lesson"),
    ],
)
def test_what_a_lecture_cannot_honour(flags: list[object], said: str, train: Train, workplace: Path) -> None:
    Path("net.py").write_text("from lightning.pytorch import LightningModule\nclass Net(LightningModule):\n    pass\n")
    code, out = train("lecture", *flags)
    assert code == 2, out
    assert said in out.splitlines()[-1]
    assert not Path("runs").exists()


def test_a_rate_that_diverges_is_one_line(train: Train, workplace: Path) -> None:
    code, out = train("lecture", "--model.lr", 3)
    assert (code, "the training diverged" in out.splitlines()[-1]) == (1, True), out
    with pytest.raises(InputError, match="lecture needs"):
        LinearRegression(1).lesson(SyntheticData(num_features=1, noise_std=0.0))


@pytest.mark.parametrize("epochs", [0, -1])
def test_a_lecture_has_an_end(epochs: int, train: Train) -> None:
    code, out = train("lecture", "--max_epochs", epochs)
    assert (code, "at least 1 epoch" in out) == (2, True), out
