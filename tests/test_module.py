"""A Module of one's own: its losses and metrics are what a formula says, and what it lacks is named in one line."""

from pathlib import Path

import numpy as np
import pytest
import torch

from linreg import InputError, LinearRegression, Module, SyntheticData, run
from linreg.command.signatures import get_signature_parameters
from linreg.regression.exact.comparison import _difference
from tests.conftest import Train, read_metrics
from tests.tools import CKPT, assert_same, load, scalars

pytestmark = [
    pytest.mark.filterwarnings("ignore:`training_step` returned `None`"),
    pytest.mark.filterwarnings("ignore:Total length of `.*` across ranks is zero"),
    pytest.mark.filterwarnings("ignore:`LightningModule.configure_optimizers` returned `None`"),
    pytest.mark.filterwarnings("ignore:The '.*dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader` but have no `validation_step`"),
]
MINE = '''
import lightning.pytorch as pl
import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn.functional import cross_entropy, l1_loss
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassROC
from linreg import Module

class Rows(torch.utils.data.Dataset):
    """33 rows of three kinds, as pairs, dicts or lone tensors: the last batch of 16 has one row."""
    def __init__(self, kind):
        self.kind, self.y = kind, torch.arange(33) % 3
        self.x = torch.randn(33, 4, generator=torch.Generator().manual_seed(0)) + self.y[:, None]
    def __len__(self):
        return 33
    def __getitem__(self, i):
        pair = self.x[i], self.y[i]
        return {"pair": pair, "dict": {"values": pair[0], "kind": pair[1]}, "lone": pair[0]}[self.kind]

class Data(pl.LightningDataModule):
    def __init__(self, kind: str = "pair"):
        super().__init__()
        self.kind = kind
    def rows(self):
        return DataLoader(Rows(self.kind), batch_size=16)
    train_dataloader = val_dataloader = test_dataloader = rows

class Net(Module):
    def __init__(self, **training):
        metrics = {"accuracy": MulticlassAccuracy(3, average="micro"), "confusion": MulticlassConfusionMatrix(3)}
        super().__init__(nn.Linear(4, 3), metrics, **training)
    def loss(self, y_hat, y):
        return cross_entropy(y_hat, y)

class Named(Net):
    def step(self, batch):
        x, y = (batch["values"], batch["kind"]) if isinstance(batch, dict) else batch
        y_hat = self(x)
        self.measure(y_hat, y)
        fit, size = cross_entropy(y_hat, y), self.hypothesis.weight.square().sum()
        return {"loss": fit + 0.01 * size, "fit": fit, "size": size}

class Auto(Module):
    def __init__(self, **training):
        super().__init__(**training)
        self.net = nn.Linear(4, 4)
    def step(self, batch):
        return l1_loss(self.net(batch), batch)
'''
FOLDER = Path("runs/default/version_0")
QUICK = ["--data", "mine.Data", "--max_epochs", 2, "--model.lr"]


@pytest.fixture
def mine(train: Train, workplace: Path) -> Train:
    Path("mine.py").write_text(MINE)
    return train


def rows() -> tuple[np.ndarray, np.ndarray]:
    y = torch.arange(33) % 3
    return (torch.randn(33, 4, generator=torch.Generator().manual_seed(0)) + y[:, None]).numpy(), y.numpy()


def weights(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    state = load(path)["state_dict"]
    return state["hypothesis.weight"].numpy(), state["hypothesis.bias"].numpy()


def test_metrics_are_those_of_the_reported_weights(mine: Train) -> None:
    code, out = mine("--model", "mine.Net", *QUICK, 0.1)
    assert code == 0, out
    (x, y), (w, b) = rows(), weights(f"{CKPT}/best.ckpt")
    z = x @ w.T + b
    confusion = [[int(((y == i) & (z.argmax(1) == j)).sum()) for j in range(3)] for i in range(3)]
    loss = np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(33), y])
    metrics = read_metrics(FOLDER)
    for stage in ("val", "test"):
        assert metrics[stage]["accuracy"] == pytest.approx(np.trace(confusion) / 33)
        assert metrics[stage]["loss"] == pytest.approx(loss, rel=1e-5)
        assert metrics[stage]["confusion"] == confusion
    assert [*map(int, out.split("confusion/test\n")[1].splitlines()[1].split())] == [1, *confusion[1]]
    code, out = mine("validate", "--ckpt_path", f"{CKPT}/best.ckpt")
    assert code == 0, out
    assert "confusion/val" in out


