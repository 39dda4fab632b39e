"""The doctor: finds the one fault that a model or its data have, and none in what is sound."""

import copy
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

import linreg
from linreg import DataModule, LinearRegression, RegressionData, SyntheticData
from linreg.checks import doctor as module
from linreg.checks import rows as row_checks
from linreg.examples.gpt import GPT
from linreg.tables.batches import TensorBatches
from linreg.verdict import Verdict, judge
from tests import sound
from tests.conftest import ROOT, Process, Train
from tests.sound import SOUND, Net, Rows

NEW_PROCESS = "loads_in_a_new_process"
Given = tuple[Any, Any, dict[str, Any]]


class Classes(Net):
    def build(self) -> nn.Module:
        return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(y_hat, y)


class BoldStart(Classes):
    def build(self) -> nn.Module:
        net = super().build()
        nn.init.normal_(net[-1].weight, std=10)
        return net


class SoftmaxTwice(Classes):
    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(y_hat.softmax(1), y)


class Frozen(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.net[2](self.net[1](self.net[0](x)).detach())


class Forgotten(Net):
    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.net[0].parameters(), self.hparams.lr)


class Dead(Net):
    """Only a part of it is, which the rest can do without."""

    def build(self) -> nn.Module:
        self.other = super().build()
        net = super().build()
        nn.init.constant_(net[0].bias, -100)
        return net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) + self.other(x)


class PlainList(Net):
    def build(self) -> nn.Module:
        self.hidden = [nn.Linear(8, 8)]
        return super().build()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.hidden[0].to(x.dtype)(x).relu())


class NoStep(Net):
    automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.manual_backward(loss := self.loss(self(batch[0]), batch[1]))
        return loss


class KeepsGradients(NoStep):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.optimizers().step()
        return loss


class StepsTwice(NoStep):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.optimizers().zero_grad()
        loss = super().training_step(batch, batch_idx)
        self.optimizers().step()
        self.optimizers().step()
        return loss


class TrainsOn(Net):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.train()
        super().validation_step(batch, batch_idx)


class TwiceTheGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * gradient


class WrongBackward(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.net[2](TwiceTheGradient.apply(self.net[1](self.net[0](x))))


class Broadcasting(Net):
    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(y_hat, y.squeeze(1))


class BroadcastingByHand(Net):
    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        return ((y_hat - y.squeeze(1)) ** 2).mean()


class Counts(Net):
    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        return F.poisson_nll_loss(y_hat, y.squeeze(1))


class Minus(Net):
    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        return -F.mse_loss(y_hat, y)


class Mixed(sound.Characters):
    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(y_hat.flatten(0, 1), y.T.flatten())


class RateGone(Net):
    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), 1e-2)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Summing(Net):
    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(y_hat, y, reduction="sum")


class Gregarious(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x - x.mean(0))


class GregariousStep(Net):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return self.loss(self(x - x.mean(0)), y)


class GregariousDict(Gregarious):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step((batch["x"], batch["y"]), batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step((batch["x"], batch["y"]), batch_idx)


class Cheating(Net):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(self(batch[0]) + 0.1 * batch[1], batch[1])


class Clairvoyant(sound.Characters):
    def forward(self, x: Tensor) -> Tensor:
        h = self.letters(x) + self.places(torch.arange(x.shape[1]))
        n = self.norms[0](h)
        h = h + self.attention(n, n, n, need_weights=False)[0]
        return self.net(self.norms[2](h + self.mlp(self.norms[1](h))))


class Unshifted(sound.Translator):
    def given(self, y: Tensor) -> Tensor:
        return y


class SeesTheNext(GPT):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.token(x) + self.place.weight[: x.shape[1]]))


class Letters(DataModule):
    """Rows of letters that repeat themselves, and some that do not."""

    def load(self) -> Any:
        g = torch.Generator().manual_seed(0)
        rows = (torch.randint(0, 3, (400, 1), generator=g) + torch.arange(9)) % 3
        return rows.where(torch.rand(400, 9, generator=g) < 0.8, 1)


class Copies(GPT):
    def step(self, batch: Any) -> Tensor:
        return F.cross_entropy(self(batch[:, :-1]).transpose(1, 2), batch[:, :-1])


class SharedRows(Rows):
    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.val = self.train


class SplitAnew(Rows):
    """By whatever is drawn next, for each stage."""

    def setup(self, stage: str) -> None:
        self.train, self.val = torch.utils.data.random_split(
            TensorDataset(*self.make(torch.Generator().manual_seed(self.seed))), [0.8, 0.2]
        )

    def test_dataloader(self) -> DataLoader:
        return DataLoader(self.val, self.batch_size)


class SplitAnewByNumpy(SplitAnew):
    def setup(self, stage: str) -> None:
        rows = TensorDataset(*self.make(torch.Generator().manual_seed(self.seed)))
        order = np.random.permutation(len(rows)).tolist()
        self.train, self.val = Subset(rows, order[100:]), Subset(rows, order[:100])


class Climbing(torch.optim.SGD):
    """Steps along the gradient a little way uphill, and is itself the optimizer within."""

    @torch.no_grad()
    def step(self, closure: Any) -> Any:
        with torch.enable_grad():
            loss = closure()
        moved = [(p, 0.01 * p.grad) for group in self.param_groups for p in group["params"]]
        for p, way in moved:
            p.add_(way)
        with torch.enable_grad():
            closure()
        for p, way in moved:
            p.sub_(way)
        super().step()
        return loss


class Climbs(Net):
    optimizer = Climbing


class Refusing(Callback):
    """What it keeps it does not take back."""

    def state_dict(self) -> dict[str, Any]:
        return {"size": 3}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        raise ValueError(f"a size of {state_dict['size']}")


class EachSecond(NoStep):
    """Gradients of two batches are summed by hand, or of more."""

    batches = 2

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        if (batch_idx + 1) % self.batches == 0:
            self.optimizers().step()
            self.optimizers().zero_grad()
        return loss


