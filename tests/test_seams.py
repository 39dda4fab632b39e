"""What a user may override, add or leave out is either taken at its word or refused, and never silently wrong."""

import json
import re
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from linreg import LinearRegression, SyntheticData, run
from linreg.safety.checkpoint_file import load_model
from tests.conftest import Train, read_metrics, read_rows
from tests.tools import assert_same, events, load

QUICK = ["--data.num_rows", 200, "--max_epochs", 3, "--data.batch_size", 32]
MODELS = {
    "dropout": """
class Net(Regressor):
    def __init__(self, num_features: int, num_targets: int = 1, **training):
        layers = nn.Linear(num_features, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, num_targets)
        super().__init__(nn.Sequential(*layers), num_features, num_targets, **training)
""",
    "still": """
class Net(Regressor):
    def __init__(self, num_features: int, num_targets: int = 1, **training):
        layers = nn.BatchNorm1d(num_features), nn.Dropout(0.5), nn.BatchNorm1d(num_features).eval()
        net = nn.Sequential(*layers, nn.Linear(num_features, num_targets))
        super().__init__(net, num_features, num_targets, **training)
""",
    "defaults": """
class Net(Regressor):
    def __init__(self, num_features: int, num_targets: int = 1, optimizer: str = "AdamW", weight_decay: float = 0.01,
                 lr: float = 0.003):
        net = nn.Linear(num_features, num_targets)
        super().__init__(net, num_features, num_targets, optimizer=optimizer, weight_decay=weight_decay, lr=lr)

class Rows(SyntheticData):
    def __init__(self, num_rows: int = 77, noise_std: float = 2.0):
        super().__init__(num_rows=num_rows, noise_std=noise_std)
""",
    "huber": """
class Net(LinearRegression):
    def loss(self, y_hat, y):
        return nn.functional.huber_loss(y_hat, y, delta=0.1)
""",
    "own_step": """
class Net(Regressor):
    def __init__(self, num_features: int, num_targets: int = 1, **training):
        super().__init__(nn.Linear(num_features, num_targets), num_features, num_targets, **training)
    def training_step(self, batch, batch_idx):
        x, y = self.standardize(batch)
        self.log("mine", 7.0)
        return {"loss": self.loss(self.hypothesis(x), y) + 0.1}
""",
    "manual": """
class Net(Regressor):
    def __init__(self, num_features: int, num_targets: int = 1, **training):
        super().__init__(nn.Linear(num_features, num_targets), num_features, num_targets, **training)
        self.automatic_optimization = False
    def training_step(self, batch, batch_idx):
        x, y = self.standardize(batch)
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.loss(self.hypothesis(x), y))
        optimizer.step()
""",
    "mape": """
class Net(LinearRegression):
    def __init__(self, num_features: int, num_targets: int = 1, **training):
        super().__init__(num_features, num_targets, **training)
        self.metrics.add_metrics({"mape": MeanAbsolutePercentageError()})
""",
    "rate": """
class Net(LinearRegression):
    def __init__(self, num_features: int, num_targets: int = 1, my_rate: float = 0.01):
        super().__init__(num_features, num_targets)
        self.my_rate = my_rate
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.my_rate)
""",
}


@pytest.fixture
def net(workplace: Path, request: pytest.FixtureRequest) -> list[str]:
    """The flags for a model of the user's own, in a file beside the command."""
    head = "import torch\nfrom torch import nn\nfrom torchmetrics import MeanAbsolutePercentageError\n"
    Path("mine.py").write_text(
        head + "from linreg import LinearRegression, Regressor, SyntheticData\n" + MODELS[request.param]
    )
    return ["--model", "mine.Net"]


@pytest.mark.parametrize("net", ["dropout"], indirect=True)
def test_a_report_is_taken_in_evaluation_mode(net: list[str], train: Train) -> None:
    code, out = train(*net, *QUICK, "--model.lr", 0.05)
    assert code == 0, out
    folder = Path("runs/default/version_0")
    before = torch.load(folder / "checkpoints/best.ckpt", weights_only=True)["state_dict"]["hypothesis.1.running_mean"]
    out = train("test", "--ckpt_path", folder / "checkpoints/best.ckpt")[1]
    tested = dict(re.findall(r"^(\w+)/test +(\S+)$", out, re.M))
    for name, value in read_metrics(folder)["test"].items():
        assert float(tested[name]) == pytest.approx(value, rel=1e-5)
    from mine import Net

    model = Net.load_from_checkpoint(folder / "checkpoints/best.ckpt")
    assert not model.training
    assert torch.equal(model.hypothesis[1].running_mean, before)
    x = torch.randn(20, 3, dtype=torch.float64)
    assert torch.equal(model(x), model(x))


