"""Schedules in shares of a run's own steps, against their formulas and the rates that a run has logged."""

import importlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from linreg import InputError, WarmupConstant, WarmupCosine, WarmupLinear
from tests.conftest import Train
from tests.tools import assert_same, load

LAST = "runs/{}/version_0/checkpoints/last.ckpt"
RUN = ["--data.num_rows", 500, "--data.batch_size", 40, "--model.lr", 0.1]  # 10 steps an epoch


def rates(schedule: type, steps: int, **settings: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler, found = schedule(optimizer, steps, **settings), []
    for _ in range(steps + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_each_is_its_formula() -> None:
    rise = [0.5 * (k + 1) / 5 for k in range(5)]
    assert rates(WarmupConstant, 20, warmup=0.25) == pytest.approx([*rise, *[0.5] * 16])
    fall = [(k - 5) / 15 for k in range(5, 21)]
    assert rates(WarmupLinear, 20, warmup=0.25) == pytest.approx([*rise, *[0.5 * (1 - p) for p in fall]])
    cosine = [0.05 + 0.45 * (1 + math.cos(math.pi * p)) / 2 for p in fall]
    assert rates(WarmupCosine, 20, warmup=0.25, end=0.1) == pytest.approx([*rise, *cosine])
    assert rates(WarmupLinear, 4, warmup=0) == pytest.approx([0.5, 0.375, 0.25, 0.125, 0.0])


@pytest.mark.parametrize("settings", [{"warmup": 1.0}, {"warmup": -0.1}, {"end": 1.5}])
def test_what_is_no_share_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        rates(WarmupCosine, 20, **settings)


def schedule(name: str, **init_args: Any) -> str:
    return str({"class_path": name, "init_args": init_args})


def group(name: str) -> dict[str, Any]:
    return load(LAST.format(name))["optimizer_states"][0]["param_groups"][0]


@pytest.mark.parametrize("flags", [[], ["--accumulate_grad_batches", 2], ["--max_steps", 25], ["--chunk", 3]])
def test_its_share_is_of_the_steps_of_the_run(flags: list[object], train: Train) -> None:
    typed = [*RUN, "--max_epochs", 3, *flags, "--model.lr_scheduler"]
    code, out = train(*typed, schedule("linreg.WarmupCosine", warmup=0.1, end=0.2))
    assert code == 0, out
    content = load(LAST.format("default"))
    (state,) = content["lr_schedulers"]
    steps = {"--accumulate_grad_batches": 15, "--max_steps": 25}.get(str([*flags, ""][0]), 30)
    assert state["total_steps"] == state["last_epoch"] == content["global_step"] == steps
    assert group("default")["lr"] == pytest.approx(0.02)


def test_a_run_whose_steps_nobody_can_count_says_so(train: Train) -> None:
    code, out = train(*RUN, "--model.lr_scheduler", "WarmupLinear")
    assert code == 2
    assert out.splitlines()[-1].startswith("error: lr_scheduler WarmupLinear: the steps of this run cannot be counted")
    assert "--max_epochs" in out


def test_a_run_that_goes_on_for_longer_keeps_its_place(train: Train) -> None:
    typed = [*RUN, "--model.lr_scheduler", "WarmupCosine"]
    assert train(*typed, "--max_epochs", 2, "--name", "two")[0] == 0
    code, out = train("--ckpt_path", LAST.format("two"), "--max_epochs", 4)
    assert code == 0, out
    assert "the schedule of the rate spans 40 steps, no longer 20" in out
    assert load(LAST.format("two"))["lr_schedulers"][0]["last_epoch"] == 40
    assert group("two")["lr"] == 0.0
    code, out = train("--ckpt_path", LAST.format("two"), "--max_epochs", 8, "--max_steps", 60)
    assert code == 0, out
    assert load(LAST.format("two"))["lr_schedulers"][0]["total_steps"] == 60


@pytest.mark.parametrize(
    "name", [schedule("torch.optim.lr_scheduler.OneCycleLR", max_lr=0.1), schedule("linreg.WarmupCosine", warmup=0.2)]
)
def test_a_run_that_was_stopped_goes_on_exactly(name: str, train: Train) -> None:
    typed = [*RUN, "--max_epochs", 4, "--model.lr_scheduler", name]
    assert (found := train(*typed, "--name", "whole"))[0] == 0, found[1]
    Path("stopper.py").write_text(
        "from lightning.pytorch import Callback\nclass Stop(Callback):\n"
        "    def on_train_epoch_end(self, trainer, pl_module):\n"
        "        trainer.should_stop |= trainer.current_epoch == 1\n"
    )
    code, out = train(*typed, "--name", "part", "--callbacks", "stopper.Stop")
    assert code == 0, out
    assert load(LAST.format("part"))["global_step"] < 40
    code, out = train("--ckpt_path", LAST.format("part"), "--callbacks", "[]")
    assert code == 0, out
    one, two = (load(LAST.format(each)) for each in ("whole", "part"))
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        assert_same(one[part], two[part])
    assert one["lr_schedulers"][0]["total_steps"] == 40


SEEN = """
from lightning.pytorch import Callback

class Seen(Callback):
    steps = []
    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.steps.append([optimizer.param_groups[0][name] for name in ("lr", "momentum")])
"""
Stepped = Callable[..., torch.Tensor]


@pytest.fixture
def stepped(train: Train, workplace: Path) -> Stepped:
    """Trains, and returns the rate and the momentum of each step."""
    Path("seen.py").write_text(SEEN)

    def run(*flags: object) -> torch.Tensor:
        steps: list[list[float]] = importlib.import_module("seen").Seen.steps
        steps.clear()
        code, out = train(*flags, "--callbacks", "seen.Seen")
        assert code == 0, out
        return torch.tensor(steps)

    return run


EXPONENTIAL, LINEAR, CONSTANT, ONE_CYCLE = (
    schedule(f"torch.optim.lr_scheduler.{name}", **settings)
    for name, settings in [
        ("ExponentialLR", {"gamma": 0.5}),
        ("LinearLR", {}),
        ("ConstantLR", {"factor": 0.1, "total_iters": 2}),
        ("OneCycleLR", {"max_lr": 0.2}),
    ]
)


IN_EPOCHS = ONE_CYCLE.replace("}}", "}, 'interval': 'epoch'}")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        *(("null", "WarmupCosine"), (EXPONENTIAL, LINEAR), (EXPONENTIAL, CONSTANT)),
        *((EXPONENTIAL, ONE_CYCLE), (ONE_CYCLE, EXPONENTIAL)),
    ],
)
def test_another_schedule_begins_as_in_a_new_run(before: str, after: str, stepped: Stepped) -> None:
    stepped(*RUN, "--max_epochs", 2, "--model.lr_scheduler", before)
    found = stepped("--ckpt_path", "last", "--max_epochs", 6, "--model.lr_scheduler", after)
    fresh = stepped(*RUN, "--max_epochs", 6, "--model.lr_scheduler", after, "--name", "fresh")
    assert_same(found, fresh[:40])