@pytest.mark.parametrize("kind", ["pair", "dict"])
def test_each_loss_is_the_mean_over_all_rows(kind: str, mine: Train) -> None:
    """At a rate that moves nothing; the last batch has one row, the others 16."""
    code, out = mine("--model", "mine.Named", "--data.kind", kind, *QUICK, 1e-30)
    assert code == 0, out
    (x, y), (w, b) = rows(), weights(f"{CKPT}/last.ckpt")
    z = x @ w.T + b
    fit, size = np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(33), y]), np.square(w).sum()
    curves = scalars(FOLDER)
    for stage in ("train", "val"):
        for name, expected in (("fit", fit), ("size", size), ("loss", fit + 0.01 * size)):
            assert curves[f"{name}/{stage}"][-1][1] == pytest.approx(expected, rel=1e-5), f"{name}/{stage}"


def test_a_lone_tensor_and_no_hypothesis(mine: Train) -> None:
    code, out = mine("--model", "mine.Auto", "--data.kind", "lone", *QUICK, 0.1, "--model.optimizer", "Adam")
    assert code == 0, out
    assert [value for _, value in scalars(FOLDER)["loss/train"]] == sorted(
        (value for _, value in scalars(FOLDER)["loss/train"]), reverse=True
    )


def test_accumulated_batches_leave_each_loss_what_it_is(mine: Train) -> None:
    typed = ["--model", "mine.Named", *QUICK, 1e-30]
    assert mine(*typed, "--name", "one")[0] == 0
    assert mine(*typed, "--name", "two", "--accumulate_grad_batches", 2)[0] == 0
    one, two = (read_metrics(f"runs/{name}/version_0")["train"] for name in ("one", "two"))
    assert one == pytest.approx(two)


CHUNKED = """
import torch
from torch.nn.functional import mse_loss
from linreg import Module

class Net(Module):
    def __init__(self, num_features: int, **training):
        super().__init__(torch.nn.Linear(num_features, 1), **training)
    def step(self, batch):
        x, y = batch
        y_hat = self(x.float())
        return {"loss": mse_loss(y_hat, y.float()), "mean": y_hat.mean()}
"""


def test_a_chunk_logs_what_its_batches_do(mine: Train) -> None:
    Path("mine.py").write_text(CHUNKED)
    typed = ["--model", "mine.Net", "--model.lr", 0.01, "--max_epochs", 2, "--data.batch_size", 64]
    assert mine(*typed, "--name", "one")[0] == 0
    assert mine(*typed, "--name", "two", "--chunk", 4)[0] == 0
    one, two = (load(f"runs/{name}/version_0/checkpoints/last.ckpt") for name in ("one", "two"))
    assert "mean/train" in one["logged"]
    assert_same(one["logged"], two["logged"])