@pytest.mark.filterwarnings("ignore:Found . module.* in eval mode at the start of training")
@pytest.mark.filterwarnings("ignore:The '.*dataloader' does not have many workers")
@pytest.mark.parametrize("kind", ["run", "stock"])
@pytest.mark.parametrize("net", ["still"], indirect=True)
def test_what_was_loaded_trains_in_training_mode(net: list[str], kind: str, train: Train, tmp_path: Path) -> None:
    assert train(*net, *QUICK, "--model.lr", 0.05)[0] == 0
    from mine import Net

    model = Net.load_from_checkpoint("runs/default/version_0/checkpoints/best.ckpt")
    first, dropout, still, _ = model.hypothesis
    before, seen, data = first.running_mean.clone(), [], SyntheticData(num_rows=200, batch_size=32)
    dropout.register_forward_hook(lambda *_: seen.append(dropout.training) if torch.is_grad_enabled() else None)
    if kind == "run":
        run(model, data, max_epochs=1)
    else:
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        pl.Trainer(max_epochs=1, accelerator="cpu", **quiet).fit(model, data)
    assert {*seen} == {True}
    assert not torch.equal(first.running_mean, before)
    assert not still.training


@pytest.mark.parametrize("net", ["defaults"], indirect=True)
def test_the_defaults_of_a_class_are_its_own(net: list[str], train: Train) -> None:
    assert (found := train(*net, "--max_epochs", 1, "--data", "mine.Rows"))[0] == 0, found[1]
    content = torch.load("runs/default/version_0/checkpoints/last.ckpt", weights_only=True)
    groups = content["optimizer_states"][0]["param_groups"]
    assert (groups[0]["lr"], groups[0]["weight_decay"], "momentum" in groups[0]) == (0.003, 0.01, False)
    assert read_metrics("runs/default/version_0")["rows"]["read"] == 77
    Path("c.yaml").write_text(
        "model: {class_path: mine.Net}\ndata: {class_path: mine.Rows}\ntrainer: {max_epochs: 1}\n"
    )
    assert (found := train("--config", "c.yaml"))[0] == 0, found[1]
    again = torch.load("runs/c/version_0/checkpoints/last.ckpt", weights_only=True)
    assert again["optimizer_states"][0]["param_groups"][0]["lr"] == 0.003


