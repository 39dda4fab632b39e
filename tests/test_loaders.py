"""Data with several loaders for one stage: what is measured on each has a name of its own, everywhere."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.conftest import Process, Train, read_metrics
from tests.tools import assert_same, load, scalars

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*ambiguous collection"),
]
SEVERAL = '''
import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix
import linreg

def rows(n):
    """The smaller ones have the wrong classes: what a model learns makes it worse there."""
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(n))
    return TensorDataset(x, (x[:, 0] > 0).long() ^ (n < 60))

class Data(pl.LightningDataModule):
    def __init__(self, kind: str = "list", test: str = "list"):
        super().__init__()
        self.kind, self.test = kind, test
    def loaders(self, kind):
        wrong, right = DataLoader(rows(50), batch_size=16), DataLoader(rows(71), batch_size=16)
        return {
            "lone": wrong, "one": [wrong], "list": [wrong, right], "dict": {"wrong": wrong, "right": right},
            "combined": CombinedLoader([wrong, right], "sequential"),
            "hollow": [[], right, wrong],
            "at once": CombinedLoader([wrong, right], "min_size"),
        }[kind]
    def train_dataloader(self):
        return DataLoader(rows(90), 16, shuffle=True)
    def val_dataloader(self):
        return self.loaders(self.kind)
    def test_dataloader(self):
        return self.loaders(self.test)
    def predict_dataloader(self):
        return self.loaders(self.kind)

class Net(linreg.Module):
    def __init__(self, **training):
        metrics = {"accuracy": MulticlassAccuracy(2, average="micro"), "confusion": MulticlassConfusionMatrix(2)}
        super().__init__(nn.Linear(4, 2), metrics, **training)
    def loss(self, z, y):
        return cross_entropy(z, y)
    def step(self, batch):
        return super().step(batch[0] if isinstance(batch[0], list) else batch)

class Bare(pl.LightningModule):
    def __init__(self, lr: float = 0.1):
        super().__init__()
        self.save_hyperparameters()
        self.hypothesis = nn.Linear(4, 2)
    def forward(self, x):
        return self.hypothesis(x)
    def training_step(self, batch, batch_idx):
        return cross_entropy(self(batch[0]), batch[1])
    def measure(self, batch, stage):
        x, y = batch[0] if isinstance(batch[0], list) else batch
        z = self(x)
        self.log(f"{stage}_loss", cross_entropy(z, y), batch_size=len(y), prog_bar=True)
        self.log(f"{stage}_accuracy", (z.argmax(1) == y).float().mean(), batch_size=len(y))
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.measure(batch, "val")
    def test_step(self, batch, batch_idx, dataloader_idx=0):
        self.measure(batch, "test")
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.hparams.lr)
'''
FOLDER = Path("runs/default/version_0")
BEST, LAST = FOLDER / "checkpoints/best.ckpt", FOLDER / "checkpoints/last.ckpt"
FIRST, SECOND = "/dataloader_idx_0", "/dataloader_idx_1"


def typed(model: str = "Net", *flags: object) -> list[object]:
    return ["--model", f"several.{model}", "--data", "several.Data", "--model.lr", 0.1, "--max_epochs", 4, *flags]


@pytest.fixture
def several(train: Train, workplace: Path) -> Train:
    Path("several.py").write_text(SEVERAL)
    return train


def computed(path: Path) -> dict[str, float]:
    """Loss and accuracy of a checkpoint on the rows of each loader, without the package."""
    state, found = load(path)["state_dict"], {}
    for mark, n in ((FIRST, 50), (SECOND, 71)):
        x = torch.randn(n, 4, generator=torch.Generator().manual_seed(n))
        y = (x[:, 0] > 0).long() ^ (n < 60)
        z = x @ state["hypothesis.weight"].T + state["hypothesis.bias"]
        found[f"loss{mark}"], found[f"accuracy{mark}"] = (
            float(cross_entropy(z, y)),
            float((z.argmax(1) == y).float().mean()),
        )
    return found


def numbers(values: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in values.items() if isinstance(value, float)}


@pytest.mark.parametrize("model", ["Net", "Bare"])
def test_each_loader_has_names_of_its_own(model: str, several: Train) -> None:
    code, out = several(*typed(model))
    assert code == 0, out
    metrics, expected = read_metrics(FOLDER), computed(BEST)
    assert {*metrics} == {"train", "val", "test", "run"}
    assert numbers(metrics["val"]) == pytest.approx(expected, rel=1e-5)
    assert numbers(metrics["test"]) == pytest.approx(expected, rel=1e-5)
    tag = "loss/val" if model == "Net" else "val_loss"
    first, second = (scalars(FOLDER)[f"{tag}{mark}"] for mark in (FIRST, SECOND))
    assert [len(first), len(second)] == [4, 4]
    assert first[0][1] == min(value for _, value in first) > first[-1][1] * 0.5
    assert second[-1][1] == min(value for _, value in second)
    assert metrics["run"]["epoch"] == 1
    assert scalars(FOLDER)["reported/loss_val"][0][1] == pytest.approx(expected[f"loss{FIRST}"])
    said = " ".join(out.split())
    assert f"of several loaders best.ckpt goes by the first one's {tag}{FIRST}; see --monitor" in said
    assert f"accuracy/test{SECOND}" in (FOLDER / "card.md").read_text()
    for stage, split in (("validate", "val"), ("test", "test")):
        code, out = several(stage, "--ckpt_path", BEST)
        assert code == 0, out
        lines = [line for line in out.splitlines() if FIRST in line or SECOND in line]
        assert len({line.rindex(" ") for line in lines if len(line.split()) == 2}) == 1, out
        for name, value in expected.items():
            metric, _, mark = name.partition("/")
            tag = f"{metric}/{split}/{mark}" if model == "Net" else f"{split}_{metric}/{mark}"
            (line,) = [line for line in lines if line.startswith(f"{tag} ")]
            assert float(line.split()[1]) == pytest.approx(value, rel=1e-5)


def test_a_table_of_each_loader_is_counted_and_drawn(several: Train) -> None:
    assert several(*typed())[0] == 0
    tables = [read_metrics(FOLDER)["val"][f"confusion{mark}"] for mark in (FIRST, SECOND)]
    assert [sum(map(sum, table)) for table in tables] == [50, 71]
    code, out = several("validate", "--ckpt_path", BEST)
    assert code == 0, out
    assert all(f"confusion/val{mark}\n" in out for mark in (FIRST, SECOND))


@pytest.mark.parametrize(
    ("kind", "marks"), [("one", [""]), ("dict", [FIRST, SECOND]), ("combined", [FIRST, SECOND]), ("at once", [""])]
)
def test_loaders_of_every_form(kind: str, marks: list[str], several: Train) -> None:
    code, out = several(*typed("Net", "--data.kind", kind, "--data.test", "lone"))
    assert code == 0, out
    metrics = read_metrics(FOLDER)
    expected = {name: value for name, value in computed(BEST).items() if len(marks) > 1 or name.endswith(FIRST)}
    names = {name if len(marks) > 1 else name.removesuffix(FIRST): value for name, value in expected.items()}
    assert numbers(metrics["val"]) == pytest.approx(names, rel=1e-5)
    lone = {n.removesuffix(FIRST): value for n, value in expected.items() if n.endswith(FIRST)}
    assert numbers(metrics["test"]) == pytest.approx(lone, rel=1e-5)
    assert ("of several loaders" in out) == (len(marks) > 1)
    code, out = several("validate", "--ckpt_path", BEST)
    assert code == 0, out
    assert {line.split()[0] for line in out.splitlines() if line.startswith("loss/val")} == {
        f"loss/val{mark}" for mark in marks
    }


def test_the_best_is_that_of_the_loader_that_is_named(several: Train) -> None:
    for name, epoch in (("loss/val", 1), (f"loss/val{FIRST}", 1), (f"loss/val{SECOND}", 4)):
        code, out = several(*typed("Net", "--monitor", name, "--name", f"by{epoch}"))
        assert code == 0, out
        assert read_metrics(max(Path(f"runs/by{epoch}").glob("version_*")))["run"]["epoch"] == epoch
        assert ("of several loaders" in out) == (name == "loss/val")
    code, out = several(*typed("Net", "--monitor", "los/val"))
    assert code == 2, out
    assert "--monitor 'los/val': nothing of that name is logged; did you mean 'loss/val'?" in out


@pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero")
def test_a_loader_without_rows_is_not_the_first(several: Train) -> None:
    code, out = several(*typed("Net", "--data.kind", "hollow"))
    assert code == 0, out
    assert f"best.ckpt goes by the first one's loss/val{SECOND}; see --monitor" in " ".join(out.split())
    metrics = read_metrics(FOLDER)
    assert metrics["run"]["epoch"] == 4
    assert metrics["val"][f"loss{SECOND}"] == pytest.approx(computed(BEST)[f"loss{SECOND}"], rel=1e-5)
    assert scalars(FOLDER)["reported/loss_val"][0][1] == pytest.approx(metrics["val"][f"loss{SECOND}"])


@pytest.mark.parametrize(("monitor", "epochs"), [("loss/val", 3), (f"loss/val{FIRST}", 3), (f"loss/val{SECOND}", 4)])
def test_early_stopping_goes_by_one_of_them(monitor: str, epochs: int, several: Train) -> None:
    stopping = f"{{class_path: EarlyStopping, init_args: {{monitor: {monitor}, patience: 2}}}}"
    code, out = several(*typed("Net", "--callbacks", f"[{stopping}]"))
    assert code == 0, out
    assert read_metrics(FOLDER)["run"]["epochs"] == epochs


def test_a_plateau_and_another_checkpoint_go_by_the_first(several: Train) -> None:
    plateau = "{class_path: torch.optim.lr_scheduler.ReduceLROnPlateau, init_args: {patience: 0, factor: 0.5}}"
    other = "{class_path: ModelCheckpoint, init_args: {monitor: loss/val, filename: other}}"
    code, out = several(*typed("Net", "--model.lr_scheduler", plateau, "--callbacks", f"[{other}]"))
    assert code == 0, out
    assert load(LAST)["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0.1 * 0.5**3)
    assert load(FOLDER / "checkpoints/other.ckpt")["epoch"] == 0


def test_a_run_that_goes_on_is_as_one_that_was_not_interrupted(several: Train) -> None:
    assert several(*typed())[0] == 0
    assert several(*typed(), "--name", "parts", "--max_epochs", 2)[0] == 0
    code, out = several("--ckpt_path", "last", "--name", "parts", "--max_epochs", 4)
    assert code == 0, out
    parts = Path("runs/parts/version_0")
    assert_same(load(LAST)["state_dict"], load(parts / "checkpoints/last.ckpt")["state_dict"])
    whole, curves = scalars(FOLDER), scalars(parts)
    assert {**whole, "reported/epochs": 0} == {**curves, "reported/epochs": 0}
    for stage in ("train", "val", "test"):
        assert read_metrics(parts)[stage] == read_metrics(FOLDER)[stage]


@pytest.mark.parametrize("kind", ["lone", "list"])
def test_an_epoch_without_validation_has_no_point_of_an_older_one(kind: str, several: Train) -> None:
    assert several(*typed("Bare", "--data.kind", kind, "--check_val_every_n_epoch", 2))[0] == 0
    curves = scalars(FOLDER)
    tag = f"val_loss{FIRST * (kind == 'list')}"
    assert [step for step, _ in curves[tag]] == [11, 23]  # 6 steps an epoch
    assert [step for step, _ in curves["loss/train"]] == [5, 11, 17, 23]


@pytest.mark.slow
def test_two_processes_measure_each_loader_as_one(several: Train, process: Process) -> None:
    assert several(*typed())[0] == 0
    run = process(*typed(), "--name", "two", "--devices", 2)
    assert run.returncode == 0, run.stderr
    alone, two = read_metrics(FOLDER), read_metrics("runs/two/version_0")
    assert two["val"].keys() == alone["val"].keys()
    assert numbers(two["val"]) == pytest.approx(numbers(alone["val"]), rel=1e-5)
    assert two["val"][f"confusion{SECOND}"] == alone["val"][f"confusion{SECOND}"]


@pytest.mark.parametrize("kind", ["one", "list", "dict", "at once"])
@pytest.mark.parametrize("model", ["Net", "Bare"])
def test_predictions_of_each_loader_are_told_apart(model: str, kind: str, several: Train) -> None:
    assert several(*typed(model, "--data.kind", kind, "--max_epochs", 1))[0] == 0
    code, out = several("predict", "--ckpt_path", LAST, "--output", "found.pt")
    if kind == "at once":
        assert code == 2, out
        assert [line for line in out.splitlines() if "CombinedLoader" in line]
        return
    assert code == 0, out
    state = load(LAST)["state_dict"]
    x = [torch.randn(n, 4, generator=torch.Generator().manual_seed(n)) for n in (50, 71)]
    expected = [each @ state["hypothesis.weight"].T + state["hypothesis.bias"] for each in x]
    torch.testing.assert_close(load("found.pt"), expected[0] if kind == "one" else expected)
    each = "50 predictions and 71 predictions of Data.predict_dataloader, a list with one entry for each loader"
    said = "50 predictions of Data.predict_dataloader" if kind == "one" else each
    assert " ".join(out.split()).endswith(f"found.pt: {said}")


@pytest.mark.parametrize("output", ["found.csv", "found", "found.pt.csv", "pt"])
def test_tensors_are_not_written_under_the_name_of_a_table(output: str, several: Train) -> None:
    text = SEVERAL.replace(
        "    def predict_dataloader(self):\n", "    def predict_dataloader(self):\n        print('read')\n"
    )
    Path("several.py").write_text(text)
    assert several(*typed("Net", "--max_epochs", 1))[0] == 0
    code, out = several("predict", "--ckpt_path", LAST, "--output", output)
    assert code == 2, out
    assert (
        f"error: --output {output}: Data is no table, and its predictions are tensors; give a name that ends in .pt"
        in out
    )
    assert "read" not in out
    assert not Path(output).exists()


def test_a_regression_reports_its_splits_and_what_it_measured_on_each_loader(train: Train, workplace: Path) -> None:
    Path("table.py").write_text(
        "import linreg\nfrom torch.utils.data import Subset\n\nclass Two(linreg.SyntheticData):\n"
        "    def test_dataloader(self): return [super().test_dataloader(), super().val_dataloader()]\n"
    )
    code, out = train("--data", "table.Two", "--max_epochs", 3)
    assert code == 0, out
    metrics = read_metrics(FOLDER)
    for name in ("mse", "rmse", "mae", "r2"):
        assert metrics["test"][f"{name}{FIRST}"] == pytest.approx(metrics["test"][name], rel=1e-5)
        assert metrics["test"][f"{name}{SECOND}"] == pytest.approx(metrics["val"][name], rel=1e-5)
        assert f"\n{name}/test{SECOND} " in out
    assert metrics["exact"]["test"].keys() == {"mse", "rmse", "mae", "r2"}


def test_the_progress_names_each_loader_in_few_letters(several: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("linreg.report.progress.PAUSE", 0.0)
    monkeypatch.setenv("COLUMNS", "120")
    code, out = several(*typed("Bare", "--enable_progress_bar", "true"))
    assert code == 0, out
    assert re.search(r"epoch 4 of 4 .* loss [\d.]+  val_loss/0 [\d.]+  val_loss/1 [\d.]+", out)