WRONG = {
    "no loss": (
        "class Wrong(Module):\n    def __init__(self, **kw):\n        super().__init__(nn.Linear(4, 3), **kw)",
        ["loss", "step"],
    ),
    "no forward": (
        "class Wrong(Auto):\n    step = Module.step\n    def loss(self, y_hat, y): pass",
        ["forward", "hypothesis"],
    ),
    "no weights": ("class Wrong(Module):\n    pass", ["empty parameter list"]),
    "nothing returned": ("class Wrong(Net):\n    def training_step(self, batch, i): self.step(batch)", ["return"]),
    "detached": ("class Wrong(Net):\n    def step(self, b): return super().step(b).detach()", ["depend", "detach"]),
    "not a number": (
        "class Wrong(Net):\n    def loss(self, z, y): return cross_entropy(z, y, reduction='none')",
        ["mean"],
    ),
    "one row": (
        "class Wrong(Net):\n    def __init__(self, **training):\n        super().__init__(**training)\n"
        "        self.hypothesis = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3))",
        ["one row", "drop_last"],
    ),
    "float64": (
        "class Wrong(Net):\n    def step(self, b): return super().step((b[0].double(), b[1]))",
        ["float64", "x.to(self.dtype)"],
    ),
    "no step": (
        "class Wrong(LightningModule):\n    def __init__(self, lr: float = 0.1):\n        super().__init__()",
        ["training_step"],
    ),
    "no optimizer": ("class Wrong(Net):\n    def configure_optimizers(self): pass", ["configure_optimizers", "return"]),
    "no number": (
        "class Wrong(Net):\n    def validation_step(self, b, i): self.log('loss/val', b[0])",
        ["loss/val", "log one number"],
    ),
    "an expanded buffer": (
        "class Wrong(Net):\n    def __init__(self, **training):\n        super().__init__(**training)\n"
        "        self.register_buffer('scale', torch.ones(1).expand(4))",
        ["scale", "expanded", ".clone()", "persistent=False"],
    ),
    "a curve": (
        "class Wrong(Net):\n    def __init__(self, **training):\n        super().__init__(**training)\n"
        "        self.metrics.add_metrics({'curve': MulticlassROC(3, thresholds=5)})",
        ["curve/val", "tuple", "number"],
    ),
    "nan by hand": (
        "class Wrong(Net):\n    automatic_optimization = False\n"
        "    def training_step(self, b, i): return {'critic': torch.tensor(float('nan'))}",
        ["diverged", "nan"],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_a_model_lacks_is_one_line(case: str, mine: Train) -> None:
    text, words = WRONG[case]
    with Path("mine.py").open("a") as file:
        file.write(f"\n{text}\n")
    code, out = mine("--model", "mine.Wrong", *QUICK, 0.1)
    assert code == (1 if case == "nan by hand" else 2), out
    (line,) = [line for line in out.splitlines() if line.startswith("error: ")]
    assert all(word in line for word in words), line
    if case not in (
        "one row",
        "no number",
        "nan by hand",
        "an expanded buffer",
        "a curve",
    ):  # which show at a later step
        assert mine("doctor", "--model", "mine.Wrong", *QUICK, 0.1) == (2, f"{line}\n".replace("3 batch", "1 batch"))


@pytest.mark.parametrize("kind", ["dict", "lone"])
def test_a_batch_that_is_no_pair_is_told_so(kind: str, mine: Train) -> None:
    code, out = mine("--model", "mine.Net", "--data.kind", kind, *QUICK, 0.1)
    assert code == 2, out
    assert "step(batch)" in out


KEPT = {
    "a sparse buffer": "        self.register_buffer('neighbours', torch.eye(4).to_sparse())",
    "a state of its own": "    get_extra_state, set_extra_state = lambda self: {'seen': 1}, lambda self, _: None",
    "layers that the first batch sizes": "        self.hypothesis = nn.Sequential(nn.LazyLinear(5), nn.LazyLinear(3))",
    "a buffer of nan": "        self.register_buffer('lowest', torch.full((3,), torch.nan))",
}


@pytest.mark.parametrize("kind", KEPT)
def test_a_state_of_any_kind_goes_on_and_is_measured(kind: str, mine: Train) -> None:
    with Path("mine.py").open("a") as file:
        file.write("\nclass Kept(Net):\n    def __init__(self, **training):\n        super().__init__(**training)\n")
        file.write(f"{KEPT[kind]}\n")
    code, out = mine("--model", "mine.Kept", *QUICK, 0.1)
    assert code == 0, out
    assert read_metrics(FOLDER)["run"]["checkpoint"] == "best.ckpt"
    for typed in (["fit", "--max_epochs", 3], ["test"]):
        code, out = mine(*typed, "--ckpt_path", f"{CKPT}/last.ckpt")
        assert code == 0, out


LOSSES = """
import torch
from torch.nn.functional import gaussian_nll_loss, huber_loss
from linreg import LinearRegression

class Huber(LinearRegression):
    def loss(self, y_hat, y):
        return huber_loss(y_hat, y, delta=0.1)

class Likelihood(LinearRegression):
    def loss(self, y_hat, y):
        return gaussian_nll_loss(y_hat, y, torch.full_like(y, 0.01))

class Steps(LinearRegression):
    def step(self, batch):
        return super().step(batch)
"""


def test_the_verdict_is_about_the_loss_that_was_minimized(mine: Train) -> None:
    Path("mine.py").write_text(LOSSES)
    code, out = mine("--model", "mine.Huber", "--model.lr", 0.1, "--max_epochs", 20, "--data.noise_std", 3)
    assert code == 0, out
    metrics = read_metrics(FOLDER)
    x, y = SyntheticData(noise_std=3.0).splits["val"]
    model = LinearRegression.load_from_checkpoint(f"{CKPT}/best.ckpt")
    error = ((model(x) - y).detach() / model.y_standardizer.std).abs()
    huber = torch.where(error < 0.1, error.square() / 2, 0.1 * (error - 0.05)).mean()
    assert metrics["val"]["loss"] == pytest.approx(float(huber), rel=1e-4)
    share = metrics["val"]["loss"] / metrics["exact"]["val"]["loss"] - 1
    verdict = next(line for line in out.splitlines() if "exact linear fit" in line)
    assert verdict.startswith(f"loss is {_difference(share)} that of the exact linear fit on the val rows")
    assert "mse is" not in out
    assert mine("--model", "mine.Huber", "--model.lr", 0.1, "--max_epochs", 1, "--check", 5)[0] == 2


def test_a_loss_that_has_no_share_says_so_and_the_mse_is_compared(mine: Train) -> None:
    Path("mine.py").write_text(LOSSES)
    code, out = mine("--model", "mine.Likelihood", "--model.lr", 0.01, "--max_epochs", 20)
    assert code == 0, out
    said = " ".join(out.split())
    assert "its loss is not 0 for predictions that are the targets, so that a linear fit has none to compare" in said
    assert " loss is " not in said.split("to compare", 1)[1]
    assert "mse is " in said
    assert "optimum" not in out
    assert read_metrics(FOLDER)["test"]["loss"] < 0  # of which no share says anything


def test_a_step_that_a_regressor_would_not_train_by_is_refused(mine: Train) -> None:
    Path("mine.py").write_text(LOSSES)
    code, out = mine("--model", "mine.Steps", "--max_epochs", 1)
    assert code == 2, out
    assert "training_step" in out


def test_an_argument_that_no_checkpoint_can_hold_is_refused(workplace: Path) -> None:
    class Wrapper(Module):
        def __init__(self, net: object, lr: float = 0.1) -> None:
            super().__init__(torch.nn.Linear(3, 1), lr=lr)

    with pytest.raises(InputError, match=r"Wrapper: its argument 'net' is or holds a function.*__init__"):
        run(Wrapper(torch.nn.init.uniform_), SyntheticData(), max_epochs=1)


class Halves(LinearRegression):
    def __init__(self, num_features: int, half: bool = True, **training: float) -> None:
        super().__init__(num_features, **training)


class Heirs(Halves):
    pass


def test_a_class_without_a_constructor_takes_the_arguments_of_its_parent() -> None:
    names = [[p.name for p in get_signature_parameters(cls)] for cls in (Halves, Heirs)]
    assert names[0] == names[1]
    assert names[0][:4] == ["num_features", "half", "num_targets", "bias"]


LOADERS = {
    "several": ("    def val_dataloader(self): return [self.rows(), self.rows()]", ["dataloader_idx"]),
    "none": ("    def train_dataloader(self): return []", ["no batch", "train_dataloader"]),
}


@pytest.mark.parametrize("case", LOADERS)
def test_what_data_lack_is_one_line(case: str, mine: Train) -> None:
    text, words = LOADERS[case]
    step = "class Single(Net):\n    def validation_step(self, batch, batch_idx): pass\n"
    with Path("mine.py").open("a") as file:
        file.write(f"\n{step}\nclass Wrong(Data):\n{text}\n")
    code, out = mine("--model", "mine.Single", "--data", "mine.Wrong", "--model.lr", 0.1, "--max_epochs", 1)
    assert code == 2, out
    (line,) = [line for line in out.splitlines() if line.startswith("error: ")]
    assert all(word in line for word in words), line


def test_what_a_model_predicts_from_is_asked_for(mine: Train) -> None:
    with Path("mine.py").open("a") as file:
        file.write(
            "\nclass Pair(Net):\n    def forward(self, x, y): return self.hypothesis(x)\n"
            "    def step(self, batch): return cross_entropy(self(*batch), batch[1])\n"
            "\nclass More(Data):\n    def predict_dataloader(self): return DataLoader(Rows('pair'), 16)\n"
        )
    for model, words in (("Pair", ["forward(x, y)", "predict_step"]), ("Net", ["name its arguments", "batch_size=32"])):
        typed = ["--model", f"mine.{model}", "--data", "mine.More", "--model.lr", 0.1, "--max_epochs", 1]
        assert mine(*typed, "--name", model)[0] == 0
        code, out = mine("predict", "--ckpt_path", f"runs/{model}/version_0/checkpoints/last.ckpt")
        assert code == 2, out
        assert all(word in out for word in words), out