@pytest.mark.parametrize("net", ["huber"], indirect=True)
def test_another_loss_has_no_optimum_of_the_mean_squared_error(net: list[str], train: Train) -> None:
    code, out = train(*net, *QUICK)
    assert code == 2
    assert "--model.lr" in out
    code, out = train(*net, *QUICK, "--model.lr", 0.3, "--chunk", 16, "--formula", "true")
    assert code == 2
    assert "--formula" in out
    assert not list(Path("runs").glob("*/*"))
    code, plain = train(*net, *QUICK, "--model.lr", 0.3, "--name", "plain")
    assert code == 0
    assert "the optimum" not in plain
    assert (found := train(*net, *QUICK, "--model.lr", 0.3, "--chunk", 4, "--name", "chunk"))[0] == 0, found[1]
    weights = [
        torch.load(f"runs/{n}/version_0/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for n in ("plain", "chunk")
    ]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert (found := train(*QUICK, "--model.lr", 0.3, "--name", "mse"))[0] == 0, found[1]
    mse = torch.load("runs/mse/version_0/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert not torch.equal(mse["hypothesis.weight"], weights[0]["hypothesis.weight"])


@pytest.mark.parametrize("net", ["own_step", "manual"], indirect=True)
def test_a_training_step_may_be_another(net: list[str], train: Train, request: pytest.FixtureRequest) -> None:
    code, out = train(*net, *QUICK, "--model.lr", 0.05, "--enable_checkpointing", "false", "--log_every_n_steps", 1)
    assert code == 0, out
    if request.node.callspec.params["net"] == "own_step":
        scalars = events(Path("runs/default/version_0"))
        assert len(scalars.Scalars("mine")) == 15  # 5 steps an epoch
        assert len(scalars.Scalars("loss/train")) == 3


@pytest.mark.parametrize("net", ["mape"], indirect=True)
def test_a_metric_that_is_added_is_everywhere_and_right(net: list[str], train: Train) -> None:
    code, out = train(*net, *QUICK, "--model.lr", 0.1)
    assert code == 0, out
    metrics = read_metrics("runs/default/version_0")
    model = load_model(f"runs/default/version_0/checkpoints/{metrics['run']['checkpoint']}")
    x, y = SyntheticData(num_rows=200, batch_size=32).splits["test"]
    truth = float(((model(x).detach() - y).abs() / y.abs()).mean())
    assert metrics["test"]["mape"] == pytest.approx(truth, rel=1e-6)
    assert "\nmape " in out
    x, y = SyntheticData(num_rows=200, batch_size=32).splits["val"]
    truth = float(((model(x).detach() - y).abs() / y.abs()).mean())
    assert truth in [
        pytest.approx(e.value, rel=1e-5) for e in events(Path("runs/default/version_0")).Scalars("mape/val")
    ]
    assert "mape" in metrics["exact"]["test"]


@pytest.mark.parametrize("net", ["rate"], indirect=True)
def test_a_typed_setting_of_an_own_optimizer_beats_the_checkpoint(net: list[str], train: Train) -> None:
    assert (found := train(*net, *QUICK))[0] == 0, found[1]
    last = "runs/default/version_0/checkpoints/last.ckpt"
    code, out = train("--ckpt_path", last, "--max_epochs", 4, "--model.my_rate", 0.5)
    assert code == 0, out
    assert "my_rate: 0.01 -> 0.5" in out
    assert torch.load(last, weights_only=True)["optimizer_states"][0]["param_groups"][0]["lr"] == 0.5


def test_a_checkpoint_of_ones_own_from_inside_an_epoch_is_not_resumed(train: Train) -> None:
    own = "{class_path: ModelCheckpoint, init_args: {every_n_train_steps: 20, save_top_k: -1, filename: own}}"
    typed = ["--data.batch_size", 32, "--max_epochs", 2, "--model.lr", 0.1, "--callbacks+", own]  # 25 steps an epoch
    assert train(*typed)[0] == 0
    code, out = train("--ckpt_path", "runs/default/version_0/checkpoints/own.ckpt", "--max_epochs", 3)
    assert code == 2
    assert "inside an epoch" in out
    assert "--save_every_n_steps" in out


def test_the_report_says_which_weights_it_is_of(train: Train) -> None:
    out = train("--config", "configs/batch.yaml")[1]
    ((kind, epoch, epochs),) = re.findall(r"report  of (\w+.ckpt), epoch (\d+) of (\d+), [\d.]+ s", out)
    found = read_metrics("runs/batch/version_0")
    assert (kind, int(epoch), int(epochs)) == (
        found["run"]["checkpoint"],
        found["run"]["epoch"],
        found["run"]["epochs"],
    )
    assert (kind, epochs) == ("last.ckpt", "20")  # no epoch came within 1 % of the optimum
    model = LinearRegression.load_from_checkpoint("runs/batch/version_0/checkpoints/last.ckpt")
    x, y = SyntheticData(num_rows=250, num_features=1, noise_std=1.0).splits["train"]
    assert found["train"]["mse"] == pytest.approx(float((model(x).detach() - y).square().mean()), rel=1e-6)


@pytest.mark.parametrize("net", ["dropout"], indirect=True)
def test_a_bigger_model_is_judged_on_rows_that_it_has_not_seen(net: list[str], train: Train) -> None:
    out = train(*net, *QUICK, "--model.lr", 0.05)[1]
    metrics = read_metrics("runs/default/version_0")
    verdict = " ".join(out[out.index("\nmse is ") :].split())  # in 80 columns
    for split in ("val", "test"):
        ratio = metrics[split]["mse"] / metrics["exact"][split]["mse"]
        assert f"{ratio:.3g} times that of the exact linear fit on the {split}" in verdict
    assert re.search(r"^metric +train +linear +val +linear +test +linear$", out, re.M)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but")
@pytest.mark.filterwarnings("ignore:The .train_dataloader. does not have many workers")
def test_a_plain_trainer_with_loaders_has_units() -> None:
    x = torch.randn(200, 2, dtype=torch.float64) * torch.tensor([1.0, 1e4]) + torch.tensor([0.0, 2e6])
    y = x @ torch.tensor([[2.0], [-3e-4]], dtype=torch.float64) + 5
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 50, shuffle=True)
    model = LinearRegression(2)
    options = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    pl.Trainer(limit_val_batches=0, max_epochs=150, accelerator="cpu", log_every_n_steps=1, **options).fit(
        model, loader
    )
    np.testing.assert_allclose(model.coef.numpy(), [[2.0, -3e-4]], rtol=0.01)


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but")
@pytest.mark.filterwarnings("ignore:The .train_dataloader. does not have many workers")
def test_a_loader_that_drops_other_rows_each_epoch_is_measured_on_all() -> None:
    x = torch.randn(100, 2, dtype=torch.float64)
    rows = torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True) + torch.randn(100, 1))
    model = LinearRegression(2, lr=0.1)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(max_epochs=1, limit_val_batches=0, enable_model_summary=False, accelerator="cpu", **options)
    trainer.fit(model, torch.utils.data.DataLoader(rows, 64, shuffle=True, drop_last=True))
    assert (trainer.global_step, model.exact.num_rows) == (1, 100)
    np.testing.assert_allclose(model.x_standardizer.mean, x.mean(0), atol=1e-12)