class EachFifth(EachSecond):
    batches = 5


def overlapping(g: torch.Generator) -> tuple[Tensor, Tensor]:
    series = torch.stack([torch.sin(torch.arange(420) / 3), torch.randn(420, generator=g)], 1)
    series[:, 0] += 0.1 * series[:, 1].roll(1)
    windows = series.unfold(0, 13, 1).transpose(1, 2)
    return windows[:, :12].contiguous(), windows[:, 12, :1].contiguous()


class Unseeded(DataModule):
    def __init__(self) -> None:
        super().__init__()
        assert self.num_features == 8  # as where a model is given it

    def load(self) -> TensorDataset:
        return TensorDataset(*sound.table(torch.Generator().manual_seed(int.from_bytes(os.urandom(4), "big"))))


class UnknownClass(DataModule):
    def __init__(self, **split: Any) -> None:
        super().__init__(split="order", **split)

    def load(self) -> TensorDataset:
        x, y = sound.classes(torch.Generator().manual_seed(0))
        order = torch.cat([(y < 2).nonzero().flatten(), (y == 2).nonzero().flatten()[:80]])
        return TensorDataset(x[order], y[order])


class ValidationCounts(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x - self.center)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        self.center.lerp_(batch[0].mean(0), 0.1)


class Urandom(Net):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) * (1 + os.urandom(1)[0] / 1000)


class SeedsItself(Net):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        torch.manual_seed(0)
        return super().training_step(batch, batch_idx)


class Forgetful(Net):
    steps = 0

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.steps += 1
        return super().training_step(batch, batch_idx) / self.steps


class UnsavedAverage(Net):
    def __init__(self) -> None:
        super().__init__()
        vars(self)["average"] = copy.deepcopy(self.net)

    def on_train_batch_end(self, *args: Any) -> None:
        for mean, p in zip(self.average.parameters(), self.net.parameters(), strict=True):
            mean.data.lerp_(p.data, 0.1)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("loss/val", self.loss(self.average(batch[0]), batch[1]))


class UnsavedCenter(Net):
    center = 0.0

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x - self.center)

    def on_train_start(self) -> None:
        self.center = 0.5


class Unsaved(Net):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 1))

    def save_hyperparameters(self, *args: Any, **kwargs: Any) -> None:
        pass

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), 3e-3)


class DropsAlways(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.net[2](F.dropout(self.net[1](self.net[0](x)), 0.2))


class StillStatistics(sound.DropoutAndBatchNorm):
    def build(self) -> nn.Module:
        net = super().build()
        net[1].momentum = 0.0
        return net


class Scores(Classes):
    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        return F.nll_loss(y_hat, y)


class Ignoring(Classes):
    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(y_hat, y, ignore_index=0)


class Shrinking(Net):
    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), self.hparams.lr, weight_decay=30.0)


class OtherUnits(Net):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return self.loss(self(x), 10 * y)


class Upwards(Net):
    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 1e-2, maximize=True)


class Imprecise(Net):
    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        return ((y_hat - y) ** 2).mean() + 1000 - (torch.ones(1, 1000) @ torch.full((1000, 1), 1.002)).mean()


class Unshared(RegressionData):
    """Its first process gets more of each batch than the second."""

    def load(self) -> linreg.Table:
        return SyntheticData(num_rows=400).load()

    def train_dataloader(self) -> Any:
        batches = TensorBatches(*self.splits["train"], 64, seed=0)
        cut = torch.arange(48), torch.arange(48, 64)
        return (
            batches
            if batches.world == 1
            else DataLoader([tuple(side[:64][cut[batches.rank]] for side in self.splits["train"])] * 4, batch_size=None)
        )


def change(how: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], make: Any = sound.table) -> Callable[..., Any]:
    return lambda g: how(*make(g))


def with_column(x: Tensor, column: Tensor) -> Tensor:
    return torch.cat([x[:, :7], column], 1)


class InOrder(Rows):
    def setup(self, stage: str) -> None:
        x, y = self.make(torch.Generator().manual_seed(self.seed))
        order = y[:, 0].argsort()
        self.train = TensorDataset(x[order[:400]], y[order[:400]])
        self.val = TensorDataset(x[order[400:]], y[order[400:]])


class Unshuffled(InOrder):
    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.val = TensorDataset(self.train[::4][0], self.train[::4][1])
        self.train = TensorDataset(self.train[1::4][0], self.train[1::4][1])

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train, 16)


class Reversed(Rows):
    def train_dataloader(self) -> DataLoader:
        def collate(rows: Any) -> Any:
            x, y = torch.utils.data.default_collate(rows)
            return x, y.flip(0)

        return DataLoader(self.train, self.batch_size, shuffle=True, collate_fn=collate)


class Sleeping(Rows):
    def train_dataloader(self) -> DataLoader:
        def collate(rows: Any) -> Any:
            time.sleep(0.05)
            return torch.utils.data.default_collate(rows)

        return DataLoader(self.train, self.batch_size, collate_fn=collate)


