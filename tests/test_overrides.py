"""What is overridden, left out, or given in another way is taken everywhere alike, or refused with the remedy."""

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import linreg
from linreg import LinearRegression, RegressionData, SyntheticData, Table
from linreg.system.errors import InputError, RunError
from tests.conftest import Train, read_metrics
from tests.tools import CKPT, scalars

QUICK = ["--data.num_rows", 200, "--max_epochs", 3, "--data.batch_size", 32]
FOLDER = Path("runs/default/version_0")
MODELS = {
    "clamped": """
class Net(LinearRegression):
    def forward(self, x):
        return super().forward(x).clamp(min=0.0)
""",
    "adam": """
class Net(LinearRegression):
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.125)
""",
    "adamw": """
class Net(LinearRegression):
    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.05, weight_decay=1.0)
""",
}


@pytest.fixture
def net(workplace: Path, request: pytest.FixtureRequest) -> list[str]:
    """The flags for a model of the user's own, in a file beside the command."""
    Path("mine.py").write_text("import torch\nfrom linreg import LinearRegression\n" + MODELS[request.param])
    return ["--model", "mine.Net"]


def contents(*names: str) -> list[bytes]:
    return [(FOLDER / name).read_bytes() for name in names]


@pytest.mark.parametrize("changed", [["--model.lr", 0.5], ["--model.weight_decay", 0.1], ["--data.noise_std", 0.1]])
def test_a_finished_run_is_not_reported_with_other_settings(changed: list, train: Train) -> None:
    assert train(*QUICK, "--model.lr", 0.05, "--model.weight_decay", 0.2)[0] == 0
    before = contents("config.yaml", "metrics.json", "coefficients.csv")
    code, out = train("--ckpt_path", f"{CKPT}/last.ckpt", *changed)
    if changed[0] == "--data.noise_std":  # the same as before
        assert code == 0, out
        return
    assert code == 2, out
    assert "nothing is left to train" in out
    assert "--max_epochs" in out
    assert contents("config.yaml", "metrics.json", "coefficients.csv") == before


def test_fewer_steps_than_were_done_are_refused(train: Train) -> None:
    assert train(*QUICK, "--model.lr", 0.05)[0] == 0
    before = contents("config.yaml", "metrics.json")
    code, out = train("--ckpt_path", f"{CKPT}/last.ckpt", "--max_steps", 4)
    assert code == 2, out
    assert "--max_steps" in out
    assert contents("config.yaml", "metrics.json") == before


@pytest.mark.parametrize("net", ["clamped"], indirect=True)
def test_an_own_forward_is_what_is_validated_and_reported(net: list[str], train: Train) -> None:
    code, out = train(*net, *QUICK, "--model.lr", 0.05)
    assert code == 0, out
    curves, metrics = scalars(FOLDER), read_metrics(FOLDER)
    validated = dict(curves["mse/val"])
    assert metrics["val"]["mse"] == pytest.approx(validated[max(validated)], rel=1e-6)
    assert metrics["val"]["mse"] > 1.5 * metrics["exact"]["val"]["mse"]  # half of the targets lie below 0
    assert "the optimum" not in out


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_settings_inside_of_an_optimizer_are_those_beside_it(decay: float, train: Train) -> None:
    inside = f"{{class_path: torch.optim.SGD, init_args: {{lr: 0.05, momentum: 0.5, weight_decay: {decay}}}}}"
    beside = ["--model.lr", 0.05, "--model.momentum", 0.5, "--model.weight_decay", decay]
    assert train(*QUICK, "--model.optimizer", inside, "--name", "inside")[0] == 0
    assert train(*QUICK, *beside, "--name", "beside")[0] == 0
    one, two = (read_metrics(f"runs/{name}/version_0") for name in ("inside", "beside"))
    assert one == two


def test_a_setting_inside_and_another_beside_are_refused(train: Train) -> None:
    inside = "{class_path: torch.optim.SGD, init_args: {lr: 0.05}}"
    code, out = train(*QUICK, "--model.optimizer", inside, "--model.lr", 0.1)
    assert code == 2
    assert "lr" in out
    assert "0.05" in out


def test_decay_that_is_a_default_of_the_optimizer_has_no_known_optimum(train: Train) -> None:
    assert "the optimum" not in train(*QUICK, "--model.optimizer", "AdamW", "--model.lr", 0.05)[1]


@pytest.mark.parametrize("net", ["adamw"], indirect=True)
def test_decay_of_an_own_optimizer_has_no_known_optimum(net: list[str], train: Train) -> None:
    assert "the optimum" not in train(*net, *QUICK)[1]


@pytest.mark.parametrize("net", ["adam"], indirect=True)
def test_the_screen_names_the_optimizer_at_work(net: list[str], train: Train) -> None:
    out = train(*net, *QUICK)[1]
    assert "Adam, lr 0.125" in out
    assert "SGD" not in out


