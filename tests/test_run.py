"""A run from the command line: its folder, its numbers, its curves, its pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from linreg import LinearRegression, read_csv
from tests.conftest import Process, Train, read_metrics, read_rows
from tests.tools import assert_same, events, load, ols


@pytest.mark.slow
def test_the_default_run(process: Process, workplace: Path) -> None:
    """What a newcomer sees first, as a process of its own."""
    done = process()
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    folder = workplace / "runs/default/version_0"
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert [name for name in files if ".tfevents." not in name] == [
        "card.md",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "coefficients.csv",
        "config.yaml",
        "metrics.json",
    ]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert list(metrics) == ["train", "val", "test", "exact", "excess_mse", "rows", "run"]
    assert list(metrics["test"]) == list(metrics["exact"]["train"]) == ["mse", "rmse", "mae", "r2"]
    assert metrics["rows"] == {"read": 1000, "dropped": 0, "train": 800, "val": 100, "test": 100}
    mse, exact = metrics["train"]["mse"], metrics["exact"]["train"]["mse"]
    assert metrics["excess_mse"] == pytest.approx((mse - exact) / exact)
    assert 0 < metrics["excess_mse"] < 0.01
    rows = read_rows(folder / "coefficients.csv")
    assert [row["name"] for row in rows] == ["x1", "x2", "x3", "(intercept)"]
    for row in rows:
        assert float(row["learned"]) == pytest.approx(float(row["true"]), rel=0.01)
        assert abs(float(row["exact"]) - float(row["true"])) < 4 * float(row["std_error"])
    assert all(
        word in done.stdout for word in ("learned", "exact", "true", "above the optimum", "tensorboard --logdir")
    )


def test_a_csv_run_against_numpy(train: Train, workplace: Path) -> None:
    code, out = train("--config", "configs/csv.yaml")
    assert code == 0, out
    assert "left out 'species'" in out
    assert "dropped 2 of 344 rows" in out
    folder = workplace / "runs/csv/version_0"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["rows"] == {"read": 344, "dropped": 2, "train": 274, "val": 34, "test": 34}

    table = read_csv("configs/penguins.csv", "body_mass_g")
    order = torch.randperm(342, generator=torch.Generator().manual_seed(0))
    (x, x_val, x_test), (y, y_val, y_test) = (
        [c[part].numpy() for part in order.split([274, 34, 34])] for c in (table.x, table.y)
    )
    exact = ols(x, y)
    rows = read_rows(folder / "coefficients.csv")
    np.testing.assert_allclose([float(row["exact"]) for row in rows], exact[:, 0], rtol=1e-9)
    model = LinearRegression.load_from_checkpoint(folder / "checkpoints/best.ckpt")
    np.testing.assert_allclose([float(row["learned"]) for row in rows[:-1]], model.coef[0], rtol=1e-12)
    for stage, a, b in (("train", x, y), ("val", x_val, y_val), ("test", x_test, y_test)):
        for found, y_hat in (
            (metrics[stage], model(torch.from_numpy(a)).detach().numpy()),
            (metrics["exact"][stage], np.c_[a, np.ones(len(a))] @ exact),
        ):
            error = y_hat - b
            expected = {
                "mse": np.square(error).mean(),
                "rmse": np.sqrt(np.square(error).mean()),
                "mae": np.abs(error).mean(),
                "r2": 1 - np.square(error).sum() / np.square(b - b.mean()).sum(),
            }
            assert found == pytest.approx(expected, rel=1e-6)
    assert metrics["excess_mse"] < 0.01


def test_what_tensorboard_gets(train: Train, workplace: Path) -> None:
    code, out = train("--data.num_features", 1, "--data.batch_size", 100, "--max_epochs", 3, "--name", "curves")
    assert code == 0, out
    found = events(workplace / "runs/curves/version_0")
    tags = {f"{metric}/{stage}" for metric in ("loss", "mse", "rmse", "mae", "r2") for stage in ("val", "test")}
    assert set(found.Tags()["scalars"]) == tags | {
        "loss/train",
        "loss/exact",
        *(f"reported/{name}" for name in ("excess_mse", "epochs", "seconds", "rmse_val", "rmse_test", "r2_test")),
        "excess_mse/train",
        "excess_mse/expected",
        "excess_mse/log10",
        "coef/x1",
        "lr",
    }
    for tag in ("loss/train", "loss/val", "loss/exact", "excess_mse/train", "lr"):
        assert [event.step for event in found.Scalars(tag)] == [7, 15, 23]  # eight steps an epoch
    assert len({event.value for event in found.Scalars("loss/exact")}) == 1
    exact = json.loads(Path("runs/curves/version_0/metrics.json").read_text())["exact"]["train"]
    assert found.Scalars("loss/exact")[0].value == pytest.approx(1 - exact["r2"], rel=1e-5)
    assert found.Scalars("loss/exact")[0].value <= min(event.value for event in found.Scalars("loss/train"))
    beside = events(workplace / "runs/curves/version_0/exact")  # a second curve on the card of each coefficient
    assert beside.Tags()["scalars"] == ["coef/x1"]
    (row, _) = read_rows("runs/curves/version_0/coefficients.csv")
    assert {point.step for point in beside.Scalars("coef/x1")} >= {0, 24}
    for point in beside.Scalars("coef/x1"):
        assert point.value == pytest.approx(float(row["exact"]), rel=1e-6)
    pictures = {
        "predicted_vs_actual/test",
        "regression_line/test",
        "residuals/test",
        "coefficients",
        "curves",
        "theory",
    }
    assert set(found.Tags()["images"]) == pictures
    for tag in ("predicted_vs_actual/test", "regression_line/test"):  # to be scrubbed through
        assert [image.step for image in found.Images(tag)] == [7, 15, 24]
    table = found.PluginTagToContent("hparams")
    assert b"reported/excess_mse" in table["_hparams_/experiment"]
    for word in (b"momentum", b"batch_size", b"SyntheticData", b"LinearRegression", b"reported/seconds"):
        assert word in b"".join(table.values()), word
    metrics = read_metrics("runs/curves/version_0")  # of the checkpoint that is reported, and not of the last epoch
    for name, split, value in ("rmse", "val", "rmse_val"), ("r2", "test", "r2_test"):
        (point,) = found.Scalars(f"reported/{value}")
        assert point.value == pytest.approx(metrics[split][name], rel=1e-6)


def test_a_rate_beside_its_limit_is_told_from_it(train: Train) -> None:
    """The limit is 0.9587."""
    texts = [" ".join(train("--model.lr", lr, "--max_epochs", 1)[1].split()) for lr in (0.9578, 0.95869, 0.9598)]
    for text, share in zip(texts, ("99.9", "99.99"), strict=False):
        assert f"{share} % of the full-batch limit" in text
    assert "diverges: it is 1.001 times the full-batch limit" in texts[2]
    assert "above" not in texts[2]
    assert "is 1.001 times the full-batch limit 0.959: lower it" in texts[2]


def test_a_diverged_run_has_its_record_too(train: Train, workplace: Path) -> None:
    code, out = train("--config", "configs/stochastic.yaml", "--model.lr", 5)
    assert code == 1, out
    assert "lr 5 = " not in out
    assert "5 times the full-batch limit" in " ".join(out.split())
    run = json.loads(Path("runs/stochastic/version_0/metrics.json").read_text())["run"]
    assert run["failed"].startswith("the training diverged")
    kept = {name: run[name] for name in ("checkpoint", "lr", "momentum", "batch_size", "epochs", "steps")}
    assert kept == {"checkpoint": None, "lr": 5, "momentum": 0, "batch_size": 1, "epochs": 0, "steps": 4}
    assert run["seconds"] > 0
    found = events("runs/stochastic/version_0")
    assert found.Scalars("reported/seconds")[0].value == pytest.approx(run["seconds"])
    assert b"batch_size" in found.PluginTagToContent("hparams")["_hparams_/session_start_info"]


@pytest.mark.slow
def test_a_run_that_an_error_ends_has_its_record_and_a_remedy(train: Train, workplace: Path) -> None:
    """A schedule that is over before the run is."""
    cycle = "{class_path: torch.optim.lr_scheduler.OneCycleLR, init_args: {max_lr: 0.1, total_steps: 10}}"
    typed = ("--lr", 0.05, "--batch_size", 200, "--name", "cycle", "--model.lr_scheduler", cycle)
    assert train(*typed, "--max_epochs", 2)[0] == 0
    assert "failed" not in read_metrics("runs/cycle/version_0")["run"]
    code, out = train("--ckpt_path", "last", "--name", "cycle", "--max_epochs", 9)
    assert (code, "leave total_steps out" in out) == (2, True), out
    run = read_metrics("runs/cycle/version_0")["run"]
    assert (run["checkpoint"], run["epochs"]) == (None, 2)
    assert "total steps" in run["failed"]


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 64, 800])
def test_a_config_repeats_its_run_to_the_bit(batch_size: int, train: Train, workplace: Path) -> None:
    assert train("--data.batch_size", batch_size, "--max_epochs", 2)[0] == 0
    assert train("--config", "runs/default/version_0/config.yaml")[0] == 0
    one, two = (load(f"runs/default/version_{i}/checkpoints/last.ckpt") for i in (0, 1))
    assert_same(one["state_dict"], two["state_dict"])
    assert read_metrics("runs/default/version_0") == read_metrics("runs/default/version_1")


def test_print_config_and_back(train: Train, workplace: Path) -> None:
    code, out = train("--config", "configs/csv.yaml", "--max_epochs", 3, "--print_config")
    assert code == 0
    Path("mine.yaml").write_text(out)
    assert yaml.safe_load(out)["data"]["init_args"]["target"] == "body_mass_g"
    code, again = train("--config", "mine.yaml", "--print_config")
    assert again == out


def test_what_is_typed_beats_the_config_wherever_it_stands(train: Train, workplace: Path) -> None:
    for arguments in (
        ["--data.batch_size", 7, "--config", "configs/batch.yaml"],
        ["--config=configs/batch.yaml", "--data.batch_size=7"],
    ):
        config = yaml.safe_load(train(*arguments, "--print_config")[1])
        assert config["data"]["init_args"]["batch_size"] == 7
        assert config["trainer"]["max_epochs"] == 20


@pytest.mark.parametrize("config", ["batch", "mini_batch", "stochastic"])
def test_the_three_regimes_run(config: str, train: Train, workplace: Path) -> None:
    code, out = train("--config", f"configs/{config}.yaml", "--max_epochs", 2)
    assert code == 0, out
    steps = load(f"runs/{config}/version_0/checkpoints/last.ckpt")["global_step"]
    assert steps == 2 * {"batch": 1, "mini_batch": 13, "stochastic": 200}[config]


def test_no_rows_held_out(train: Train, workplace: Path) -> None:
    code, out = train("--data.val_fraction", 0, "--data.test_fraction", 0, "--max_epochs", 5)
    assert code == 0, out
    metrics = json.loads(Path("runs/default/version_0/metrics.json").read_text())
    assert "val" not in metrics
    assert "test" not in metrics
    assert metrics["rows"]["train"] == 1000


MINE = """
from pathlib import Path
from linreg import LinearRegression

class Mine(LinearRegression):
    def __init__(self, num_features: int, num_targets: int = 1, extra: Path | None = None, **training):
        super().__init__(num_features, num_targets, **training)
"""
SCHEDULER = (
    "{class_path: torch.optim.lr_scheduler.OneCycleLR, init_args: {max_lr: 0.1, total_steps: 9}, interval: step}"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--model.optimizer", "Adam", "--model.lr", 0.1, "--model.lr_scheduler", "ReduceLROnPlateau"],
        ["--model.optimizer", "{class_path: torch.optim.AdamW, init_args: {betas: [0.8, 0.9]}}", "--model.lr", 0.1]
        + ["--model.lr_scheduler", SCHEDULER],
        ["--model", "mine.Mine", "--model.extra", "a/path"],
    ],
)
def test_every_checkpoint_is_plain(flags: list[object], train: Train, workplace: Path) -> None:
    Path("mine.py").write_text(MINE)
    code, out = train(*flags, "--max_epochs", 2)
    assert code == 0, out
    paths = list(Path("runs").rglob("*.ckpt"))
    assert len(paths) == 2
    for path in paths:
        assert torch.load(path, weights_only=True)["columns"]["features"] == ["x1", "x2", "x3"]
