"""A run from Python: as a script, in a notebook (cells in one process, Ctrl-C), with a stock Trainer; its mistakes."""

import copy
import importlib
import json
import math
import os
import random
import re
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

import linreg
from linreg import CSVData, InputError, LinearRegression, RegressionData, RunError, SyntheticData, Table
from linreg.safety.checkpoint_file import load_model
from tests.conftest import Train, completed, posix, read_metrics, started, until
from tests.tools import assert_same, load

SCRIPT = """
from linreg import LinearRegression, SyntheticData, run

found = run(LinearRegression(3), SyntheticData(), name="python", max_epochs=5)
print(found.folder, found.metrics["test"]["rmse"], found.coefficients[0]["learned"])
"""
STOCK = """
import lightning
from linreg import LinearRegression, SyntheticData

trainer = lightning.Trainer(max_epochs=30, logger=False, enable_checkpointing=False)
trainer.fit(model := LinearRegression(3), SyntheticData())
print(model.coef[0].tolist())
"""
NOTEBOOK = """
import sys
cells = sys.stdin.read().split("# cell\\n")
for cell in cells:  # as a kernel does: one process, no main guard, an interrupted cell ends that cell only
    try:
        exec(cell, globals())
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""
LONG = """
from linreg import LinearRegression, SyntheticData, run
model, data = LinearRegression(3, lr=0.01, lr_scheduler="ReduceLROnPlateau"), SyntheticData(num_rows=200, batch_size=4)
# cell
run(model, data, name="notebook", max_epochs=100_000)
# cell
import torch
epoch = torch.load("runs/notebook/version_0/checkpoints/last.ckpt", weights_only=True)["epoch"] + 1
left = [name for name in vars(model) if callable(getattr(type(model), name, None))]
found = run(model, data, name="notebook", ckpt_path="last", max_epochs=epoch + 2)
print("epochs", epoch + 2, "left", left)
found
# cell
again = run(model, data, name="notebook", max_epochs=1)
print("second", again.folder)
import time
try:
    time.sleep(30)
except KeyboardInterrupt:
    print("interrupted again")