def test_a_penalty_has_an_optimum_of_its_own(train: Train) -> None:
    code, out = train("--data.num_rows", 200, "--model.weight_decay", 0.3, "--check", 1e-3)
    assert code == 0, out
    verdict = next(line for line in out.splitlines() if "the optimum" in line)
    assert "weight decay" in verdict
    x, y = SyntheticData(num_rows=200).splits["train"]
    z, t = ((side - side.mean(0)) / side.std(0, correction=0) for side in (x, y))
    exact = torch.linalg.solve(z.T @ z / len(z) * 2 + 0.3 * torch.eye(3), 2 * z.T @ t / len(z))
    learned = LinearRegression.load_from_checkpoint(f"{CKPT}/best.ckpt").hypothesis.weight.double()
    np.testing.assert_allclose(learned.detach().numpy(), exact.T.numpy(), rtol=1e-2)


@pytest.mark.parametrize("schedule", ["StepLR", "ReduceLROnPlateau"])
def test_the_rate_of_a_run_is_the_one_it_began_with(schedule: str, train: Train) -> None:
    args = "{step_size: 1}" if schedule == "StepLR" else "{patience: 0, threshold: 0.99}"
    spec = f"{{class_path: torch.optim.lr_scheduler.{schedule}, init_args: {args}}}"
    assert train(*QUICK, "--model.lr", 0.05, "--model.lr_scheduler", spec)[0] == 0
    assert read_metrics(FOLDER)["run"]["lr"] == 0.05
    assert min(value for _, value in scalars(FOLDER)["lr"]) < 0.01


def test_a_plateau_of_the_training_loss(train: Train) -> None:
    spec = "{class_path: torch.optim.lr_scheduler.ReduceLROnPlateau, monitor: loss/train, "
    spec += "init_args: {patience: 0, threshold: 0.99}}"
    typed = [*QUICK, "--model.lr", 0.05, "--model.lr_scheduler", spec]
    code, out = train(*typed)
    assert code == 0, out
    assert train(*typed, "--max_epochs", 1, "--name", "two")[0] == 0
    assert train("--ckpt_path", "runs/two/version_0/checkpoints/last.ckpt", "--max_epochs", 3)[0] == 0
    assert read_metrics(FOLDER)["train"] == read_metrics("runs/two/version_0")["train"]


def test_a_load_that_returns_no_table_is_told_so() -> None:
    class Arrays(RegressionData):
        def load(self) -> Table:
            return np.zeros((5, 2)), np.zeros(5)  # type: ignore[return-value]

    with pytest.raises(InputError, match=r"Arrays.load.* a Table is expected, not tuple.*Table\(x, y\)"):
        _ = Arrays().table


OPTIONS = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "limit_val_batches": 0}
OPTIONS |= {"enable_model_summary": False, "accelerator": "cpu", "log_every_n_steps": 1, "max_epochs": 1}


class Dicts(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        return {"x": torch.zeros(3), "y": torch.zeros(1)}


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but")
@pytest.mark.filterwarnings("ignore:The .train_dataloader. does not have many workers")
@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (DataLoader(TensorDataset(torch.randn(8, 3), torch.randn(8))), r"\(1,\).*y.*unsqueeze"),
        (DataLoader(TensorDataset(torch.randn(8, 2), torch.randn(8, 1))), "num_features=3.* 2 "),
        (DataLoader(Dicts()), r"a tuple \(x, y\).*dict"),
        (DataLoader(TensorDataset(torch.randn(8, 3), torch.randn(8, 1)), 9, drop_last=True), "no batch"),
    ],
)
def test_a_loader_of_other_batches_is_told_so(loader: DataLoader, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pl.Trainer(**OPTIONS).fit(LinearRegression(3), loader)


def test_another_number_of_columns_is_told_so() -> None:
    with pytest.raises(InputError, match=r"num_features=5.* 3 "):
        pl.Trainer(**OPTIONS).fit(LinearRegression(5), SyntheticData(num_rows=50))


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but")
@pytest.mark.filterwarnings("ignore:The .train_dataloader. does not have many workers")
def test_a_model_of_loaders_is_measured_on_a_table() -> None:
    x, y = SyntheticData(num_rows=200).splits["train"]
    model, trainer = LinearRegression(3), pl.Trainer(**OPTIONS | {"max_epochs": 30})
    trainer.fit(model, DataLoader(TensorDataset(x, y), 32))
    assert trainer.test(model, SyntheticData(num_rows=200), verbose=False)[0]["r2/test"] > 0.99


def test_a_chunk_of_steps_that_need_a_closure_is_refused(train: Train) -> None:
    code, out = train(*QUICK, "--model.optimizer", "LBFGS", "--model.lr", 0.1, "--chunk", 4)
    assert code == 2
    assert "LBFGS" in out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--default_root_dir", "elsewhere"], ["default_root_dir", "runs/"]),
        (["--name", "n" * 300], ["--name", "letters"]),
    ],
)
def test_a_flag_that_could_only_be_ignored_is_refused(flags: list, words: list[str], train: Train) -> None:
    code, out = train(*QUICK, *flags)
    assert code == 2, out
    assert all(word in out for word in words), out