@pytest.mark.filterwarnings("ignore:A .OneCycleLR. scheduler is using 'interval'")
def test_a_cycle_in_epochs_spans_the_epochs(stepped: Stepped) -> None:
    for more in (["--max_epochs", 10], ["--max_epochs", 99, "--max_steps", 95]):
        rates = stepped(*RUN, *more, "--model.lr_scheduler", IN_EPOCHS)[:, 0]
        assert (float(rates.max()), float(rates[-1])) == pytest.approx((0.2, 0.2 / 25e4))


@pytest.mark.parametrize(
    ("name", "epochs", "settings"),
    [
        *(
            ("WarmupCosine", 5, ["--lr", 0.05]),
            (EXPONENTIAL, 5, ["--lr", 0.05]),
            (ONE_CYCLE, 5, []),
            (IN_EPOCHS, 5, []),
        ),
        *((ONE_CYCLE, 6, ["--batch_size", 80]), ("WarmupLinear", 8, ["--batch_size", 80])),  # longer, and as long
    ],
)
@pytest.mark.filterwarnings("ignore:A .OneCycleLR. scheduler is using 'interval'")
def test_a_schedule_goes_on_as_if_the_run_had_begun_so(
    name: str, epochs: int, settings: list[object], stepped: Stepped
) -> None:
    stepped(*RUN, "--max_epochs", 4, "--model.lr_scheduler", name)
    found = stepped("--ckpt_path", "last", "--max_epochs", epochs, *settings)
    fresh = stepped(*RUN, "--max_epochs", epochs, "--model.lr_scheduler", name, *settings, "--name", "fresh")
    assert_same(found, fresh[-len(found) :], 1e-8)
    assert len(fresh) * (epochs - 4) == len(found) * epochs


