"""Any LightningModule on any LightningDataModule: the same command, records and exits as the lecture's model."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest
import torch

from linreg import Regressor
from tests.conftest import Train, read_metrics, read_rows
from tests.tools import assert_same, load, scalars

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
]
MINE = '''
import lightning.pytorch as pl
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

class Digits(pl.LightningDataModule):
    """Pictures of three kinds."""
    num_classes = 3
    def __init__(self, batch_size: int = 16):
        super().__init__()
        self.batch_size = batch_size
    def rows(self, n):
        y = torch.arange(n) % 3
        x = torch.randn(n, 1, 4, 4, generator=torch.Generator().manual_seed(n)) + y[:, None, None, None]
        return DataLoader(TensorDataset(x, y), self.batch_size)
    def train_dataloader(self):
        return self.rows(90)
    def val_dataloader(self):
        return self.rows(31)
    def test_dataloader(self):
        return self.rows(32)

class Net(pl.LightningModule):
    def __init__(self, num_classes: int, lr: float = 0.01, names: str = "metric/stage"):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, num_classes))
        self.lr, self.names = lr, names
    def forward(self, x):
        return self.net(x)
    def step(self, batch, stage):
        x, y = batch
        z = self(x)
        loss = cross_entropy(z, y)
        for metric, value in (("loss", loss), ("accuracy", (z.argmax(1) == y).float().mean())):
            tag = self.names.replace("metric", metric).replace("stage", stage)
            self.log(tag, value, on_step=False, on_epoch=True)
        return loss
    def training_step(self, batch, batch_idx):
        return self.step(batch, "train")
    def validation_step(self, batch, batch_idx):
        self.step(batch, "val")
    def test_step(self, batch, batch_idx):
        self.step(batch, "test")
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)
'''
NET = ["--model", "mine.Net", "--data", "mine.Digits", "--max_epochs", 3]
FOLDER = Path("runs/default/version_0")
LAST = FOLDER / "checkpoints/last.ckpt"


@pytest.fixture
def mine(train: Train, workplace: Path) -> Train:
    Path("mine.py").write_text(MINE)
    return train


@pytest.mark.parametrize("names", ["metric/stage", "stage/metric", "stage_metric"])
def test_metrics_are_what_the_reported_epoch_has_logged(names: str, mine: Train) -> None:
    code, out = mine(*NET, "--model.names", names)
    assert code == 0, out
    metrics, curves = read_metrics(FOLDER), scalars(FOLDER)
    epoch = metrics["run"]["epoch"]
    assert {*metrics} == {"train", "val", "test", "run"}
    assert "train values are of the epoch as it went, while the weights changed" in out
    for stage in ("train", "val"):
        for metric in ("loss", "accuracy"):
            curve = curves[names.replace("metric", metric).replace("stage", stage)]
            assert metrics[stage][metric] == pytest.approx(curve[epoch - 1][1])
    best = names.replace("metric", "loss").replace("stage", "val")
    assert metrics["val"]["loss"] == pytest.approx(min(value for _, value in curves[best]))


@pytest.mark.parametrize("names", ["metric/stage", "stage_metric"])  # the first of which is our own mean's tag
def test_what_is_logged_by_steps_is_not_taken_for_the_epochs(names: str, mine: Train) -> None:
    by_steps = "on_step=(stage == 'train'), on_epoch=(stage != 'train')"  # as Lightning does where nothing is said
    text = MINE.replace("on_step=False, on_epoch=True", by_steps)
    Path("mine.py").write_text(text.replace('"metric/stage"', f'"{names}"'))
    spied = """
from lightning.pytorch.callbacks import Callback
class Spy(Callback):
    losses = []
    def on_train_batch_end(self, trainer, model, outputs, batch, i):
        Spy.losses.append(float(outputs["loss"]))