def test_a_run_in_python_is_that_of_the_command(train: Train) -> None:
    assert (found := train("--max_epochs", 5, "--data.num_rows", 300))[0] == 0, found[1]
    found = run(LinearRegression(3), SyntheticData(num_rows=300), name="python", max_epochs=5)
    assert found.folder == Path("runs/python/version_0")
    one, two = read_metrics("runs/default/version_0"), read_metrics(found.folder)
    assert one == two == json.loads(json.dumps({**found.metrics, "run": two["run"]}))
    assert [row["name"] for row in found.coefficients] == ["x1", "x2", "x3", "(intercept)"]


def test_a_column_that_is_a_combination_of_others_but_for_rounding_has_no_coefficient(train: Train) -> None:
    rng = np.random.default_rng(0)
    lines = ["year,month,date,size,y"]
    for year in range(2000, 2015):
        for month in range(1, 13):
            size = rng.normal()
            y = 3 * size + 0.2 * (year - 2000) + rng.normal()
            lines.append(f"{year},{month},{year + (month - 1) / 12:.11f},{size:.6f},{y:.6f}")
    Path("t.csv").write_text("\n".join(lines))
    code, out = train("--data.path", "t.csv", "--data.target", "y", "--max_epochs", 5)
    assert code == 0, out
    assert "without coefficients of their own: year, month, date" in " ".join(out.split())
    rows = {row["name"]: row for row in read_rows("runs/default/version_0/coefficients.csv")}
    assert [rows[name]["exact"] for name in ("year", "month", "date")] == ["", "", ""]
    assert float(rows["size"]["exact"]) == pytest.approx(3, abs=0.3)


@pytest.mark.parametrize("net", ["dropout"], indirect=True)
@pytest.mark.parametrize("optimizer", ["Adam", "LBFGS", "Adafactor", "RMSprop"])
def test_two_and_two_epochs_are_four_whatever_is_drawn(net: list[str], optimizer: str, train: Train) -> None:
    typed = [*net, "--data.num_rows", 200, "--data.batch_size", 32, "--model.lr", 0.01, "--model.optimizer", optimizer]
    assert train(*typed, "--max_epochs", 4, "--name", "four")[0] == 0
    assert train(*typed, "--max_epochs", 2, "--name", "two")[0] == 0
    last = "runs/two/version_0/checkpoints/last.ckpt"
    assert (found := train("--ckpt_path", last, "--max_epochs", 4))[0] == 0, found[1]
    one, two = (load(f"runs/{name}/version_0/checkpoints/last.ckpt") for name in ("four", "two"))
    assert_same(one["state_dict"], two["state_dict"])
    assert_same(one["optimizer_states"], two["optimizer_states"])