def missing(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    x[3, 2] = torch.nan
    return x, y


def outlier(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    x[3, 2] = 1e9
    return x, y


class Mistyped(SyntheticData):
    def load(self) -> linreg.Table:
        table = super().load()
        table.x[7, 1] = 1e9
        return table


class Answered(SyntheticData):
    def load(self) -> linreg.Table:
        table = super().load()
        table.y[::50] = -999  # no answer
        return table


def rows(how: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], make: Any = sound.table) -> Rows:
    return Rows(change(how, make))


class OverRows(Classes):
    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        return -y_hat.log_softmax(0).gather(1, y[:, None]).mean()


class OverRowsByHand(OverRows):
    """And trains by hand, and returns no loss."""

    automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.optimizers().zero_grad()
        self.manual_backward(self.loss(self(batch[0]), batch[1]))
        self.optimizers().step()


class NormalShuffled(sound.Uncertain):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(self(batch[0]), batch[1][torch.randperm(len(batch[1]))])


class NormalTurned(sound.Uncertain):
    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        mean, log_std = y_hat.chunk(2, 1)
        return (((y - mean) / log_std.exp()).square() / 2 - log_std).mean()


class KeepsTheGraph(Net):
    smoothed: Any = 0.0

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.smoothed = 0.9 * self.smoothed + 0.1 * loss
        return loss + 0.01 * self.smoothed


class SecondValidationFails(Net):
    def on_validation_epoch_end(self) -> None:
        if self.current_epoch == 1:
            raise RuntimeError("the second one fails")


class FrozenInTraining(sound.FrozenBackbone):
    """What it says in train() comes too late: a Trainer does not call it."""

    def build(self) -> nn.Module:
        return super().build().train()

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        self.net[:5].eval()
        return self


class DrawingTeacher(sound.Distilled):
    def build(self) -> nn.Module:
        net = super().build()
        self.teacher.train()
        return net


class NeverReset(Classes):
    def __init__(self) -> None:
        super().__init__()
        self.accuracy = MulticlassAccuracy(3)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        self.accuracy.update(self(batch[0]), batch[1])

    def on_validation_epoch_end(self) -> None:
        self.log("accuracy/val", self.accuracy.compute())


class NeverEmptied(Net):
    def __init__(self) -> None:
        super().__init__()
        self.losses: list[Tensor] = []

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.losses.append(self.loss(self(batch[0]), batch[1]))
        self.log("loss/val", torch.stack(self.losses).mean())


class AugmentsValidation(Classes):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step((batch[0] + torch.randn_like(batch[0]), batch[1]), batch_idx)


class ClassesShuffled(Classes):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(self(batch[0]), batch[1][torch.randperm(len(batch[1]))])


class ValidatesTheNext(Classes):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step((batch[0], (batch[1] + 1) % 3), batch_idx)


class PaddedMean(sound.MeanWord):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.words(x).mean(1))


class AfterPadding(sound.Tagger):
    """Its state after the last word, which may be padding."""

    def build(self) -> nn.Module:
        super().build()
        return nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, -1]

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(y_hat, y)


class PaddedLoss(sound.Tagger):
    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(y_hat.transpose(1, 2), y)


class PaddedShare(sound.Tagger):
    """Padding adds no loss, but counts."""

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        return (F.cross_entropy(y_hat.transpose(1, 2), y, reduction="none") * (y > 0)).mean()


class OtherScale(Rows):
    """Inputs of another split are left as they were before a scaler, or ToTensor."""

    def __init__(self, make: Any, how: Callable[[Tensor], Tensor], split: str = "val") -> None:
        super().__init__(make)
        self.how, self.split = how, split

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.test = self.val
        setattr(self, self.split, sound.Changed(self.val, self.how))

    def test_dataloader(self) -> DataLoader:
        return DataLoader(self.test, self.batch_size)


def in_units(x: Tensor) -> Tensor:
    """An age, an income, a year, a share, and what has no other unit."""
    return x * torch.tensor([12, 2e4, 5, 0.1, 30, 1, 1, 1]) + torch.tensor([40, 5e4, 2010, 0.3, 200, 0, 0, 0])


def grey(g: torch.Generator) -> tuple[Tensor, Tensor]:
    x, y = sound.pictures(g)
    return (x - x.min()) / (x.max() - x.min()), y


class Again(sound.Moved):
    """All rows are training rows, some of them also what is validated, or tested."""

    split, is_moved = "val", False

    def setup(self, stage: str) -> None:
        super().setup(stage)
        setattr(self, self.split, self.train if self.is_moved else self.train.rows)

    def test_dataloader(self) -> DataLoader:
        return DataLoader(getattr(self, "test", self.val), self.batch_size)


class AgainMoved(Again):
    is_moved = True


class AgainTested(Again):
    split = "test"


def moved(x: Tensor) -> Tensor:
    return x + 0.1 * torch.randn_like(x)


def cropped(x: Tensor) -> Tensor:
    """Turned round or not, moved by a pixel or not, and noise."""
    down, right = torch.randint(0, 3, (2,)).tolist()
    x = F.pad(x if torch.rand(()) < 0.5 else x.flip(-1), (1, 1, 1, 1))[..., down : down + 8, right : right + 8]
    return moved(x)


def smooth(g: torch.Generator) -> tuple[Tensor, Tensor]:
    x, y = sound.pictures(g)
    return F.avg_pool2d(F.pad(6 * torch.randn(x.shape, generator=g), (2, 2, 2, 2)), 5, 1) + x, y


LEARNS = {"max_epochs": 20}


class AverageStays(sound.Averaged):
    """Validates the average in the place of the weights, and never puts these back."""

    def on_validation_epoch_start(self) -> None:
        self.net.load_state_dict(self.average.module.state_dict())


class OneSteps(sound.Adversarial):
    """The critic's optimizer takes no step."""

    def take_step(self, optimizer: Any, is_critic: bool) -> None:
        if not is_critic:
            optimizer.step()


class RingBroadcasting(sound.Ring):
    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(y_hat, y.squeeze(1))


