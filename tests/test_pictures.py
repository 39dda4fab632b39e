"""What is drawn: numbers behind the pictures against numpy, what stands on them, when they are made and how large."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from linreg import read_csv
from linreg.regression.exact.least_squares import LeastSquares
from linreg.regression.pictures.fitted import leverage
from linreg.report import figures
from linreg.report.findings import logged
from tests.conftest import Train, read_metrics
from tests.tools import events


def test_leverage_is_the_diagonal_of_the_hat_matrix() -> None:
    table = read_csv(Path(__file__).parents[1] / "configs/penguins.csv", "body_mass_g")
    x = np.c_[np.ones(len(table.x)), table.x.numpy()]
    q, _ = np.linalg.qr((x - np.r_[0, x[:, 1:].mean(0)]) / np.r_[1, x[:, 1:].std(0)])
    found = leverage(LeastSquares(table.x.shape[1]).update(table.x, table.y), table.x)
    np.testing.assert_allclose(found, np.square(q).sum(1), rtol=1e-10)
    assert float(found.sum()) == pytest.approx(5)


def test_the_band_around_a_ridge_line_is_that_of_the_ridge() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, size=(30, 1))
    z = np.c_[np.ones(30), (x - x.mean()) / x.std()]
    to_y = z @ np.linalg.inv(z.T @ z + np.diag([0, 30 * 5])) @ z.T  # mean((y - b - z w)^2) + 10 / 2 w^2
    rows = torch.from_numpy(x), torch.from_numpy(rng.normal(size=(30, 1)))
    found = leverage(LeastSquares(1).update(*rows), rows[0], weight_decay=10.0)
    np.testing.assert_allclose(found, np.diag(to_y @ to_y.T), rtol=1e-10)


def test_predicted_vs_actual_is_square_and_says_how_good() -> None:
    y = np.arange(100.0)
    y_hat = y + np.tile([1, -1], 50)
    figure = figures.predicted_vs_actual(y_hat, y, "price in $", "100 of 19,440 test rows")
    (axes,) = figure.axes
    assert axes.get_title() == f"R2 {1 - 100 / np.square(y - y.mean()).sum():.4f}, 100 of 19,440 test rows"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("actual price in $", "predicted price in $")
    image = figures.to_image(figure)
    assert image.shape == (450, 450, 3)
    assert image[0, 0].tolist() == [255, 255, 255]  # on white, whatever the theme around it
    assert axes.get_aspect() == 1


def test_every_axis_has_a_name() -> None:
    some = np.linspace(0.1, 1, 30)
    line = figures.fitted_line(some, some, some, some, some / 10, ("feature", "target", "30 of 30 train rows"))
    residuals = figures.residual_plots(some, some, some, some / 2, 2, "30 of 30 train rows")
    for figure in (line, residuals):
        for axes in figure.axes:
            assert axes.get_xlabel()
            assert axes.get_ylabel()
            assert len(axes.get_lines()) > 0
    bars = figures.coefficient_bars(["a", "b"], np.array([1.0, 2]), np.array([0.1, 0.2]), np.array([1.0, 2.1]), "")
    assert [tick.get_text() for tick in bars.axes[0].get_yticklabels()] == ["a", "b"]
    assert bars.axes[1].get_lines()[-1].get_xdata() == pytest.approx([0, 1])  # in standard errors


def test_a_confusion_matrix_is_drawn_of_whatever_is_square() -> None:
    values = {
        "confusion/test": [[8, 2], [1, 9]],
        "histogram/test": [1, 2, 3],
        "wide/test": [[1, 2, 3]],
        "loss/test": 1.0,
    }
    pictures = [*logged(values).pictures()]
    assert [(picture.tag, picture.step) for picture in pictures] == [("confusion/test", None)]
    (named,) = logged(values, ["cat", "dog"]).pictures()
    assert not np.array_equal(named.image, pictures[0].image)  # the names of the classes stand there
    said = logged(values, ["cat", "dog"]).text.split("confusion/test")[1].splitlines()
    assert [line.split() for line in said[1:4]] == [["cat", "dog"], ["cat", "8", "2"], ["dog", "1", "9"]]
    assert "0  8  2" in logged(values, ["cat", "dog", "cow"]).text  # of other classes
    figure = figures.confusion_matrix(np.array([[8, 2], [1, 9]]), ["cat", "dog"], "20 rows")
    assert [text.get_text() for text in figure.axes[0].texts] == ["8", "2", "1", "9"]


def test_pictures_of_several_targets_and_none_at_all(train: Train, workplace: Path) -> None:
    typed = ["--data.path", "configs/penguins.csv", "--data.target", "[body_mass_g, year]", "--max_epochs", 2]
    assert train(*typed)[0] == 0
    tags = set(events("runs/default/version_0").Tags()["images"])
    for target in ("body_mass_g", "year"):
        assert {f"predicted_vs_actual/test/{target}", f"residuals/test/{target}", f"coefficients/{target}"} <= tags
    assert train(*typed, "--figures", "false")[0] == 0
    assert events("runs/default/version_1").Tags()["images"] == []


@pytest.mark.slow
def test_a_bigger_model_is_drawn_beside_the_linear_fit(train: Train, workplace: Path) -> None:
    Path("mlp.py").write_text(
        "from torch import nn\nfrom linreg import Regressor\nclass MLP(Regressor):\n"
        "    def __init__(self, num_features: int, num_targets: int = 1, **training):\n"
        "        layers = nn.Linear(num_features, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, num_targets)\n"
        "        super().__init__(nn.Sequential(*layers), num_features, num_targets, **training)\n"
    )
    typed = ["--model", "mlp.MLP", "--model.lr", 0.05, "--data.num_features", 1, "--data.batch_size", 100]
    code, out = train(*typed, "--max_epochs", 5)
    assert code == 0, out
    found = events("runs/default/version_0")
    assert set(found.Tags()["images"]) == {"predicted_vs_actual/test", "regression_line/test", "residuals/test"}
    assert [image.step for image in found.Images("regression_line/test")] == [7, 31, 40]
    last = torch.load("runs/default/version_0/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(value.isfinite().all() for value in last.values())


def test_what_has_nothing_to_lose_is_drawn_too(train: Train, workplace: Path) -> None:
    """No picture ends a run: of a target of one value, descent has no way to go."""
    code, out = train("--config", "configs/broken/flat.yaml", "--max_epochs", 2)
    assert code == 0, out
    assert {"theory", "curves"} <= set(events("runs/flat/version_0").Tags()["images"])
    metrics = read_metrics("runs/flat/version_0")
    assert {metrics[split]["r2"] for split in ("train", "val", "test")} == {None}  # 0 of 0
    assert "\nr2 " in out
    figure = figures.predicted_vs_actual(np.full(30, 0.1), np.full(30, 0.1), "y", "30 test rows")
    assert figure.axes[0].get_title() == "30 test rows"


def test_curves_of_which_no_scale_can_hold_a_point_leave_their_axes() -> None:
    figure, ((left, right),) = figures.panels(1, 2)
    steps = np.arange(1, 4)
    for axes, curves in ((left, {}), (right, {"excess": (steps, np.zeros(3), "-")})):
        figures.log_curves(axes, curves, ("step", "excess"), log_x=True)
    assert figures.to_image(figure).any()


def test_a_run_that_missed_says_what_next(train: Train, workplace: Path) -> None:
    code, out = train("--data.batch_size", 800, "--model.lr", 0.005, "--max_epochs", 10, "--figures", "false")
    assert code == 0, out
    said = " ".join(out.split())
    assert " times the optimum" in said
    assert "10 of about " in said
    assert "raise --max_epochs, or leave out --model.lr" in said
    code, out = train("--config", "configs/stochastic.yaml", "--data.num_features", 3, "--max_epochs", 4)
    assert "batches of 1 at lr 0.02 rattle by about " in " ".join(out.split())
    code, out = train("--check", 0.01, "--figures", "false")
    assert (code, "check   passed: excess_mse " in out) == (0, True), out
    assert "standard errors from its exact value" in " ".join(out.split())


def test_a_row_that_draws_the_fit_onto_itself_has_no_standardized_residual(train: Train, workplace: Path) -> None:
    rng = np.random.default_rng(0)
    x = np.r_[rng.normal(size=50), 1e6]
    table = "x,y\n" + "".join(f"{a},{b}\n" for a, b in zip(x, rng.normal(size=51), strict=True))
    Path("table.csv").write_text(table)
    drawn = []
    with pytest.MonkeyPatch.context() as patch:
        plain = figures.residual_plots
        patch.setattr(figures, "residual_plots", lambda *args: drawn.append((args, plain(*args))) or drawn[-1][1])
        typed = ["--data.path", "table.csv", "--data.target", "y", "--max_epochs", 3]
        code, out = train(*typed, "--data.val_fraction", 0, "--data.test_fraction", 0)
    assert code == 0, out
    (((_, _, scaled, own, _, _), figure),) = drawn
    assert np.isnan(scaled).tolist() == (own > 0.999).tolist()
    assert np.isnan(scaled).sum() == 1
    assert np.nanmax(np.abs(scaled)) < np.sqrt(51 - 2)
    assert figure.axes[1].get_title() == "Q-Q, without 1 row of leverage 1"
    assert len(figure.axes[1].get_lines()[-1].get_xdata()) == 50


def points_under_legend(axes: Any) -> int:
    box = axes.get_legend().get_window_extent()
    points = [axes.transData.transform(np.c_[line.get_data()].astype(float)) for line in axes.get_lines()]
    return sum(int(box.contains(*point)) for point in np.concatenate(points))


def test_no_legend_hides_what_is_drawn() -> None:
    epoch = np.arange(1.0, 101)
    figure, ((axes,),) = figures.panels(1, 1)
    figures.log_curves(axes, {"rising": (epoch, epoch**2, "-")}, ("epoch", "loss"))
    figures.to_image(figure)
    assert points_under_legend(axes) == 0
    some = np.linspace(0, 1, 100)
    residuals = figures.residual_plots(some, some, some * 3, some / 2, 2, "rows")
    figures.to_image(residuals)
    last = residuals.axes[3]
    assert last.get_legend().get_window_extent().y0 >= last.get_window_extent().y1 - 1  # above the axes


def test_bars_are_whole_and_their_rows_aligned() -> None:
    size = np.array([-1.0, 0.5, 2])
    figure = figures.coefficient_bars(["a", "b", "c"], size, np.full(3, 0.25), size, "")
    left, right = figure.axes
    assert left.get_xlim()[0] < -1.25
    assert left.get_xlim()[1] > 2.25
    assert left.get_ylim() == right.get_ylim()


@pytest.mark.parametrize("ends", [(2.3, 6.6), (1.1, 1.9), (2, 50), (0.02, 300), (1e-9, 3e-9), (72.6153, 72.6153001)])
def test_every_log_axis_has_numbers(ends: tuple[float, float]) -> None:
    figure, ((axes,),) = figures.panels(1, 1)
    steps = np.arange(1, 21)
    figures.log_curves(axes, {"excess": (steps, np.geomspace(*ends, 20), "-")}, ("epoch", "excess_mse"))
    figures.to_image(figure)
    low, high = axes.get_ylim()
    shown = [label.get_text() for label in axes.get_yticklabels() if low <= label.get_position()[1] <= high]
    assert 2 <= len(set(shown)) <= 8, shown


@pytest.mark.parametrize("names", [["Heizung=Wärmepumpe", "x"], ["A" * 60 + "=GAS", "A" * 60 + "=OEL"], ["x1"]])
def test_no_name_of_a_coefficient_is_cut(names: list[str]) -> None:
    one = np.ones(len(names))
    figure = figures.coefficient_bars(names, one, 0.1 * one, one, "")
    image = figures.to_image(figure)
    assert (image[:, :3] == 255).all()  # nothing runs over the left edge
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len({*shown}) == len(names)
    assert all(
        text == name or ("…" in text and text[-4:] == name[-4:]) for text, name in zip(shown, names, strict=True)
    )