def test_a_schedule_that_is_left_out_on_resume_leaves_the_rate_that_is_said(train: Train) -> None:
    schedule = "{class_path: torch.optim.lr_scheduler.StepLR, init_args: {step_size: 1, gamma: 0.5}}"
    assert train(*QUICK, "--model.lr", 0.05, "--model.lr_scheduler", schedule)[0] == 0
    last = "runs/default/version_0/checkpoints/last.ckpt"
    code, out = train("--ckpt_path", last, "--max_epochs", 4, "--model.lr_scheduler", "null")
    assert code == 0, out
    assert "begins anew" in out
    assert load(last)["optimizer_states"][0]["param_groups"][0]["lr"] == 0.05
    assert read_metrics("runs/default/version_0")["run"]["lr"] == 0.05


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (["lr_schedulers"], []),
        (["lr_schedulers", 0, "step"], "x"),
        (["began", "optimizers", 0, "groups", 0, "lr"], "x"),
        (["hyper_parameters"], 7),
        (["hyper_parameters"], torch.zeros(3)),
        (["optimizer_states"], torch.zeros(3)),
        (["optimizer_states", 0, "state"], {0: 5}),
        (["optimizer_states", 0, "param_groups", 0, "lr"], 2**2000),
    ],
)
def test_a_checkpoint_whose_beginnings_were_changed_is_one_line(place: list, value: object, train: Train) -> None:
    schedule = "{class_path: torch.optim.lr_scheduler.StepLR, init_args: {step_size: 1, gamma: 0.5}}"
    assert train(*QUICK, "--model.lr", 0.05, "--model.optimizer", "Adam", "--model.lr_scheduler", schedule)[0] == 0
    content = inner = load("runs/default/version_0/checkpoints/last.ckpt")
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    torch.save(content, "changed.ckpt")
    code, out = train("--ckpt_path", "changed.ckpt", "--max_epochs", 4)
    assert code == (0 if place[-1] == "step" else 2), out  # which is no setting of a schedule, and is left out
    assert "Traceback" not in out


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_runs_without_a_logger_do_not_share_their_checkpoints(train: Train) -> None:
    assert train(*QUICK, "--logger", "[]")[0] == 0
    before = Path("runs/default/version_0/checkpoints/last.ckpt").read_bytes()
    assert train(*QUICK, "--logger", "[]", "--name", "other")[0] == 0
    assert Path("runs/default/version_0/checkpoints/last.ckpt").read_bytes() == before
    assert train("--ckpt_path", "runs/other/version_0/checkpoints/last.ckpt", "--enable_checkpointing", "false")[0] == 0
    assert Path("runs/other/version_1/metrics.json").exists()


@pytest.mark.parametrize("net", ["dropout"], indirect=True)
def test_the_baseline_of_a_bigger_model_has_no_penalty(net: list[str], train: Train) -> None:
    for name, decay in (("free", 0.0), ("decayed", 0.1)):
        assert train(*net, *QUICK, "--model.lr", 0.05, "--model.weight_decay", decay, "--name", name)[0] == 0
    free, decayed = (read_metrics(f"runs/{name}/version_0")["exact"] for name in ("free", "decayed"))
    assert free == decayed
    adamw = ["--model.optimizer", "AdamW", "--model.weight_decay", 0.1, "--model.lr", 0.01]
    assert "the optimum" not in train(*QUICK, *adamw)[1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but")
@pytest.mark.filterwarnings("ignore:The .train_dataloader. does not have many workers")
def test_a_rate_is_chosen_for_the_batches_of_a_loader() -> None:
    x = torch.randn(300, 3, dtype=torch.float64)
    rows = torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True) + 0.1 * torch.randn(300, 1, dtype=torch.float64))
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "limit_val_batches": 0}
    options |= {"enable_model_summary": False, "accelerator": "cpu", "log_every_n_steps": 1}
    model = LinearRegression(3)
    pl.Trainer(max_epochs=20, **options).fit(model, torch.utils.data.DataLoader(rows, 4, shuffle=True))
    np.testing.assert_allclose(model.coef.numpy(), [[1.0, 1.0, 1.0]], atol=0.1)