class OtherWords(Dataset[Any]):
    """A word of each row is another one each time."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Any:
        x, y = self.rows[i]
        x = x.clone()
        x[int(torch.randint(1, len(x), ()))] = torch.randint(3, 100, ())
        return x, y


class OtherLines(sound.Lines):
    def train_dataloader(self) -> DataLoader:
        return DataLoader(OtherWords(super().train_dataloader().dataset), 32, shuffle=True, collate_fn=self.collate)


class Collects(Net):
    """What it validates is appended to a list that an epoch begins with."""

    def on_validation_epoch_start(self) -> None:
        self.seen: list[Tensor] = []

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.seen.append(batch[0])
        super().validation_step(batch, batch_idx)


class KnowsAlready(Classes):
    """The loss of two rows is next to nothing before the first step."""

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(y_hat + 6 * F.one_hot(y, 3), y)


BROKEN: dict[str, tuple[str, Callable[[], Given]]] = {  # the one check that finds it, and the fault
    "keeps the graph": ("a_short_run_ends", lambda: (KeepsTheGraph(), Rows(sound.table), LEARNS)),
    "second validation": ("a_short_run_ends", lambda: (SecondValidationFails(), Rows(sound.table), LEARNS)),
    "frozen, gathers": ("frozen_parts_are_still", lambda: (FrozenInTraining(), Rows(sound.pictures), LEARNS)),
    "teacher draws": ("frozen_parts_are_still", lambda: (DrawingTeacher(), Rows(sound.table), LEARNS)),
    "bold start": ("loss_at_start", lambda: (BoldStart(), Rows(sound.classes), LEARNS)),
    "softmax twice": ("two_rows_by_heart", lambda: (SoftmaxTwice(), Rows(sound.classes), LEARNS)),
    "normal, shuffled": ("two_rows_by_heart", lambda: (NormalShuffled(), Rows(sound.table), LEARNS)),
    "normal, sign": ("two_rows_by_heart", lambda: (NormalTurned(), Rows(sound.table), LEARNS)),
    "softmax over rows": ("loss_is_a_mean_over_rows", lambda: (OverRows(), Rows(sound.classes), LEARNS)),
    "by hand, over rows": ("loss_is_a_mean_over_rows", lambda: (OverRowsByHand(), Rows(sound.classes), LEARNS)),
    "validates the next": ("validation_follows", lambda: (ValidatesTheNext(), Rows(sound.classes), LEARNS)),
    "frozen": ("gradients_arrive", lambda: (Frozen(), Rows(sound.table), LEARNS)),
    "forgotten": ("gradients_arrive", lambda: (Forgotten(), Rows(sound.table), LEARNS)),
    "dead": ("gradients_arrive", lambda: (Dead(), Rows(sound.table), LEARNS)),
    "plain list": ("what_is_trained_is_a_parameter", lambda: (PlainList(), Rows(sound.table), LEARNS)),
    "no step": ("ten_steps_lower_the_loss", lambda: (NoStep(), Rows(sound.table), LEARNS)),
    "keeps gradients": ("gradients_are_of_one_step", lambda: (KeepsGradients(), Rows(sound.table), LEARNS)),
    "steps twice": ("gradients_are_of_one_step", lambda: (StepsTwice(), Rows(sound.table), LEARNS)),
    "trains on": ("evaluation_is_evaluation", lambda: (TrainsOn(), Rows(sound.table), LEARNS)),
    "wrong backward": ("finite_differences", lambda: (WrongBackward(), Rows(sound.table), LEARNS)),
    "broadcasting": ("loss_does_not_broadcast", lambda: (Broadcasting(), Rows(sound.table), LEARNS)),
    "broadcasting by hand": ("loss_does_not_broadcast", lambda: (BroadcastingByHand(), Rows(sound.table), LEARNS)),
    "counts": ("loss_does_not_broadcast", lambda: (Counts(), rows(lambda x, y: (x, y.exp().round())), LEARNS)),
    "scores": ("loss_at_start", lambda: (Scores(), Rows(sound.classes), LEARNS)),
    "other units": ("training_and_validation_agree", lambda: (OtherUnits(), Rows(sound.table), LEARNS)),
    "minus": ("loss_at_start", lambda: (Minus(), Rows(sound.table), LEARNS)),
    "mixed": ("loss_is_a_mean_over_rows", lambda: (Mixed(), Rows(sound.text), LEARNS)),
    "sum": ("loss_is_a_mean_over_rows", lambda: (Summing(), Rows(sound.table), LEARNS)),
    "gregarious": ("neighbours", lambda: (Gregarious(), Rows(sound.table), LEARNS)),
    "gregarious step": ("neighbours", lambda: (GregariousStep(), Rows(sound.table), LEARNS)),
    "gregarious dict": (
        "neighbours",
        lambda: (GregariousDict(), sound.Dicts(lambda g: sound.table(g)[::-1], "y x"), LEARNS),
    ),
    "mean of padding": ("neighbours", lambda: (PaddedMean(1e-2), sound.Lines(), LEARNS)),
    "after padding": ("neighbours", lambda: (AfterPadding(1e-2), sound.Lines(), LEARNS)),
    "loss of padding": ("neighbours", lambda: (PaddedLoss(1e-2), sound.Lines(is_tagged=True), LEARNS)),
    "padding counts": ("neighbours", lambda: (PaddedShare(1e-2), sound.Lines(is_tagged=True), LEARNS)),
    "mean of padding, other words": ("neighbours", lambda: (PaddedMean(1e-2), OtherLines(), LEARNS)),
    "average stays": ("validation_moves_nothing", lambda: (AverageStays(), Rows(sound.table), LEARNS)),
    "one steps": ("gradients_arrive", lambda: (OneSteps(), Rows(lambda g: sound.table(g)[:1]), LEARNS)),
    "broadcasting on graphs": (
        "loss_does_not_broadcast",
        lambda: (RingBroadcasting(), sound.Graphs(sound.table), LEARNS),
    ),
    "cheating": ("target_unseen", lambda: (Cheating(), Rows(sound.table), LEARNS)),
    "unshifted": ("target_unseen", lambda: (Unshifted(), Rows(sound.words), LEARNS)),
    "sees the next": ("target_unseen", lambda: (SeesTheNext([*"abc"], 8, lr=0.05), Letters(), LEARNS)),
    "copies": ("target_unseen", lambda: (Copies([*"abc"], 8, lr=0.05), Letters(), LEARNS)),
    "clairvoyant": ("target_unseen", lambda: (Clairvoyant(), Rows(sound.text), LEARNS)),
    "shared rows": ("splits_apart", lambda: (Net(), SharedRows(sound.table), LEARNS)),
    "again, moved": ("splits_apart", lambda: (Net(), Again(sound.table, moved), LEARNS)),
    "again, both moved": ("splits_apart", lambda: (Net(), AgainMoved(sound.table, moved), LEARNS)),
    "again, tested": ("splits_apart", lambda: (Net(), AgainTested(sound.table, moved), LEARNS)),
    "again, cropped": ("splits_apart", lambda: (sound.Convolution(), Again(smooth, cropped), LEARNS)),
    "split anew": ("splits_apart", lambda: (Net(), SplitAnew(sound.table), LEARNS)),
    "split anew by numpy": ("splits_apart", lambda: (Net(), SplitAnewByNumpy(sound.table), LEARNS)),
    "windows at random": ("splits_apart", lambda: (sound.Sequence(), Rows(overlapping), LEARNS)),
    "not shuffled": ("splits_are_alike", lambda: (Net(), Unshuffled(sound.table), LEARNS)),
    "rate gone": ("rate_is_neither_small_nor_large", lambda: (RateGone(), Rows(sound.table), LEARNS)),
    "target column": (
        "no_column_is_the_target",
        lambda: (Net(), rows(lambda x, y: (with_column(x, y * 2 + 1), y)), LEARNS),
    ),
    "target column, bent": (
        "no_column_is_the_target",
        lambda: (Net(), rows(lambda x, y: (with_column(x, y.exp()), y)), LEARNS),
    ),
    "last of a series": (
        "no_column_is_the_target",
        lambda: (sound.Sequence(), rows(lambda x, y: (x, x[:, -1, :1]), sound.series), LEARNS),
    ),
    "never reset": ("validation_moves_nothing", lambda: (NeverReset(), Rows(sound.classes), LEARNS)),
    "never emptied": ("validation_moves_nothing", lambda: (NeverEmptied(), Rows(sound.table), LEARNS)),
    "augments validation": (
        "training_and_validation_agree",
        lambda: (AugmentsValidation(), Rows(sound.classes), LEARNS),
    ),
    "classes, shuffled": ("loss_is_a_mean_over_rows", lambda: (ClassesShuffled(), Rows(sound.classes), LEARNS)),
    "validation counts": ("validation_moves_nothing", lambda: (ValidationCounts(), Rows(sound.table), LEARNS)),
    "urandom": ("same_seed_same_bits", lambda: (Urandom(), Rows(sound.table), LEARNS)),
    "unseeded rows": ("same_seed_same_bits", lambda: (Net(), Unseeded(), LEARNS)),
    "seeds itself": ("same_seed_same_bits", lambda: (SeedsItself(), Rows(sound.table), LEARNS)),
    "forgetful": ("one_and_one_epochs_are_two", lambda: (Forgetful(), Rows(sound.table), LEARNS)),
    "refusing": (
        "one_and_one_epochs_are_two",
        lambda: (Net(), Rows(sound.table), LEARNS | {"callbacks": [Refusing()]}),
    ),
    "unsaved average": ("one_and_one_epochs_are_two", lambda: (UnsavedAverage(), Rows(sound.table), LEARNS)),
    "unsaved center": (NEW_PROCESS, lambda: (UnsavedCenter(), Rows(sound.table), LEARNS)),
    "unsaved": (NEW_PROCESS, lambda: (Unsaved(16), Rows(sound.table), LEARNS)),
    "drops always": ("evaluation_is_evaluation", lambda: (DropsAlways(), Rows(sound.table), LEARNS)),
    "still statistics": ("evaluation_is_evaluation", lambda: (StillStatistics(), Rows(sound.classes), LEARNS)),
    "unshared": ("two_processes_are_one", lambda: (LinearRegression(3, lr=0.1), Unshared(), LEARNS)),
    "upwards": ("ten_steps_lower_the_loss", lambda: (Upwards(), Rows(sound.table), LEARNS)),
    "too fast": ("rate_is_neither_small_nor_large", lambda: (LinearRegression(3, lr=2.0), SyntheticData(), LEARNS)),
    "too slow": ("rate_is_neither_small_nor_large", lambda: (Net(1e-7), Rows(sound.table), LEARNS)),
    "shrinking": ("rate_is_neither_small_nor_large", lambda: (Shrinking(), Rows(sound.table), LEARNS)),
    "imprecise": ("bfloat16", lambda: (Imprecise(), Rows(sound.table), LEARNS | {"precision": "bf16-mixed"})),
    "constant": (
        "no_collinear_column",
        lambda: (Net(), rows(lambda x, y: (with_column(x, torch.ones(len(x), 1)), y)), LEARNS),
    ),
    "collinear": (
        "no_collinear_column",
        lambda: (Net(), rows(lambda x, y: (with_column(x, x[:, :1] - x[:, 1:2]), y)), LEARNS),
    ),
    "unscaled": (
        "first_layer_gets_scaled_columns",
        lambda: (Net(), rows(lambda x, y: (with_column(x, x[:, 7:] / 1000), y)), LEARNS),
    ),
    "missing": ("nothing_is_missing", lambda: (Net(), rows(missing), LEARNS)),
    "mistyped": ("nothing_is_missing", lambda: (LinearRegression(3), Mistyped(), {})),
    "an outlier": ("nothing_is_missing", lambda: (Net(), rows(outlier), LEARNS)),
    "stands for missing": ("nothing_is_missing", lambda: (LinearRegression(3), Answered(), {})),
    "flat": ("target_varies", lambda: (Net(), rows(lambda x, y: (x, torch.ones_like(y))), LEARNS)),
    "classes as a quantity": ("target_varies", lambda: (Net(), rows(lambda x, y: (x, (y > 0).float())), LEARNS)),
    "in order": ("splits_are_alike", lambda: (Net(), InOrder(sound.table), LEARNS)),
    "bytes": (
        "splits_are_alike",
        lambda: (sound.Convolution(), OtherScale(grey, lambda x: 255 * x), LEARNS),
    ),
    "not scaled": ("splits_are_alike", lambda: (Net(), OtherScale(sound.table, in_units), LEARNS)),
    "not scaled, tested": ("splits_are_alike", lambda: (Net(), OtherScale(sound.table, in_units, "test"), LEARNS)),
    "unbalanced": (
        "classes_are_balanced",
        lambda: (Classes(), rows(lambda x, y: (x, (x[:, 0] > 1.7).long()), sound.classes), LEARNS),
    ),
    "unknown class": ("classes_are_balanced", lambda: (Classes(), UnknownClass(batch_size=32), LEARNS)),
    "ignoring": ("classes_are_balanced", lambda: (Ignoring(), Rows(sound.classes), LEARNS)),
    "reversed": ("target_follows_from_inputs", lambda: (Classes(), Reversed(sound.classes), LEARNS)),
    "shuffled": ("target_follows_from_inputs", lambda: (Net(), rows(lambda x, y: (x, y.roll(7, 0))), LEARNS)),
    "sleeping": ("loader_keeps_up", lambda: (Net(), Sleeping(sound.table), LEARNS)),
}


def examine(given: Given, checks: list[Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The names of the checks by the status that they give."""
    monkeypatch.setattr(module, "CHECKS", checks)
    model, data, flags = given
    found: dict[str, list[str]] = {"ok": [], "FAIL": [], "skip": [], "broken": []}
    for title, verdict in linreg.doctor(model, data, **flags).items():
        found["broken" if "could not be made" in verdict.text else verdict.status].append(title.replace(" ", "_"))
    return found


