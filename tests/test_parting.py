"""Two processes that part: by the rows they loaded, by what a search for a step found, or by where they wait."""

import signal
import subprocess
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from tests.conftest import LONG, completed, posix, started
from tests.test_many import CLEAN, ENDLESS, both, command, until
from tests.tools import load, scalars

pytestmark = [posix, pytest.mark.slow]
TWO = ["--devices", 2, "--accelerator", "cpu"]
MINE = """
import os
import sys
import numpy as np
import torch
from torch import nn
from torchmetrics import MeanMetric
from linreg import DataModule, LinearRegression, Module
from linreg.processes import ends

ends.PATIENCE = 2.0
second = os.environ.get("LOCAL_RANK") == "1"

class Unseeded(DataModule):
    def load(self):
        x = np.random.default_rng().normal(size=(60, 3))
        return x, x.sum(axis=1, keepdims=True)

class Leaving(DataModule):
    def load(self):
        if second:
            sys.exit(0)
        return torch.zeros(60, 3), torch.zeros(60, 1)

class Noisy(torch.utils.data.Dataset):
    def __len__(self):
        return 60
    def __getitem__(self, i):
        x = torch.from_numpy(np.random.default_rng().normal(size=3)).float()  # as augmentation may draw
        return x, x.sum()[None]

class Drawing(DataModule):
    def load(self):
        return Noisy()

class Plain(Module):
    def __init__(self, **training):
        super().__init__(nn.Linear(3, 1), lr=0.05)
    def loss(self, y_hat, y):
        return (y_hat - y).square().mean()

class Together(LinearRegression):
    pass

class Alone(LinearRegression):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        if self.trainer.is_global_zero and self.trainer.current_epoch == 1:
            self.log("alone", loss.detach())
        return loss

ENDS = {"on_step": False, "on_epoch": True}

class Some(LinearRegression):
    def training_step(self, batch, batch_idx):
        for name in ("a", "b", "theirs") if second else ("b", "a"):
            self.log(name, float(ord(name[0])), **ENDS)
        return super().training_step(batch, batch_idx)
    def validation_step(self, batch, batch_idx):
        if not second:
            self.log("seen", 4.0)
        super().validation_step(batch, batch_idx)
    def on_validation_epoch_end(self):
        super().on_validation_epoch_end()
        if not second:
            self.log("end", 5.0)

class ByTask(LinearRegression):
    def training_step(self, batch, batch_idx):
        self.log(f"task{int(second)}", 1.0)
        return super().training_step(batch, batch_idx)

class OwnMetric(LinearRegression):
    def __init__(self, num_features, **training):
        super().__init__(num_features, **training)
        self.mean = MeanMetric()
    def training_step(self, batch, batch_idx):
        if not second:
            self.mean.update(1.0)
            self.log("mean", self.mean, **ENDS)
        return super().training_step(batch, batch_idx)
"""


@pytest.mark.parametrize(
    ("data", "code", "said"),
    [
        ("Unseeded", 2, "three rows of Rows, summed up: process 1 has "),
        ("Leaving", 1, "error: another process of the run was lost"),
        ("Drawing", 0, ""),
    ],
)
def test_rows_are_those_of_the_other_process(data: str, code: int, said: str, workplace: Path) -> None:
    Path("mine.py").write_text(MINE)
    line = command("--model", "mine.Plain", "--data", f"mine.{data}", "--max_epochs", 1, *TWO)
    done = completed(line, env=CLEAN | {"PYTHONPATH": "."})
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_search_for_a_step_is_that_of_one_process(workplace: Path) -> None:
    """LBFGS asks what the loss is, and goes on by it: by that of a part of the rows each would go elsewhere."""
    optimizer = "{class_path: torch.optim.LBFGS, init_args: {line_search_fn: strong_wolfe, max_iter: 6}}"
    flags = ["--model.optimizer", optimizer, "--model.lr", 1, "--data.num_rows", 203, "--data.batch_size", 33]
    for name, devices in (("one", []), ("two", TWO)):
        done = completed(command(*flags, "--max_epochs", 2, "--name", name, *devices), env=CLEAN)
        assert done.returncode == 0, done.stderr
    states = [load(f"runs/{name}/version_0/checkpoints/last.ckpt")["state_dict"] for name in ("one", "two")]
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, rtol=0, atol=1e-3)  # a search enlarges what rounding parts


def test_what_some_log_is_theirs(workplace: Path) -> None:
    """It was taken for what another process logs, in the order in which each does."""
    Path("mine.py").write_text(MINE)
    for name, devices in (("one", []), ("two", TWO)):
        line = command("--model", "mine.Some", "--model.lr", 0.05, "--max_epochs", 2, "--name", name, *devices)
        done = completed(line, env=CLEAN | {"PYTHONPATH": "."})
        assert done.returncode == 0, done.stderr
    one, two = (scalars(f"runs/{name}/version_0") for name in ("one", "two"))
    for tag, expected in {"a": 97, "b": 98, "theirs": 116, "seen": 4, "end": 5}.items():
        assert [value for _, value in two[tag]] == [expected] * 2
    assert [value for _, value in two["loss/val"]] == pytest.approx([value for _, value in one["loss/val"]], rel=1e-5)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("ByTask", "in a step where another process has logged something else; log it in all of them"),
        ("OwnMetric", "the metric 'mean' was logged by process 0 only; log it in all of them"),
    ],
)
def test_what_only_some_log_and_cannot(model: str, said: str, workplace: Path) -> None:
    Path("mine.py").write_text(MINE)
    done = completed(command(*ENDLESS, "--model", f"mine.{model}", *TWO), env=CLEAN | {"PYTHONPATH": "."})
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def line_of(run: subprocess.Popen[str], *parts: str) -> str:
    """The first line of a process's errors that holds all of some parts; it is ended if none comes."""
    assert run.stderr is not None
    timer = threading.Timer(LONG, run.kill)
    timer.start()
    found = next((line for line in run.stderr if all(part in line for part in parts)), "")
    timer.cancel()
    return found


def test_who_waits_says_where(workplace: Path) -> None:
    """One that logs alone, and one that is stopped: the other would wait without a word."""
    Path("mine.py").write_text(MINE)
    waits = "waits for the others, for 2 s so far, in "
    with started(command(*ENDLESS, "--model", "mine.Alone", *TWO), env=CLEAN | {"PYTHONPATH": "."}) as run:
        where = "in self.log('alone') of training_step ("
        assert line_of(run, "process 0 ", waits, where, "mine.py, line ", "does one of them log")
        run.send_signal(signal.SIGTERM)
        run.communicate(timeout=LONG)
    with ExitStack() as stack:
        first, second = both(stack, "--model", "mine.Together", "--name", "still")
        until(lambda: Path("runs/still/version_0/checkpoints/last.ckpt").exists())
        second.send_signal(signal.SIGSTOP)
        assert line_of(first, "process 0 ", waits)
        first.kill()
        second.kill()