"""


def test_five_lines_as_a_script(workplace: Path) -> None:
    Path("mine.py").write_text(SCRIPT)
    done = completed([sys.executable, "-W", "error::UserWarning:linreg", "mine.py"])
    assert (done.returncode, done.stderr) == (0, "")  # none of Lightning's notes, as at the command line
    folder, rmse, learned = done.stdout.splitlines()[-1].split()
    metrics = read_metrics(folder)
    assert float(rmse) == metrics["test"]["rmse"]
    assert float(learned) == pytest.approx(2.541, abs=0.01)
    assert folder == "runs/python/version_0"


@pytest.mark.slow
def test_a_stock_trainer(workplace: Path) -> None:
    Path("mine.py").write_text(STOCK)
    done = completed([sys.executable, "mine.py"])
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(found, [2.540996, -1.293429, -3.178789], atol=0.01)
    assert not Path("runs").exists()


@posix
@pytest.mark.slow
def test_cells_in_one_process_one_of_them_interrupted(workplace: Path) -> None:
    Path("kernel.py").write_text(NOTEBOOK)
    Path("cells.txt").write_text(LONG)
    last = Path("runs/notebook/version_0/checkpoints/last.ckpt")
    kernel = [sys.executable, "kernel.py"]
    with (
        open("cells.txt") as cells,
        open("out.txt", "w") as out,
        started(kernel, stdin=cells, stdout=out, stderr=out) as run,
    ):
        until(lambda: last.exists() or run.poll() is not None)
        run.send_signal(signal.SIGINT)
        until(lambda: "second" in Path("out.txt").read_text() or run.poll() is not None)
        run.send_signal(signal.SIGINT)
        run.wait(600)
    said = Path("out.txt").read_text()
    assert "Traceback" not in said, said
    assert re.search(rf"^stopped; (.* lost; )?resume it with: run\(model, data, ckpt_path='{last}'\)$", said, re.M), (
        said
    )
    assert said.count("interrupted\n") == 1
    assert "interrupted again" in said  # Ctrl-C is not ignored from then on
    epochs, left = re.findall(r"epochs (\d+) left (.*)", said)[0]
    assert left == "[]"
    assert "second runs/notebook/version_1" in said
    torch.manual_seed(0)
    model = LinearRegression(3, lr=0.01, lr_scheduler="ReduceLROnPlateau")
    linreg.run(model, SyntheticData(num_rows=200, batch_size=4), name="whole", max_epochs=int(epochs))
    one, two = load("runs/whole/version_0/checkpoints/last.ckpt"), load(last)
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        assert_same(one[part], two[part])


def test_a_run_is_shown_by_what_it_found(workplace: Path) -> None:
    found = linreg.run(LinearRegression(3), SyntheticData(num_rows=50), max_epochs=1)
    assert repr(found).startswith("Run(folder=")
    assert "metrics={'train'" in repr(found)
    assert "model=" not in repr(found)
    again = linreg.run(LinearRegression(3), SyntheticData(num_rows=50), max_epochs=2, ckpt_path="last")
    assert again.folder == found.folder
    fresh = linreg.run(LinearRegression(3), SyntheticData(num_rows=50), max_epochs=1, ckpt_path="last", name="new")
    assert fresh.folder == Path("runs/new/version_0")


LAST = "runs/p/version_0/checkpoints/last.ckpt"


def table(path: str = "t.csv") -> CSVData:
    """Of 40 rows and one more, whose cell stands for a missing one."""
    x = np.random.default_rng(0).normal(size=(40, 2))
    lines = [f"{a},{b},{a + 2 * b + 1}" for a, b in x]
    Path(path).write_text("\n".join(["a,b,y", *lines, "-999,1,2"]))
    return CSVData(Path(path), target="y", missing_values=(-999,), batch_size=8)  # type: ignore[arg-type]


def test_the_command_line_knows_how_a_run_in_python_was_made(train: Train) -> None:
    linreg.run(LinearRegression(2, lr=0.05), table(), name="p", max_epochs=3, chunk=2)
    code, said = train("test", "--ckpt_path", LAST)
    assert (code, "of 41 rows for a missing cell" in said) == (0, True), said
    code, said = train("predict", "--ckpt_path", LAST, "--data.path", "t.csv", "--output", "out.csv")
    assert (code, "41 predictions, 1 of them empty" in said) == (0, True), said
    code, said = train("--config", "runs/p/version_0/config.yaml", "--name", "again")
    assert code == 0, said
    one, two = load(LAST), load("runs/again/version_0/checkpoints/last.ckpt")
    for part in ("state_dict", "optimizer_states", "global_step"):
        assert_same(one[part], two[part])
    code, said = train("--ckpt_path", LAST, "--max_epochs", "5")
    changed = said.partition("as before but for:\n")[2].partition("train ")[0].split()
    assert (code, changed) == (0, ["trainer.max_epochs:", "3", "->", "5"]), said


def test_python_says_what_is_other_than_before(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    linreg.run(LinearRegression(2, lr=0.05), table(), name="p", max_epochs=1)
    for more, changed in ({}, []), ({"batch_size": 16}, ["data.init_args.batch_size: 8 -> 16"]):
        capfd.readouterr()
        epochs = load(LAST)["epoch"] + 2
        args = {"target": "y", "missing_values": [-999], "batch_size": 8} | more
        linreg.run(LinearRegression(2, lr=0.05), CSVData("t.csv", **args), max_epochs=epochs, ckpt_path=LAST)
        said = capfd.readouterr().out.partition("as before but for:\n")[2].partition("train ")[0]
        assert [line.strip() for line in said.splitlines()] == [
            f"trainer.max_epochs: {epochs - 1} -> {epochs}",
            *changed,
        ]


class Rows(RegressionData):
    """Of arrays, which no config can hold, in batches of a size of its own."""

    def __init__(self, x: Any, y: Any, noise: float = 0.0, **split: Any) -> None:
        super().__init__(batch_size=8, **split)
        self.x, self.y, self.noise = x, y, noise

    def load(self) -> Table:
        return Table(torch.as_tensor(self.x), torch.as_tensor(self.y))


def test_data_of_arrays_go_on_in_python(workplace: Path) -> None:
    x = np.random.default_rng(0).normal(size=(40, 2))
    for epochs, how in (1, {}), (2, {"ckpt_path": "last"}):
        data = Rows(x, x @ [[1.0], [2.0]], val_fraction=0.2)
        linreg.run(LinearRegression(2), data, name="p", max_epochs=epochs, enable_progress_bar=False, **how)
    config = yaml.safe_load(Path("runs/p/version_0/config.yaml").read_text())
    assert config["data"]["init_args"] == {  # what the class takes, of that what a config can hold
        **{"noise": 0.0, "val_fraction": 0.2, "test_fraction": 0.1, "split_seed": 0, "split": "random"},
        "drop_last": False,
    }
    assert config["trainer"]["enable_progress_bar"] is False
    assert load_model(LAST).hparams["num_features"] == 2


def test_an_older_run_that_has_kept_none_of_it_goes_on(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    linreg.run(LinearRegression(2, lr=0.05), table(), name="p", max_epochs=1)
    checkpoint = load(LAST)
    config = yaml.safe_load(checkpoint["config"])
    model = config["model"]
    data = {"class_path": "linreg.CSVData", "init_args": {}}
    torch.save(checkpoint | {"config": yaml.safe_dump({"model": model, "data": data})}, LAST)
    capfd.readouterr()
    linreg.run(LinearRegression(2, lr=0.05), table(), name="p", max_epochs=2, ckpt_path="last")
    assert "resume  after epoch 1, as before\n" in capfd.readouterr().out


def test_last_of_a_name_that_nobody_has_used(train: Train) -> None:
    table()
    flags = "--data.path", "t.csv", "--data.target", "y", "--max_epochs", "1"
    code, said = train(*flags, "--name", "mine")
    assert (code, "this is a new one" in said) == (0, False), said
    code, said = train(*flags, "--name", "mien", "--ckpt_path", "last")
    line = "no run of the name 'mien' has saved anything: this is a new one; did you mean 'mine'?"
    assert (code, said.count(line)) == (0, 1), said
    code, said = train(*flags, "--name", "mine", "--ckpt_path", "last")
    assert (code, "this is a new one" in said) == (0, False), said


def test_last_of_a_run_that_was_killed_before_it_had_saved(train: Train, workplace: Path) -> None:
    """It begins again, as a job does that is started anew by its own script; but nothing else in its place."""
    table()
    flags = "--data.path", "t.csv", "--data.target", "y", "--max_epochs", "1", "--name", "mine"
    assert train(*flags)[0] == 0
    shutil.rmtree("runs/mine/version_0/checkpoints")  # as a kill in the first epoch leaves it
    code, said = train("--name", "mine", "--ckpt_path", "last", "--max_epochs", "1")
    assert (code, Path("runs/mine/version_1").exists()) == (2, False), said
    assert "runs/mine/version_0 has saved nothing to go on from, and was begun otherwise (" in said.replace(os.sep, "/")
    assert "data.init_args.path: t.csv -> None" in said
    assert "did you mean" not in said
    config = Path("runs/mine/version_0/config.yaml")
    assert f"type its flags again, or --config {config}" in said
    for again in (flags, (*flags, "--model.lr", "0.1"), ("--name", "mine", "--config", config)):
        code, said = train(*again, "--ckpt_path", "last")
        assert (code, "this is a new one" in said) == (0, True), said
        shutil.rmtree("runs/mine/version_1")


def test_a_resume_that_fails_before_a_step_says_what_is_true(train: Train) -> None:
    flags = "--data.num_rows", "100", "--max_epochs"
    assert train(*flags, "1", "--name", "p")[0] == 0
    metrics = Path("runs/p/version_0/metrics.json").read_text()
    Path("runs/p/version_0/.lock").mkdir()
    code, said = train("--ckpt_path", LAST, *flags, "2")
    assert (code, "no step was taken" in said, "no epoch" in said) == (1, True, False), said
    Path("runs/p/version_0/.lock").rmdir()
    checkpoint = load(LAST)
    for name, weights in checkpoint["state_dict"].items():
        if "standardizer" not in name:
            weights.mul_(math.nan)
    torch.save(checkpoint, LAST)
    code, said = train("--ckpt_path", LAST, *flags, "2")
    assert (code, "its training had diverged; take an earlier checkpoint" in said) == (1, True), said
    assert Path("runs/p/version_0/metrics.json").read_text() == metrics  # of the run that went well


def test_a_run_of_no_epoch_has_left_no_checkpoint(train: Train) -> None:
    code, said = train("--data.num_rows", "100", "--max_epochs", "0")
    assert (code, "report  of the weights, epoch 0 of 0" in said) == (0, True), said
    assert not [*Path("runs").rglob("*.ckpt")]


def test_a_divergence_counts_epochs_from_one(train: Train) -> None:
    code, said = train("--data.num_rows", "100", "--lr", "1e6", "--max_epochs", "3")
    assert (code, "in epoch 2, step 2" in " ".join(said.split())) == (1, True), said


def test_a_search_by_numpy_is_one_of_numbers(workplace: Path) -> None:
    for name, kind in (("numpy", np.float64), ("python", float)):
        model, data = LinearRegression(3, lr=kind(0.1), weight_decay=kind(0)), SyntheticData(noise_std=kind(0.2))
        found = linreg.run(model, data, name, max_epochs=2)
        assert "lr: 0.1\n" in Path(found.folder, "config.yaml").read_text()
        assert load(found.folder / "checkpoints/last.ckpt")["hyper_parameters"]["lr"] == 0.1
    assert read_metrics("runs/numpy/version_0") == read_metrics("runs/python/version_0")


def test_a_search_by_numbers_of_any_kind(workplace: Path) -> None:
    model, data = LinearRegression(3, lr=np.float32(0.125)), SyntheticData(batch_size=np.int64(32))
    found = linreg.run(model, data, "kinds", max_epochs=np.int64(2), log_every_n_steps=np.int32(5))
    assert found.metrics["run"]["epochs"] == 2
    again = linreg.run(LinearRegression(3, lr=0.125), SyntheticData(batch_size=32), "plain", max_epochs=2)
    assert found.metrics["test"] == again.metrics["test"]


CURVE = """
from torch import nn
from linreg import Regressor