def checks(*without: str) -> list[Any]:
    return [check for check in module.CHECKS if check.__name__ not in without]


@pytest.mark.parametrize("fault", BROKEN)
def test_a_fault_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, make = BROKEN[fault]
    torch.manual_seed(0)
    assert examine(make(), [check for check in checks() if check.__name__ == name], monkeypatch)["FAIL"] == [name]


def by_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a loader keeps up is told by this process's own time: other work on the machine takes none of it."""
    monkeypatch.setattr(row_checks, "time", SimpleNamespace(perf_counter=time.process_time))


@pytest.mark.slow
@pytest.mark.parametrize("fault", BROKEN)
def test_and_no_other_check_finds_one(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, make = BROKEN[fault]
    torch.manual_seed(0)
    by_own_time(monkeypatch)
    found = examine(make(), checks(NEW_PROCESS, name), monkeypatch)
    assert found["FAIL"] == []
    assert len(found["ok"]) > 5


def test_a_step_within_a_step_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.optim.SGD([torch.zeros(1)], 0.1)  # from then on what a subclass calls is seen as a step, too
    asked = [check for check in checks() if check.__name__ == "gradients_are_of_one_step"]
    assert examine((Climbs(), Rows(sound.table), LEARNS), asked, monkeypatch)["ok"]


def test_without_a_step_nothing_can_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    given = BROKEN["no step"][1]()
    assert examine(given, [check for check in checks() if check.__name__ == NEW_PROCESS], monkeypatch)["FAIL"] == []


@pytest.mark.slow
def test_gradients_that_are_summed_by_hand_make_a_checkpoint_at_their_first_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = ["one_and_one_epochs_are_two", NEW_PROCESS]
    monkeypatch.setattr(module, "CHECKS", [check for check in checks() if check.__name__ in asked])
    two, five = (linreg.doctor(model, Rows(sound.table), **LEARNS) for model in (EachSecond(), EachFifth()))
    assert [verdict.status for verdict in two.values()] == ["ok", "ok"], two
    none = Verdict("skip", "the first 4 batches make no step, and nothing is saved")
    assert [*five.values()] == [none, none]


QUICK = ("linear", "dropout and batch norm", "two optimizers")


NEWER = [*SOUND][[*SOUND].index("siamese") :]  # what a false alarm was once given of, with one seed


@pytest.mark.parametrize(
    ("kind", "seed"),
    [
        pytest.param(kind, seed, marks=[] if kind in QUICK and not seed else [pytest.mark.slow])
        for kind in SOUND
        for seed in range(1 if kind in NEWER else 5)
    ],
)
def test_nothing_fails_on_what_is_sound(kind: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(seed)
    by_own_time(monkeypatch)
    found = examine(SOUND[kind](seed), checks(NEW_PROCESS), monkeypatch)
    assert found["FAIL"] == found["broken"] == []
    assert len(found["ok"]) > 5


def test_every_check_that_can_fail_has_its_fault() -> None:
    assert {name for name, _ in BROKEN.values()} == {check.__name__ for check in checks()}


def test_an_error_of_a_later_step_is_one_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECKS", checks(NEW_PROCESS, "two_processes_are_one"))
    table = linreg.doctor(KeepsTheGraph(), Rows(sound.table))
    said = [verdict.text for verdict in table.values() if "Trying to backward" in verdict.text]
    assert [title for title, verdict in table.items() if verdict.status == "FAIL"] == ["a short run ends"]
    assert said == [table["a short run ends"].text]
    assert table["gradients arrive"] == Verdict("skip", "it could not be made, as is said above")


class DrawsPictures(Net):
    """With whatever logger a run has, and beside its curves."""

    def on_validation_epoch_end(self) -> None:
        self.logger.experiment.add_image("first", torch.zeros(1, 8, 8), self.current_epoch)
        Path(self.trainer.log_dir, "first.txt").write_text("")

    def on_train_start(self) -> None:
        self.logger.experiment.log({"begin": 0})


class TwoTables(Rows):
    def val_dataloader(self) -> list[DataLoader]:  # type: ignore[override]
        return [super().val_dataloader(), super().val_dataloader()]


class Several(Rows):
    """Two loaders of training rows, of which the second one has those of validation."""

    def train_dataloader(self) -> Any:
        return {"one": super().train_dataloader(), "two": DataLoader(self.val, 8, shuffle=True)}


class FromSeveral(Net):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(self(batch["one"][0]), batch["one"][1]) + self.loss(self(batch["two"][0]), batch["two"][1])


def test_each_of_several_loaders_is_asked_for_validation_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [check for check in checks() if check.__name__ == "splits_apart"]
    found = examine((FromSeveral(), Several(sound.table), LEARNS), asked, monkeypatch)
    assert found["FAIL"] == ["splits_apart"]


class Staged(sound.Rows):
    """Each stage makes what it needs alone, as in Lightning's own pages."""

    def setup(self, stage: str) -> None:
        x, y = self.make(torch.Generator().manual_seed(self.seed))
        if stage == "fit":
            self.train, self.val = TensorDataset(x[:300], y[:300]), TensorDataset(x[300:400], y[300:400])
        if stage == "test":
            self.test = TensorDataset(x[400:], y[400:])

    def test_dataloader(self) -> DataLoader:
        return DataLoader(self.test, self.batch_size)


class Augmented(Rows):
    """Training rows are moved a little: on their way, in their dataset, or where a batch is made of them."""

    where = "way"

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return self.moved(batch) if self.trainer.training and self.where == "way" else batch

    def moved(self, row: Any) -> Any:
        return row[0] + 0.1 * torch.randn_like(row[0]), row[1]

    def train_dataloader(self) -> DataLoader:
        rows: Any = [*self.train]
        if self.where == "dataset":
            rows = Moved(self.train, self.moved)
        collate: Any = torch.utils.data.default_collate
        how = {"collate_fn": lambda rows: self.moved(collate(rows))} if self.where == "batch" else {}
        return DataLoader(rows, self.batch_size, shuffle=True, **how)


class Moved(Dataset):
    def __init__(self, rows: Any, how: Any) -> None:
        self.rows, self.how = rows, how

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Any:
        return self.how(self.rows[i])


class AugmentedRows(Augmented):
    where = "dataset"


class AugmentedBatches(Augmented):
    where = "batch"


@pytest.mark.slow
@pytest.mark.parametrize("data", [Augmented, AugmentedRows, AugmentedBatches])
def test_each_of_two_processes_may_augment_its_own_rows(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECKS", [check for check in checks() if check.__name__ == "two_processes_are_one"])
    (verdict,) = linreg.doctor(Net(), data(sound.table)).values()
    assert verdict == Verdict("skip", "rows are augmented: each process draws for its own half of a batch")


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("a_short_run_ends", lambda: (DrawsPictures(), Rows(sound.table), LEARNS)),
        ("evaluation_is_evaluation", lambda: (sound.Plain(lr=0.05), TwoTables(sound.table), LEARNS)),
        ("splits_apart", lambda: (Net(), Staged(sound.table), LEARNS)),
    ],
)
def test_a_check_can_be_made(name: str, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECKS", [check for check in checks() if check.__name__ == name])
    (verdict,) = linreg.doctor(*make()[:2], **make()[2]).values()
    assert verdict.status == "ok", verdict.text


def test_the_command_says_a_line_for_each_check(process: Process) -> None:
    run = process("doctor", "--data.num_rows", "300")
    lines = run.stdout.splitlines()
    assert (run.returncode, run.stderr) == (0, "")
    number = len(module.CHECKS) + len(LinearRegression(3).checks())
    assert re.fullmatch(rf"doctor  {number} checks, about \d+ s", lines[0])
    assert {line.split()[0] for line in lines[1:-1]} == {"ok", "skip"}
    assert len(lines) == number + 2
    assert re.fullmatch(r"doctor  \d+ ok, 0 FAIL, \d+ skip", lines[-1])
    assert sorted(os.listdir()) == ["configs"]  # and nothing is written


def test_a_check_that_fails_is_exit_code_1(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("rate_is_neither_small_nor_large", "loss_at_start")
    monkeypatch.setattr(module, "CHECKS", [check for check in checks() if check.__name__ in names])
    code, out = train("doctor", "--model.lr", 3, "--name", "mine")
    assert code == 1
    assert "error: 1 of 4 checks failed: rate is neither small nor large" in out
    assert "expected: a fall; take a tenth of it" in out
    table = json.loads(Path("runs/mine/version_0/doctor.json").read_text())
    statuses = {title: verdict["status"] for title, verdict in table.items()}
    assert (statuses["loss at start"], statuses["rate is neither small nor large"]) == ("ok", "FAIL")
    for flag in ("--check", "--confidence"):
        code, out = train("doctor", flag, 0.5)
        assert (code, f"doctor: {flag} is of a whole run; leave it out" in out) == (2, True)


def test_what_a_fit_says_of_the_data_is_said(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECKS", [check for check in checks() if check.__name__ == "nothing_is_missing"])
    cells = ["94;Nord", "4.996;nord", "5.015;Nord", "12.250;nord"] * 9
    Path("t.csv").write_text("".join(f"{row}\n" for row in ["a;t;y", *(f"{c};{i % 7}" for i, c in enumerate(cells))]))
    flags = ["--data.path", "t.csv", "--data.target", "y", "--data.categories", "all"]
    fitted, out = (" ".join(train(command, *flags)[1].split()) for command in ("fit", "doctor"))
    for note in ("'a': each dot is read as a decimal point, as in 4.996 (t.csv, line 3)", "differ by capitals only"):
        assert note in fitted
        assert note in out


def test_a_mistake_is_that_of_fit(train: Train) -> None:
    assert train("doctor", "--model.lr", -1) == train("fit", "--model.lr", -1)
    assert train("doctor", "--max_epoch", 3)[0] == 2


def test_a_check_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_large_weight(context: Any) -> Verdict:
        largest = max(float(p.detach().abs().max()) for p in context.model.parameters())
        return judge(largest < 10, f"{largest:.2g}", "below 10", "begin smaller")

    class Own(Net):
        def checks(self) -> list[Any]:
            return [lambda context: judge(False, "1", "2", "3")]

    model = Own()
    monkeypatch.setattr(module, "CHECKS", [no_large_weight])
    table = linreg.doctor(model, Rows(sound.table))
    assert [verdict.status for verdict in table.values()] == ["ok", "FAIL"]
    assert [*table.values()][1].text == "1; expected: 2; 3"


def test_a_check_that_returns_no_verdict_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    found = examine((Net(), Rows(sound.table), LEARNS), [lambda context: None, lambda context: True], monkeypatch)
    assert found["skip"] == ["<lambda>"]


class Stream(IterableDataset):
    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[Any]:
        yield from self.rows


class Streamed(Rows):
    def train_dataloader(self) -> DataLoader:
        return DataLoader(Stream(self.train), self.batch_size)


def test_a_stream_of_unknown_length_is_asked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [check for check in checks() if check.__name__ in ("two_rows_by_heart", "gradients_arrive")]
    assert len(examine((Net(), Streamed(sound.table), LEARNS), asked, monkeypatch)["ok"]) == 2


@pytest.mark.slow
def test_the_doctor_leaves_all_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Model, data, generators and the environment."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    model, data = Net(), Rows(sound.table)
    weights, drawn = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    found = examine((model, data, LEARNS), checks(NEW_PROCESS), monkeypatch)
    assert found["ok"]
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert not hasattr(data, "train")
    assert data.trainer is None
    assert torch.equal(torch.get_rng_state(), drawn)
    assert os.environ["PL_GLOBAL_SEED"] == "7"


class Bent(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 1.1 * super().forward(x)


class BentLine(LinearRegression):
    def __init__(self) -> None:
        super().__init__(3)
        self.hypothesis.__class__ = Bent


class UnitsOfAllRows(LinearRegression):
    def fit_standardizers(self, rows: Any) -> None:
        splits = self.trainer.datamodule.splits
        super().fit_standardizers([*rows, splits["val"]])


@pytest.mark.parametrize(
    ("model", "name"),
    [(BentLine(), "gradient is the formula"), (UnitsOfAllRows(3, lr=0.1), "units are those of training rows")],
)
def test_what_only_a_regression_can_be_asked(model: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECKS", [])
    table = linreg.doctor(model, SyntheticData())
    assert [title for title, verdict in table.items() if verdict.status == "FAIL"] == [name]


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "configs/broken").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_broken_config_is_named(path: Path, train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the one check that its first line says, and by no other."""
    monkeypatch.setattr(module, "CHECKS", checks(NEW_PROCESS, "two_processes_are_one"))
    code, out = train("doctor", "--config", path)
    named = path.read_text().splitlines()[0].rpartition("The doctor: FAIL ")[2].rstrip(".")
    assert (code, out.splitlines()[-1].rpartition("checks failed: ")[2]) == (1, named)


def test_the_doctor_warns_of_repeated_columns_where_the_fit_does(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECKS", [check for check in checks() if check.__name__ == "no_collinear_column"])
    random = torch.Generator().manual_seed(0)
    a, b, noise = torch.randn(3, 500, generator=random).tolist()
    for share, is_said in ((0.02, True), (0.2, False)):
        rows = [f"{x},{y},{x + share * e},{x + y + e}" for x, y, e in zip(a, b, noise, strict=True)]
        Path("table.csv").write_text("\n".join(["one,two,copy,y", *rows]))
        flags = ["--data.path", "table.csv", "--data.target", "y"]
        assert ("nearly repeat others" in train(*flags, "--max_epochs", 1, "--figures", "false")[1]) == is_said
        code, out = train("doctor", *flags)
        assert ("columns that follow from others: one, copy; " in out, code == 1) == (is_said, is_said), out


def test_a_verdict_says_what_it_is_measured_by() -> None:
    given = LinearRegression(3), SyntheticData(), {}
    names = ("two_rows_by_heart", "target_follows_from_inputs", "rate_is_neither_small_nor_large")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHECKS", [check for check in checks() if check.__name__ in names])
        table = linreg.doctor(given[0], given[1])
    assert re.fullmatch(r"loss \S+ -> \S+; below \S+ is by heart", table["two rows by heart"].text)
    text = table["target follows from inputs"].text
    assert (
        found := re.match(r"a line explains (\S+)% of the target's ranks \((\S+)% of shuffled ones\), near rows", text)
    )
    data = given[1]
    x, y = (side.numpy() for side in data.splits["train"])
    x = x - x.mean(0)
    y = y.argsort(0).argsort(0).astype(float)
    y -= y.mean(0)
    left = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    assert float(found[1]) == pytest.approx(100 * (1 - (left**2).sum() / (y**2).sum()), abs=0.3)
    known = np.linalg.eigvalsh(np.corrcoef(data.splits["train"][0].numpy().T))[-1] * 2
    assert f"the largest curvature, {known:.3g}" in table["rate is neither small nor large"].text


@pytest.mark.slow
@pytest.mark.parametrize("config", sorted((ROOT / "linreg/examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_nothing_fails_on_an_example(config: Path, process: Process) -> None:
    run = process("doctor", "--config", config)
    assert (run.returncode, run.stderr) == (0, ""), run.stdout


@pytest.mark.parametrize(
    ("model", "check", "status"),
    [(Collects, "training_and_validation_agree", "ok"), (KnowsAlready, "two_rows_by_heart", "skip")],
)
def test_a_check_knows_what_it_can_tell(model: Any, check: str, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = model(), Rows(sound.classes if model is KnowsAlready else sound.table), LEARNS
    asked = [each for each in checks() if each.__name__ == check]
    assert examine(given, asked, monkeypatch)[status] == [check]