@pytest.mark.parametrize("section", ["trainer: 5", "trainer: text", "data: 5", "model: [1]"])
def test_a_section_of_another_kind_is_refused(section: str, train: Train) -> None:
    Path("odd.yaml").write_text(section)
    code, out = train(*QUICK, "--config", "odd.yaml")
    assert code == 2, out


def test_metrics_are_of_the_run_that_they_name(train: Train) -> None:
    assert train(*QUICK, "--model.lr", 0.05)[0] == 0
    before = json.loads((FOLDER / "metrics.json").read_text())
    assert train("--ckpt_path", f"{CKPT}/last.ckpt")[0] == 0  # finished, and nothing is changed
    after = json.loads((FOLDER / "metrics.json").read_text())
    for metrics in (before, after):
        metrics["run"].pop("seconds")
    assert after == before


class Halved(LinearRegression):
    """Halves its inputs: at a new place, in the batch, or in the batch from the second epoch on."""

    how = "new"

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y = self.standardize(batch)
        is_inside = self.how == "inside" or (self.how == "late" and self.current_epoch > 0)
        return self.loss(self.hypothesis(x.mul_(0.5) if is_inside else x * 0.5), y)


@pytest.mark.parametrize("batch_size", [None, 100])
def test_a_step_may_change_its_batch_in_place(batch_size: int | None, workplace: Path) -> None:
    """All rows in one batch are the table itself, which another epoch has to find as it was."""
    flags = {"max_epochs": 5, "figures": False}
    weights = []
    for how in ("new", "inside"):
        torch.manual_seed(0)
        model = Halved(3, lr=0.1)
        model.how = how
        linreg.run(model, SyntheticData(200, batch_size=batch_size), **flags)
        weights.append(model.hypothesis.weight.detach())
    assert torch.equal(*weights)
    if batch_size is None:
        model.how = "late"
        with pytest.raises(InputError, match="changes its batch in place"):
            linreg.run(model, SyntheticData(200), **flags)


@pytest.mark.parametrize("how", [{}, {"chunk": 4}, {"formula": True}])
def test_what_is_frozen_stays_and_what_is_not_moves(how: dict[str, Any], workplace: Path) -> None:
    model = LinearRegression(3, lr=0.1, momentum=0.5)
    model.hypothesis.bias.data.fill_(0.5)
    model.hypothesis.bias.requires_grad_(False)
    linreg.run(model, SyntheticData(200, batch_size=50), max_epochs=5, figures=False, **how)
    assert float(model.hypothesis.bias) == 0.5
    assert model.hypothesis.weight.abs().sum() > 1
    other = Turned(3)
    linreg.run(other, SyntheticData(200, batch_size=50), max_epochs=5, figures=False, **how)
    assert other.coef.flatten().tolist() == pytest.approx([2.54, -1.29, -3.18], abs=0.1)


class Turned(LinearRegression):
    """Its optimizer has the bias before the weight."""

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([self.hypothesis.bias, self.hypothesis.weight], lr=0.3)


class Line(RegressionData):
    """A line through rows about some value; one target may be far from all others."""

    def __init__(self, about: float = 0.0, outlier: float = 0.0, num_rows: int = 200, **settings: Any) -> None:
        super().__init__(**settings)
        self.about, self.outlier, self.num_rows = about, outlier, num_rows

    def load(self) -> Table:
        x = torch.randn(self.num_rows, 1, generator=torch.Generator().manual_seed(0)) + self.about
        y = 3 * x + 1
        y[7] += self.outlier
        return Table(x, y)


def test_a_trained_model_in_the_units_of_other_rows_is_told_so(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = linreg.run(LinearRegression(1), Line(), max_epochs=2, figures=False)
    for about, is_told in ((0.0, False), (10.0, True)):
        capsys.readouterr()
        model = LinearRegression.load_from_checkpoint(found.folder / "checkpoints/best.ckpt").train()
        linreg.run(model, Line(about), max_epochs=1, figures=False)
        said = " ".join(capsys.readouterr().out.split())
        assert ("its weights were learned in the units of other rows" in said) == is_told, about


def test_a_batch_size_that_was_planned_for_one_model_is_not_that_of_the_next(workplace: Path) -> None:
    data = SyntheticData(4_000)
    linreg.run(LinearRegression(3), data, max_epochs=1, figures=False)
    assert data.planned_batch_size != 1_024
    found = linreg.run(LinearRegression(3, lr=0.1, optimizer="Adam"), data, max_epochs=1, figures=False)
    assert found.metrics["run"]["batch_size"] == 1_024


def test_an_outlier_is_no_divergence(workplace: Path) -> None:
    """A row of 12,000 can be 110 spreads off, and its squared error 12,000 times that of all."""
    data = Line(outlier=1e6, num_rows=12_000, batch_size=1, val_fraction=0.0, test_fraction=0.0)
    found = linreg.run(LinearRegression(1, lr=1e-6), data, max_epochs=1, chunk=100, figures=False)
    assert found.metrics["run"]["steps"] == 12_000
    with pytest.raises(RunError, match="diverged"):
        linreg.run(LinearRegression(1, lr=10.0), data, max_epochs=1, chunk=100, figures=False)