"""
    Path("spy.py").write_text(spied)
    code, out = mine(*NET, "--callbacks", "spy.Spy")
    assert code == 0, out
    means = torch.tensor(importlib.import_module("spy").Spy.losses).reshape(3, 6).mean(dim=1)
    metrics = read_metrics(FOLDER)
    assert metrics["train"] == {"loss": pytest.approx(float(means[metrics["run"]["epoch"] - 1]))}
    left = names.replace("metric", "accuracy").replace("stage", "train")
    assert out.count(f"logged by steps only: {left}; see the curves, or self.log(..., on_epoch=True)") == 1
    for content, epoch in ((load(FOLDER / "checkpoints/best.ckpt"), metrics["run"]["epoch"]), (load(LAST), 3)):
        trained = {tag: value for tag, value in content["logged"].items() if "train" in tag}
        assert trained == {"loss/train": pytest.approx(float(means[epoch - 1]))}
    assert mine(*NET, "--monitor", names.replace("metric", "loss").replace("stage", "train"))[0] == 0
    assert mine(*NET, "--val_check_interval", 2, "--name", "inside")[0] == 0
    assert mine(*NET, "--max_steps", 8, "--val_check_interval", 2, "--name", "inside")[0] == 0
    for version in (0, 1):
        best = load(f"runs/inside/version_{version}/checkpoints/best.ckpt")
        assert any("train" in tag for tag in best["logged"]) == (best["global_step"] % 6 == 0)


def test_a_finished_run_keeps_its_record_where_it_is_resumed(mine: Train) -> None:
    by_hand = """self.automatic_optimization = False
        self.net = nn"""
    step = """loss = self.step(batch, "train")
        self.optimizers().zero_grad()
        self.manual_backward(loss)
        self.optimizers().step()"""
    text = MINE.replace("    def val_dataloader(self):\n        return self.rows(31)\n", "")
    text = text.replace('("loss", loss)', '("energy", loss)').replace("self.net = nn", by_hand)
    Path("mine.py").write_text(text.replace('return self.step(batch, "train")', step))
    found = []
    for more in ([], ["--ckpt_path", "last"]):
        code, out = mine(*NET, *more)
        assert code == 0, out
        found.append(read_metrics(FOLDER))
    curves = scalars(FOLDER)
    assert found[0]["train"] == {name: curves[f"{name}/train"][-1][1] for name in ("energy", "accuracy")}
    assert found[1]["train"] == found[0]["train"]


def test_the_best_by_another_metric(mine: Train) -> None:
    assert mine(*NET, "--monitor", "accuracy/val", "--mode", "max")[0] == 0
    accuracy = [value for _, value in scalars(FOLDER)["accuracy/val"]]
    metrics = read_metrics(FOLDER)
    assert metrics["val"]["accuracy"] == pytest.approx(max(accuracy))
    assert metrics["run"]["epoch"] == accuracy.index(max(accuracy)) + 1


def test_a_metric_that_is_not_logged_is_named(mine: Train) -> None:
    code, out = mine(*NET, "--monitor", "acuracy/val")
    assert code == 2
    assert "did you mean 'accuracy/val'?" in out


def test_without_validation_the_training_loss_decides(mine: Train) -> None:
    text = MINE.replace("    def val_dataloader(self):\n        return self.rows(31)\n", "")
    Path("mine.py").write_text(text.replace('"metric/stage"', '"stage_metric"'))
    code, out = mine(*NET)
    assert code == 0, out
    loss = [value for _, value in scalars(FOLDER)["train_loss"]]
    assert read_metrics(FOLDER)["run"]["epoch"] == loss.index(min(loss)) + 1
    assert (FOLDER / "checkpoints/best.ckpt").exists()


def test_what_a_model_asks_of_its_data_reaches_it_and_travels(mine: Train) -> None:
    assert mine(*NET)[0] == 0
    assert load(LAST)["hyper_parameters"]["num_classes"] == 3
    for stage in ("validate", "test"):
        code, out = mine(stage, "--ckpt_path", LAST)
        assert code == 0, out
    assert mine("--ckpt_path", LAST, "--max_epochs", 4)[0] == 0
    assert mine("--config", FOLDER / "config.yaml", "--name", "again", "--max_epochs", 3)[0] == 0
    code, out = mine(*NET, "--model.num_classes", 5, "--name", "five")
    assert code == 0, out
    assert load("runs/five/version_0/checkpoints/last.ckpt")["hyper_parameters"]["num_classes"] == 5


@pytest.mark.parametrize(
    ("frozen", "said"), [("True", "139 parameters (88 frozen), Adam"), ("False", "139 parameters, Adam")]
)
def test_frozen_parameters_are_not_counted_as_trained(frozen: str, said: str, mine: Train) -> None:
    teacher = f"        self.teacher = nn.Linear(10, 8).requires_grad_(not {frozen})\n"
    Path("mine.py").write_text(MINE.replace("        self.lr, ", f"{teacher}        self.lr, "))
    code, out = mine(*NET, "--max_epochs", 1)
    assert code == 0, out
    assert f"train   {said}, lr 0.01; at most 1 epoch of 6 steps\n" in out


def test_an_argument_that_nobody_gives_is_named(mine: Train) -> None:
    Path("mine.py").write_text(MINE.replace("    num_classes = 3\n", ""))
    code, out = mine(*NET)
    assert code == 2, out
    assert "num_classes" in out


def test_predictions_of_a_data_module_are_tensors(mine: Train) -> None:
    assert mine(*NET)[0] == 0
    code, out = mine("predict", "--ckpt_path", LAST)
    assert code == 2, out
    assert "predict_dataloader" in out
    more = "    def predict_dataloader(self):\n"
    more += "        return DataLoader([torch.full((1, 4, 4), i / 9) for i in range(16)], batch_size=5)\n\nclass Net"
    sys.modules.pop("mine")
    Path("mine.py").write_text(MINE.replace("\nclass Net", more))
    code, out = mine("predict", "--ckpt_path", LAST, "--output", "found.pt")
    assert code == 0, out
    assert "found.pt: 16 predictions of Digits.predict_dataloader" in out
    content, x = load(LAST), torch.arange(16)[:, None].expand(16, 16) / 9
    weight, bias = content["state_dict"]["net.1.weight"], content["state_dict"]["net.1.bias"]
    torch.testing.assert_close(load("found.pt"), x @ weight.T + bias)
    assert mine("predict", "--ckpt_path", LAST, "--output", "found.pt")[0] == 2


@pytest.mark.parametrize(
    ("predicted", "said"),
    [
        ("y, y.exp()", "2 batches, 7 rows in all, of Digits.predict_dataloader"),
        ("['a'] * len(y)", "2 batches of Digits.predict_dataloader"),
        ("y, y[0, :2]", "2 batches of Digits.predict_dataloader"),
    ],
)
def test_predictions_that_are_no_tensor_are_counted_where_they_can_be(predicted: str, said: str, mine: Train) -> None:
    data = "    def predict_dataloader(self):\n        return DataLoader(torch.zeros(7, 1, 4, 4), batch_size=5)\n"
    step = f"    def predict_step(self, batch, batch_idx):\n        y = self(batch)\n        return {predicted}\n"
    Path("mine.py").write_text(MINE.replace("\nclass Net", f"{data}\nclass Net") + step)
    assert mine(*NET)[0] == 0
    code, out = mine("predict", "--ckpt_path", LAST, "--output", "found.pt")
    assert code == 0, out
    assert f"found.pt: {said}\n" in out


def test_data_without_a_loader_to_measure_on_are_told_so(mine: Train) -> None:
    text = Path("mine.py").read_text().replace("def val_dataloader", "def other_dataloader")
    Path("mine.py").write_text(text)
    assert mine(*NET)[0] == 0
    code, out = mine("validate", "--ckpt_path", LAST)
    assert (code, "there are no val rows: Digits has no val_dataloader; define it" in out) == (2, True), out


def test_a_check_of_what_has_no_exact_solution_is_refused_before_it_is_trained(mine: Train) -> None:
    code, out = mine(*NET, "--check", 0.01)
    assert code == 2, out
    assert "--check 0.01: Net has no exact solution to be held against" in out
    assert not Path("runs").exists()


def test_the_newest_run_or_a_fresh_one(mine: Train) -> None:
    assert mine(*NET, "--name", "mine", "--ckpt_path", "last")[0] == 0
    code, out = mine(*NET, "--name", "mine", "--ckpt_path=last", "--max_epochs", 5)
    assert code == 0, out
    assert "after epoch 3" in out
    assert re.search(r"^train   [\d,]+ parameters, \w+, lr [\d.e-]+; at most 5 epochs of \d+ steps?$", out, re.M)
    assert load("runs/mine/version_0/checkpoints/last.ckpt")["epoch"] == 4
    assert not Path("runs/mine/version_1").exists()
    code, out = mine("test", "--ckpt_path", "last", "--name", "mine")
    assert code == 0, out
    assert "accuracy/test" in out
    code, out = mine("test", "--ckpt_path", "last")
    assert code == 2
    assert "no run of the name 'default'" in out
    assert json.loads(Path("runs/mine/version_0/metrics.json").read_text())["run"]["epochs"] == 5


LION = """
import torch