TWO = """
import torch
from linreg import Module, WarmupCosine

class Net(Module):
    def __init__(self, rate: float = 0.5) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.one, self.two = torch.nn.Linear(3, 1), torch.nn.Linear(3, 1)

    def step(self, batch):
        return (self.one(batch[0].float()) + self.two(batch[0].float()) - batch[1].float()).square().mean()

    def training_step(self, batch, batch_idx):
        loss = self.step(batch)
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            optimizer.step()
            optimizer.zero_grad()
        self.lr_schedulers()[0].step()
        return loss

    def on_train_epoch_end(self):
        super().on_train_epoch_end()
        self.lr_schedulers()[1].step()

    def configure_optimizers(self):
        one = torch.optim.SGD(self.one.parameters(), lr=0.1)
        two = torch.optim.SGD(self.two.parameters(), lr=self.hparams.rate)
        cosine = WarmupCosine(one, self.trainer.estimated_stepping_batches)
        return [one, two], [{"scheduler": cosine, "interval": "step"}, torch.optim.lr_scheduler.StepLR(two, 1)]
"""


def test_each_of_two_schedules_goes_on_with_its_own_rate(train: Train, workplace: Path) -> None:
    Path("mine.py").write_text(TWO)
    typed = ["--model", "mine.Net", *RUN[:4]]
    assert (found := train(*typed, "--max_epochs", 2))[0] == 0, found[1]
    code, out = train("--ckpt_path", LAST.format("default"), "--max_epochs", 4, "--model.rate", 0.25)
    assert code == 0, out
    assert "the schedule of the rate spans 40 steps, no longer 20" in out
    one, two = (load(LAST.format("default"))["optimizer_states"][i]["param_groups"][0]["lr"] for i in range(2))
    assert (one, two) == (0.0, pytest.approx(0.25e-4))
    assert [each["base_lrs"] for each in load(LAST.format("default"))["lr_schedulers"]] == [[0.1], [0.25]]


def test_what_cannot_be_given_by_name(train: Train) -> None:
    code, out = train(*RUN, "--model.lr_scheduler", "SequentialLR", "--max_epochs", 2)
    assert (code, "WarmupCosine" in out) == (2, True)
    code, out = train(*RUN, "--model.lr_scheduler", "CosineAnnealingLR", "--max_epochs", 2)
    assert (code, "T_max" in out) == (2, True)
    code, out = train(*RUN, "--model.lr_scheduler", "WarmupCosin", "--max_epochs", 2)
    assert (code, "did you mean 'WarmupCosine'?" in out) == (2, True)
    epochs = "{class_path: linreg.WarmupCosine, interval: epoch}"
    code, out = train(*RUN, "--model.lr_scheduler", epochs, "--max_epochs", 2)
    assert (code, "counts steps" in out) == (2, True)


BARE = """
import lightning.pytorch as pl
import torch
from linreg import SyntheticData, WarmupLinear
from torch.utils.data import DataLoader, IterableDataset

class Net(pl.LightningModule):
    def __init__(self, interval: str = "step"):
        super().__init__()
        self.save_hyperparameters()
        self.net = torch.nn.Linear(3, 1)
    def training_step(self, batch, batch_idx):
        return (self.net(batch[0].float()) - batch[1].float()).square().mean()
    def validation_step(self, batch, batch_idx):
        pass
    def test_step(self, batch, batch_idx):
        pass
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        schedule = WarmupLinear(optimizer, self.trainer.estimated_stepping_batches, warmup=0.2, end=0.5)
        return [optimizer], [{"scheduler": schedule, "interval": self.hparams.interval}]

class Stream(SyntheticData):
    def train_dataloader(self):
        class Rows(IterableDataset):
            def __iter__(inner):
                return iter(zip(*self.splits["train"]))
        return DataLoader(Rows(), 40)
"""


@pytest.mark.filterwarnings("ignore:The '.*dataloader' does not have many workers")
def test_a_bare_module_has_it_too(train: Train, workplace: Path) -> None:
    Path("mine.py").write_text(BARE)
    typed = ["--model", "mine.Net", "--data.num_rows", 500, "--data.batch_size", 40]
    code, out = train(*typed, "--max_epochs", 2)
    assert code == 0, out
    assert group("default")["lr"] == pytest.approx(0.05)
    assert ", lr 0.1 (from 0.025); at most 2 epochs" in out, out
    code, out = train(*typed, "--max_epochs", 2, "--model.interval", "epoch")
    assert code == 2
    assert "interval: step" in out
    code, out = train(*typed, "--data", "mine.Stream", "--max_epochs", 2)
    assert code == 2
    assert "--max_steps" in out
    code, out = train(*typed, "--data", "mine.Stream", "--max_steps", 14, "--name", "stream")
    assert code == 0, out
    assert group("stream")["lr"] == pytest.approx(0.05)