class Curve(Regressor):
    def __init__(self, num_features: int) -> None:
        hypothesis = nn.Sequential(nn.Linear(num_features, 8), nn.Dropout(0.2), nn.Linear(8, 1))
        super().__init__(hypothesis, num_features, optimizer="Adam", lr=0.01)
        self.save_hyperparameters()
"""


@pytest.fixture
def curve(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A class of the current folder, whose first weights are drawn."""
    Path("curve.py").write_text(CURVE)
    monkeypatch.syspath_prepend(str(workplace))
    yield importlib.import_module("curve").Curve
    del sys.modules["curve"]


def test_first_weights_without_a_seed_are_told_of(curve: Any, train: Train, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("seeded", "second", "none", "again"):
        if name == "none":
            torch.seed()
        elif name != "second":
            lightning.seed_everything(0, verbose=False)
        linreg.run(curve(3), SyntheticData(num_rows=100), name=name, max_epochs=2)
        text = Path("runs", name, "version_0/config.yaml").read_text()
        assert yaml.safe_load(text).get("seed_everything") == (None if name == "none" else 0)
        assert "if that seed was set right before the model was made" in text
        said = "lightning.seed_everything was not called for this model" in " ".join(capfd.readouterr().out.split())
        assert said is (name in ("second", "none"))
    linreg.run(LinearRegression(3), SyntheticData(num_rows=100), max_epochs=1)
    assert "seed_everything" not in capfd.readouterr().out  # they are 0
    torch.seed()  # as a new process would
    linreg.run(curve(3), SyntheticData(num_rows=100), name="seeded", ckpt_path="last", max_epochs=3)
    assert "seed_everything: " not in capfd.readouterr().out
    lightning.seed_everything(0, verbose=False)
    linreg.run(curve(3), SyntheticData(num_rows=100), name="whole", max_epochs=3)
    assert train("--config", "runs/seeded/version_0/config.yaml", "--name", "typed")[0] == 0
    names = ("seeded", "whole", "typed", "second", "again")
    found = {name: load(f"runs/{name}/version_0/checkpoints/last.ckpt")["state_dict"] for name in names}
    assert_same(found["seeded"], found["whole"])
    assert_same(found["seeded"], found["typed"])
    assert any(not torch.equal(found["again"][key], value) for key, value in found["second"].items())


def test_the_members_of_an_ensemble_differ(curve: Any) -> None:
    first = []
    for ends in (False, False, True, True):  # by a divergence as by itself: all is as if no run had been
        lightning.seed_everything(0, verbose=False)
        for _ in range(2):
            model = curve(3)
            first.append(float(model.hypothesis[0].weight.detach()[0, 0]))
            with nullcontext() if ends else pytest.raises(RunError):
                linreg.run(model, SyntheticData(num_rows=100), max_epochs=2, callbacks=[] if ends else [Breaks()])
        first.append(random.random() + np.random.rand())
    assert len({*first}) == 3
    assert first[:3] * 4 == first


class Breaks(lightning.Callback):
    def on_train_batch_end(self, *args: Any) -> None:
        raise RunError("in the middle")


def test_two_runs_of_one_model_without_a_seed_differ(curve: Any) -> None:
    torch.seed()
    model = curve(3)
    data = SyntheticData(num_rows=200, batch_size=16)  # for the first step of Adam's is the sign of the gradient
    losses = [linreg.run(copy.deepcopy(model), data, max_epochs=2).metrics["train"] for _ in range(2)]
    assert losses[0] != losses[1]


class Dated(SyntheticData):
    def __init__(self, day: Any) -> None:
        super().__init__(num_rows=50)
        self.save_hyperparameters()


@pytest.mark.parametrize("day", [np.datetime64("2024-01-01"), date(2024, 1, 1)])
def test_a_moment_is_refused_before_the_training(day: Any, workplace: Path) -> None:
    with pytest.raises(InputError, match="argument 'day' is or holds a date"):
        linreg.run(LinearRegression(3, lr=0.1), Dated([day]), max_epochs=1)
    assert not Path("runs").exists()


ROWS = torch.utils.data.TensorDataset(torch.zeros(8, 3), torch.zeros(8, 1))
FORKS = DDPStrategy(start_method="fork")
MISTAKES: dict[str, tuple[Callable[[], Any], str]] = {
    "a dataset": (lambda: linreg.run(LinearRegression(3), ROWS), "a TensorDataset, .*from_datasets"),
    "a text": (lambda: linreg.run(LinearRegression(3), "t.csv"), "a str, .*LightningDataModule"),
    "a class": (lambda: linreg.run(LinearRegression, SyntheticData()), "the class LinearRegression"),
    "a net": (lambda: linreg.run(nn.Linear(3, 1), SyntheticData()), "a Linear, .*hypothesis of a Regressor"),
    "a flag": (lambda: linreg.run(LinearRegression(3), SyntheticData(), max_epoch=3), "did you mean 'max_epochs'"),
    "a rate's text": (lambda: LinearRegression(3, lr="0.1"), "lr='0.1': a finite number"),
    "a rate": (lambda: linreg.run(LinearRegression(3, lr=-1), SyntheticData()), "lr=-1"),
    "a device": (lambda: linreg.run(LinearRegression(3), SyntheticData(), accelerator="abacus"), "abacus"),
    "devices": (lambda: linreg.run(LinearRegression(3), SyntheticData(), devices=999), "devices 999"),
    "forks": (lambda: linreg.run(LinearRegression(3), SyntheticData(), devices=2, strategy=FORKS), "give ddp"),
    "a name": (lambda: linreg.run(LinearRegression(3), SyntheticData(), name="../x"), "name '../x'"),
    "no name": (lambda: linreg.run(LinearRegression(3), SyntheticData(), name=3), "name '3'"),
    "a path": (lambda: linreg.run(LinearRegression(3), SyntheticData(), ckpt_path="no.ckpt"), "no.ckpt: no such"),
    "a number": (lambda: linreg.run(LinearRegression(3), SyntheticData(), callbacks=3), "callbacks: 3"),
    "a logger": (lambda: linreg.run(LinearRegression(3), SyntheticData(), logger="csv"), "the logger"),
    "a mode": (lambda: linreg.run(LinearRegression(3), SyntheticData(), monitor="lr", mode="least"), "least"),
    "a share": (lambda: linreg.run(LinearRegression(3), SyntheticData(), check="x"), "--check 'x': a number"),
    "a chunk": (lambda: linreg.run(LinearRegression(3), SyntheticData(), chunk=2.5), "--chunk 2.5: a whole number"),
    "saves": (lambda: linreg.run(LinearRegression(3), SyntheticData(), save_every_n_steps="a"), "steps 'a': a whole"),
    "epochs": (lambda: linreg.run(LinearRegression(3), SyntheticData(), max_epochs="3"), "--max_epochs '3': a number"),
    "features": (lambda: linreg.run(LinearRegression(4), SyntheticData()), "num_features=4"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_an_input_error(mistake: str, workplace: Path) -> None:
    call, words = MISTAKES[mistake]
    with pytest.raises(InputError, match=words):
        call()
    assert not list(Path().rglob("*.ckpt"))


def test_a_checkpoint_callback_of_ones_own_needs_no_path(workplace: Path) -> None:
    class Mine(Checkpoint):
        """Lightning's class has no best_model_path."""

    found = linreg.run(LinearRegression(3, lr=0.05), SyntheticData(), max_epochs=1, callbacks=[Mine()])
    assert found.metrics["run"]["epochs"] == 1