class Lion(torch.optim.Optimizer):
    def __init__(self, params, lr: float = 1e-3, decay: float = 0.9):
        super().__init__(params, {"lr": lr, "decay": decay})

    @torch.no_grad()
    def step(self, closure=None):
        with torch.enable_grad():
            loss = closure() if closure else None
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                state = self.state[p].setdefault("mean", torch.zeros_like(p))
                state.lerp_(p.grad, 1 - group["decay"])
                p.add_(state.sign(), alpha=-group["lr"])
        return loss

class Halved(torch.optim.lr_scheduler.ExponentialLR):
    def __init__(self, optimizer, gamma: float = 0.5):
        super().__init__(optimizer, gamma)
"""


@pytest.mark.parametrize("place", ["mine.py", "parts/optimizers.py"])
def test_an_optimizer_of_ones_own_is_allowed_as_a_model_is(place: str, mine: Train) -> None:
    path = Path(place)
    path.parent.mkdir(exist_ok=True)
    (path.parent / "__init__.py").touch()
    path.write_text(LION)
    name = place.removesuffix(".py").replace("/", ".")
    optimizer = f"{{class_path: {name}.Lion, init_args: {{decay: 0.5}}}}"
    typed = ["--model.optimizer", optimizer, "--lr", 0.01, "--model.lr_scheduler", f"{name}.Halved"]
    assert mine(*typed, "--max_epochs", 4, "--name", "four")[0] == 0
    code, out = mine(*typed, "--max_epochs", 2)
    assert code == 0, out
    code, out = mine("--ckpt_path", LAST, "--max_epochs", 4)
    assert code == 0, out
    one, two = load("runs/four/version_0/checkpoints/last.ckpt"), load(LAST)
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert_same(one[part], two[part])
    group = two["optimizer_states"][0]["param_groups"][0]
    assert (group["decay"], group["lr"]) == (0.5, pytest.approx(0.01 / 2**4))


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        ("os.system", "'os.system'; a config or checkpoint may only name"),
        ("mine.Nope", "'mine.Nope'"),
        ("mine.Net", "'mine.Net' is no Optimizer"),
        ("Adem", "did you mean 'Adam'"),
    ],
)
def test_another_optimizer_is_one_line(optimizer: str, words: str, mine: Train) -> None:
    code, out = mine("--model.optimizer", optimizer)
    assert code == 2, out
    assert words in out
    assert "Traceback" not in out


def test_a_batch_counts_once_on_the_curves_of_two_optimizers(train: Train) -> None:
    gan = ["--config", Path(__file__).parents[1] / "linreg/examples/gan.yaml", "--limit_train_batches", 5]
    keeping = "{class_path: ModelCheckpoint, init_args: {filename: '{epoch}', save_top_k: -1}}"
    assert train(*gan, "--callbacks", keeping, "--max_epochs", 3)[0] == 0
    folder = Path("runs/gan/version_0")
    curves = scalars(folder)
    steps = {tag: [step for step, _ in curve] for tag, curve in curves.items() if tag.endswith(("/train", "/val"))}
    assert len(steps) == 6
    assert {*map(tuple, steps.values())} == {(4, 9, 14)}
    assert {step for tag, curve in curves.items() for step, _ in curve if tag not in steps} == {15}
    last = folder / "checkpoints/epoch=1.ckpt"
    code, out = train("--ckpt_path", last, "--callbacks", "[]")
    assert code == 0, out
    assert scalars(folder) == curves


def test_loaders_of_a_model_are_refused_by_name(mine: Train) -> None:
    """They would not be called: Lightning takes those of the data, which are the default ones where none are named."""
    own = MINE.partition("    def train_dataloader")[2].partition("    def val_dataloader")[0]
    with Path("mine.py").open("a") as file:
        file.write(f"    rows = Digits.rows\n    batch_size = 16\n    def train_dataloader{own}")
    code, out = mine("--model", "mine.Net", "--model.num_classes", 3, "--max_epochs", 1)
    assert code == 2, out
    assert "error: Net.train_dataloader: the loaders are those of the data; move it to a LightningDataModule" in out


def test_a_hypothesis_of_the_config_is_made_again_of_a_checkpoint(train: Train, workplace: Path) -> None:
    body = "from torch import nn\nclass Body(nn.Sequential):\n    def __init__(self, width: int = 8):\n"
    Path("mine.py").write_text(f"{body}        super().__init__(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 1))\n")
    typed = ["--model", "linreg.Regressor", "--model.hypothesis", "mine.Body", "--model.hypothesis.width", 5]
    code, out = train(*typed, "--model.lr", 0.1, "--max_epochs", 2)
    assert code == 0, out
    Path("rows.csv").write_text("x1,x2,x3\n1,2,3\n")
    for task in (["test"], ["predict", "--data.path", "rows.csv"]):
        code, out = train(*task, "--ckpt_path", LAST)
        assert code == 0, out
    model = Regressor.load_from_checkpoint(LAST)
    assert model.hypothesis[0].weight.shape == (5, 3)
    predicted = float(read_rows("predictions.csv")[0]["prediction"])
    assert model(torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)).item() == pytest.approx(predicted)


@pytest.mark.parametrize("name", ["LinearRegression", "Net"])
def test_a_class_named_where_it_is_only_imported_is_made_again_of_a_checkpoint(name: str, mine: Train) -> None:
    """Lightning looks it up among the modules that are imported already."""
    Path("other.py").write_text("from linreg import LinearRegression\nfrom mine import Net\n")
    typed = ["--model", f"other.{name}", *(NET[2:4] if name == "Net" else [])]
    assert mine(*typed, "--max_epochs", 2)[0] == 0
    assert mine("--ckpt_path", LAST, "--max_epochs", 3)[0] == 0
    sys.modules.pop("other")
    checkpoint = load(LAST)
    checkpoint["hyper_parameters"]["_class_path"] = f"other.{name}"  # as an older version wrote it
    torch.save(checkpoint, "old.ckpt")
    for path in (LAST, "old.ckpt"):
        code, out = mine("test", "--ckpt_path", path)
        assert code == 0, out
        assert "loss/test" in out
        assert "other" not in sys.modules
    if name == "LinearRegression":
        assert "ok    loads in a new process" in mine("doctor", *typed)[1]


@pytest.mark.parametrize("rows", ["TensorDataset(*rows)", "Listed(TensorDataset(*rows))"])
def test_a_dataset_is_no_loader(rows: str, mine: Train) -> None:
    """Lightning would take each row for a batch."""
    more = "rows = torch.randn(90, 1, 4, 4), torch.arange(90) % 3\nclass Listed:\n    def __init__(self, rows):\n"
    more += "        self.rows = rows\n    def __len__(self):\n        return len(self.rows)\n"
    more += "    def __getitem__(self, i):\n        return self.rows[i]\n    __getitems__ = __getitem__\n"
    with Path("mine.py").open("a") as file:
        file.write(f"{more}class Wrong(Digits):\n    def train_dataloader(self):\n        return {rows}\n")
    code, out = mine("--model", "mine.Net", "--data", "mine.Wrong", "--max_epochs", 1)
    assert code == 2, out
    assert "whose rows are no batches; give a DataLoader(rows, batch_size=32)" in out
    assert not list(Path("runs").glob("*/*/*"))


KEEPING = '''
import torch
from lightning.pytorch.callbacks import BaseFinetuning, Callback
from torch.optim import SGD
from mine import Net

class Stacked(SGD):
    """The last three gradients of each weight, and a matrix of another size beside it."""
    @torch.no_grad()
    def step(self, closure=None):
        with torch.enable_grad():
            loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                state["last"] = torch.cat([state.get("last", torch.zeros(2, *p.shape))[-2:], p.grad[None]])
                state["side"] = state.get("side", torch.eye(len(p))) + p.grad.reshape(len(p), -1).square().mean()
                p.sub_(group["lr"] * state["last"].mean(0) / state["side"][0, 0])
        return loss

class Stacking(Net):
    def configure_optimizers(self):
        return Stacked(self.parameters(), 0.05)

class Growing(Net):
    """A bank of what was seen, which goes into the loss."""
    def __init__(self, num_classes: int = 3, lr: float = 0.05):
        super().__init__(num_classes, lr)
        self.register_buffer("bank", torch.zeros(0, num_classes))
    def _load_from_state_dict(self, state, prefix, *rest):
        self.bank = torch.empty_like(state[prefix + "bank"])
        super()._load_from_state_dict(state, prefix, *rest)
    def training_step(self, batch, batch_idx):
        z = self(batch[0])
        self.bank = torch.cat([self.bank, z.detach()])[-150:]
        return super().training_step(batch, batch_idx) + (z.mean(0) - self.bank.mean(0)).square().sum()

class Head(Net):
    def configure_optimizers(self):
        return SGD((p for p in self.parameters() if p.requires_grad), 0.1, momentum=0.9)

class Thaw(BaseFinetuning):
    def freeze_before_training(self, model):
        self.freeze(model.net[1])
        model.net[1].bias.requires_grad_(True)
    def finetune_function(self, model, epoch, optimizer):
        if epoch == 1:
            model.net[1].weight.requires_grad_(True)
            optimizer.add_param_group({"params": [model.net[1].weight], "lr": 0.01})

class Best(Callback):
    """The lowest loss so far, which is a float at first, and all of them."""
    def __init__(self):
        self.best, self.all = float("inf"), torch.zeros(0)
    def on_train_epoch_end(self, trainer, model):
        loss = trainer.callback_metrics["loss/train"]
        self.best, self.all = torch.minimum(torch.as_tensor(self.best), loss), torch.cat([self.all, loss[None]])
    def state_dict(self):
        return {"best": self.best, "all": self.all}
    def load_state_dict(self, state):
        self.best, self.all = state["best"], state["all"]
'''


@pytest.mark.parametrize(
    "flags",
    [
        ["--model", "keeping.Stacking"],
        ["--model", "keeping.Growing"],
        ["--model", "keeping.Head", "--callbacks", "keeping.Thaw"],
        ["--model", "mine.Net", "--callbacks", "keeping.Best"],
    ],
)
def test_what_ones_own_keeps_may_change_its_kind(flags: list[str], mine: Train) -> None:
    """In an optimizer, a buffer, groups of weights, a callback: two epochs and two more are four, to the bit."""
    Path("keeping.py").write_text(KEEPING)
    flags = [*flags, "--data", "mine.Digits"]
    assert (found := mine(*flags, "--max_epochs", 4, "--name", "whole"))[0] == 0, found[1]
    assert mine(*flags, "--max_epochs", 2)[0] == 0
    code, out = mine(*flags, "--ckpt_path", LAST, "--max_epochs", 4)
    assert code == 0, out
    whole, parts = load(str(LAST).replace("default", "whole")), load(str(LAST))
    for part in ("state_dict", "optimizer_states", "callbacks"):
        one, two = whole[part], parts[part]
        if part == "callbacks":
            one, two = ({k: v for k, v in each.items() if k == "Best"} for each in (one, two))
        assert_same(one, two)
    code, out = mine("test", "--ckpt_path", LAST)
    assert code == 0, out
