"""Two epochs and two more are four, to the bit, whatever is drawn, by whom, and in which process."""

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, Sampler

from linreg import DataModule, InputError, Module, run
from tests.conftest import Train
from tests.tools import assert_same, load

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork"),
    pytest.mark.filterwarnings("ignore:Your `IterableDataset` has `__len__` defined"),
]
MINE = '''
import random
import lightning.pytorch as pl
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset
from torch.nn.functional import cross_entropy
from linreg import DataModule, Module

class Rows(Dataset):
    """Pictures, shifted by all three generators."""
    def __init__(self, n):
        self.x, self.y = torch.randn(n, 1, 6, 6, generator=torch.Generator().manual_seed(n)), torch.arange(n) % 3
    def __len__(self):
        return len(self.x)
    def __getitem__(self, i):
        shift = 0.1 * torch.randn(()) + 0.1 * random.random() + 0.1 * np.random.rand()
        return self.x[i] + shift.float(), self.y[i]

class Stream(IterableDataset):
    def __init__(self, rows):
        self.rows = rows
    def __iter__(self):
        for i in torch.randperm(len(self.rows)).tolist():
            yield self.rows[i]

class Images(pl.LightningDataModule):
    def __init__(self, num_workers: int = 0, stream: bool = False):
        super().__init__()
        self.num_workers, self.stream = num_workers, stream
    def train_dataloader(self):
        rows = Stream(Rows(90)) if self.stream else Rows(90)
        return DataLoader(rows, 16, shuffle=None if self.stream else True, num_workers=self.num_workers)
    def val_dataloader(self):
        return DataLoader(Rows(31), 16)

class Onward(IterableDataset):
    """Goes on in each epoch where it was."""
    def __init__(self, rows):
        self.rows, self.at = rows, 0
    def __iter__(self):
        for _ in range(96):
            self.at += 1
            yield self.rows[self.at % 90]

class Placed(DataLoader):
    def state_dict(self):
        return {"at": self.dataset.at}
    def load_state_dict(self, state):
        self.dataset.at = state["at"]

class Kept(Images):
    """Keeps its place in a stream itself, or its loader does."""
    def __init__(self, loader: bool = False):
        super().__init__()
        self.rows, self.loader = Onward(Rows(90)), loader
    def train_dataloader(self):
        return (Placed if self.loader else DataLoader)(self.rows, 16)
    def state_dict(self):
        return {} if self.loader else {"at": self.rows.at}
    def load_state_dict(self, state):
        self.rows.at = state["at"]

class Own(DataModule):
    """The same rows by the package's own data module: as a dataset, as arrays, as given streams."""
    def __init__(self, kind: str = "dataset", **loading):
        super().__init__(**loading)
        self.kind = kind
    def load(self):
        rows = Rows(90)
        return {"dataset": rows, "arrays": (rows.x, rows.y), "stream": {"train": Stream(rows), "val": rows}}[self.kind]

class Net(pl.LightningModule):
    def __init__(self, lr: float = 0.01):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
        self.lr = lr
    def training_step(self, batch, batch_idx):
        return cross_entropy(self.net(batch[0]), batch[1])
    def validation_step(self, batch, batch_idx):
        self.log("loss/val", cross_entropy(self.net(batch[0]), batch[1]))
    def on_train_start(self):
        torch.rand(3)  # which a run that goes on draws once more
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)

class Pair(Net):
    """Two optimizers, by hand."""
    def __init__(self, lr: float = 0.01):
        super().__init__(lr)
        self.automatic_optimization = False
    def on_train_epoch_start(self):
        self.noise = torch.rand(())
    def training_step(self, batch, batch_idx):
        loss = cross_entropy(self.net(batch[0] + 0.1 * self.noise), batch[1])
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            optimizer.step()
    def configure_optimizers(self):
        first, second = list(self.net[1].parameters()), list(self.net[4].parameters())
        return [torch.optim.Adam(first, lr=self.lr), torch.optim.SGD(second, lr=self.lr, momentum=0.9)]

class Several(Module):
    """Several losses, and two optimizers by turns, by hand."""
    automatic_optimization = False
    def __init__(self, **training):
        super().__init__(nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Dropout(0.5), nn.Linear(8, 3)), **training)
    def step(self, batch):
        fit = cross_entropy(self(batch[0]), batch[1])
        return {"fit": fit, "size": self.hypothesis[1].weight.square().sum()}
    def training_step(self, batch, batch_idx):
        losses = self.step(batch)
        for name, optimizer in zip(losses, self.optimizers()):
            optimizer.zero_grad()
            self.manual_backward(losses[name], retain_graph=True)
        for optimizer in self.optimizers():
            optimizer.step()
        return losses
    def configure_optimizers(self):
        return [self.make_optimizer(self.hypothesis[3]), self.make_optimizer(self.hypothesis[1])]
'''
CASES = {
    "shuffled": [],
    "workers": ["--data.num_workers", 2],
    "stream": ["--data.stream", "true"],
    "stream, workers": ["--data.stream", "true", "--data.num_workers", 2],
    "a place in a stream": ["--data", "mine.Kept"],
    "a loader's place": ["--data", "mine.Kept", "--data.loader", "true"],
    "two optimizers": ["--model", "mine.Pair"],
    "average": ["--callbacks", "EMAWeightAveraging"],
    "own data, a dataset": ["--data", "mine.Own"],
    "own data, workers": ["--data", "mine.Own", "--data.num_workers", 2, "--data.drop_last", "true"],
    "own data, arrays": ["--data", "mine.Own", "--data.kind", "arrays"],
    "own data, a stream, workers": ["--data", "mine.Own", "--data.kind", "stream", "--data.num_workers", 2],
    "own module, several losses": ["--model", "mine.Several", "--data", "mine.Own", "--model.optimizer", "Adam"],
}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] * ("own" in case and "workers" in case)) for case in CASES]
)
def test_two_and_two_are_four(case: str, train: Train, workplace: Path) -> None:
    Path("mine.py").write_text(MINE)
    typed = ["--model", "mine.Net", "--data", "mine.Images", *CASES[case]]
    assert (found := train(*typed, "--max_epochs", 4, "--name", "four"))[0] == 0, found[1]
    assert train(*typed, "--max_epochs", 2, "--name", "two")[0] == 0
    code, out = train("--ckpt_path", "runs/two/version_0/checkpoints/last.ckpt", "--max_epochs", 4)
    assert code == 0, out
    is_told = "        this stream begins anew: where it was is in no state_dict of the data module" in out
    assert is_told == ("stream" in case and "place" not in case)
    assert ("Stream: each of its 2 workers gives all of it" in out) == ("stream, workers" in case)
    one, two = (load(f"runs/{name}/version_0/checkpoints/last.ckpt") for name in ("four", "two"))
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        assert_same(one[part], two[part])


class Numbers(IterableDataset):
    """The numbers from 1 on, 64 in each epoch."""

    last = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        for _ in range(64):
            self.last += 1
            yield torch.tensor([float(self.last)])


class Counted(LightningDataModule):
    def __init__(self, **loading: Any) -> None:
        super().__init__()
        self.numbers, self.loading = Numbers(), loading

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.numbers, 16, **self.loading)

    def state_dict(self) -> dict[str, int]:
        return {"last": self.numbers.last}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.numbers.last = state["last"]


class Seeing(Module):
    def __init__(self) -> None:
        super().__init__(torch.nn.Linear(1, 1), lr=1e-6)
        self.seen: list[int] = []

    def step(self, batch: torch.Tensor) -> torch.Tensor:
        self.seen += batch[:, 0].int().tolist()
        return self(batch).square().mean()


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
@pytest.mark.parametrize("before", [{"max_epochs": 2}, {"max_epochs": 1}, {"max_steps": 6}])
def test_a_stream_gives_each_row_to_a_step(before: dict[str, int], workplace: Path) -> None:
    """None is drawn to know whether there are any, nor again by a run that goes on."""
    run(first := Seeing(), Counted(), name="one", **before)
    seen = first.seen
    if before != {"max_epochs": 2}:
        run(second := Seeing(), Counted(), name="one", ckpt_path="last", max_epochs=2)
        seen += second.seen
    assert seen == list(range(1, 129))


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
def test_a_worker_that_stays_gives_each_row_to_a_step(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its iterator is made once; where it was is in the worker alone, which a run that goes on says."""
    data = Counted(num_workers=1, persistent_workers=True)
    run(first := Seeing(), data, name="one", max_epochs=2)
    assert first.seen == list(range(1, 129))
    run(second := Seeing(), Counted(**data.loading), name="one", ckpt_path="last", max_epochs=3)
    assert second.seen == list(range(1, 65))
    assert "persistent_workers begin anew: no checkpoint has what they draw and keep" in capsys.readouterr().out


class Staying(LightningDataModule):
    """One or two loaders with workers that stay, of rows without draws, in an order that is drawn."""

    def __init__(self, several: bool) -> None:
        super().__init__()
        self.several = several

    def train_dataloader(self) -> Any:
        rows = torch.arange(1.0, 65.0)[:, None]
        one, two = (DataLoader(rows, 16, shuffle=True, num_workers=1, persistent_workers=True) for _ in "ab")  # type: ignore[arg-type]
        return {"one": one, "two": two} if self.several else one


class SeeingAll(Seeing):
    def step(self, batch: Any) -> torch.Tensor:
        return super().step(torch.cat([*batch.values()]) if isinstance(batch, dict) else batch)


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
@pytest.mark.parametrize("before", [{"max_epochs": 1}, {"max_steps": 6}])
@pytest.mark.parametrize("several", [False, True])
def test_workers_that_stay_and_draw_nothing_go_on_to_the_bit(
    several: bool, before: dict[str, int], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)  # which a run without a seed of its own begins with
    run(whole := SeeingAll(), Staying(several), name="whole", max_epochs=3)
    torch.manual_seed(0)
    run(first := SeeingAll(), Staying(several), name="one", **before)
    capsys.readouterr()
    run(second := SeeingAll(), Staying(several), name="one", ckpt_path="last", max_epochs=3)
    assert first.seen + second.seen == whole.seen
    assert "persistent_workers begin anew" in capsys.readouterr().out


class Own(LightningDataModule):
    """A loader, or its sampler, that draws from a generator of its own."""

    def __init__(self, in_sampler: bool) -> None:
        super().__init__()
        self.in_sampler = in_sampler

    def train_dataloader(self) -> Any:
        rows: Any = torch.arange(1.0, 65.0)[:, None]
        own = torch.Generator().manual_seed(5)
        if self.in_sampler:
            return DataLoader(rows, 16, sampler=RandomSampler(rows, generator=own))
        return DataLoader(rows, 16, shuffle=True, generator=own)


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
@pytest.mark.parametrize("before", [{"max_epochs": 1}, {"max_steps": 6}])
@pytest.mark.parametrize("in_sampler", [False, True])
def test_a_generator_of_a_loaders_own_goes_on(
    in_sampler: bool, before: dict[str, int], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(whole := Seeing(), Own(in_sampler), name="whole", max_epochs=3)
    run(first := Seeing(), Own(in_sampler), name="one", **before)
    run(second := Seeing(), Own(in_sampler), name="one", ckpt_path="last", max_epochs=3)
    assert first.seen + second.seen == whole.seen
    assert "own begins each epoch with its seed plus" in " ".join(capsys.readouterr().out.split())
    assert whole.seen[:64] == [int(row) for batch in Own(in_sampler).train_dataloader() for row in batch]
    assert whole.seen[:64] != whole.seen[64:128] != whole.seen[128:]


class Asked(DataModule):
    """Of whose first row a model asks the size."""

    def load(self) -> dict[str, Numbers]:
        return {"train": Numbers()}


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
def test_a_stream_is_not_moved_on_by_what_is_asked_of_it(workplace: Path) -> None:
    data = Asked(batch_size=16)
    assert data.num_features == data.input_shape[0] == 1
    run(model := Seeing(), data, max_epochs=1)
    assert model.seen == list(range(1, 65))


class Turning(Sampler):
    """Goes on in another order in each epoch, by a count, a generator or a list of its own; of rows, or of batches."""

    def __init__(self, by: str, in_batches: bool = False) -> None:
        self.by, self.in_batches = by, in_batches
        self.count, self.generator, self.order = 0, random.Random(3), list(range(64))

    def __len__(self) -> int:
        return 4 if self.in_batches else 64

    def __iter__(self) -> Iterator[Any]:
        rows = self.order if self.by == "list" else list(range(64))
        if self.by == "count":
            self.count += 7
            rows = rows[self.count :] + rows[: self.count]
        elif self.by == "generator":
            self.generator.shuffle(rows)
        elif self.by == "list":
            random.shuffle(rows)
        else:
            rows = torch.randperm(64).tolist()
        yield from ([rows[i : i + 16] for i in range(0, 64, 16)] if self.in_batches else rows)


class Keeping(Turning):
    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "generator": self.generator.getstate(), "order": [*self.order]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count, self.order = state["count"], state["order"]
        self.generator.setstate(state["generator"])


class Turned(LightningDataModule):
    def __init__(self, sampler: Any, **loading: Any) -> None:
        super().__init__()
        self.sampler, self.loading = sampler, loading

    def train_dataloader(self) -> Any:
        rows: Any = torch.arange(1.0, 65.0)[:, None]
        sampler = copy.deepcopy(self.sampler)  # of each loader its own, where they are made anew
        if sampler.in_batches:
            return DataLoader(rows, batch_sampler=sampler, **self.loading)
        return DataLoader(rows, 16, sampler=sampler, **self.loading)


def seen_by(data: LightningDataModule, **flags: Any) -> list[int]:
    torch.manual_seed(0)  # which a run without a seed of its own begins with
    run(model := Seeing(), data, **flags)
    return model.seen


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
@pytest.mark.parametrize("before", [{"max_epochs": 1}, {"max_steps": 6}])
@pytest.mark.parametrize("in_batches", [False, True])
@pytest.mark.parametrize("by", ["count", "generator", "list"])
def test_a_sampler_goes_on_from_its_state(by: str, in_batches: bool, before: dict[str, int], workplace: Path) -> None:
    whole = seen_by(Turned(Keeping(by, in_batches)), name="whole", max_epochs=3)
    first = seen_by(Turned(Keeping(by, in_batches)), name="one", **before)
    assert first + seen_by(Turned(Keeping(by, in_batches)), name="one", ckpt_path="last", max_epochs=3) == whole
    assert len({tuple(whole[i : i + 64]) for i in (0, 64, 128)}) == 3


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
@pytest.mark.parametrize("before", [{"max_epochs": 1}, {"max_epochs": 2}, {"max_steps": 6}])
@pytest.mark.parametrize(
    ("loading", "flags"),
    [
        ({"num_workers": 1, "persistent_workers": True}, {}),  # which ask the sampler as they are started
        ({}, {"reload_dataloaders_every_n_epochs": 1}),  # of which each has a new sampler
    ],
)
def test_a_sampler_of_other_loaders_goes_on(loading: Any, flags: Any, before: Any, workplace: Path) -> None:
    data = Turned(Keeping("count"), **loading)
    whole = seen_by(data, name="whole", max_epochs=3, **flags)
    first = seen_by(data, name="one", **before, **flags)
    assert first + seen_by(data, name="one", ckpt_path="last", max_epochs=3, **flags) == whole


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
def test_a_sampler_that_has_a_state_since_is_told_of(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = seen_by(Turned(Turning("count")), name="one", max_epochs=1)
    assert seen_by(Turned(Keeping("count")), name="one", ckpt_path="last", max_epochs=2) == first  # from its beginning
    assert "1 samplers have a state here, 0 in the checkpoint: they begin anew" in capsys.readouterr().out


class Slotted:
    """A sampler without a dict."""

    __slots__ = ("count",)
    in_batches = False

    def __init__(self) -> None:
        self.count = 0

    def __len__(self) -> int:
        return 64

    def __iter__(self) -> Iterator[int]:
        self.count += 7
        return iter([*range(self.count, 64), *range(self.count)])


class Opened(Slotted):
    """One that holds what cannot be written down."""

    def __init__(self) -> None:
        super().__init__()
        self.held = lambda: self.count

    def __deepcopy__(self, memo: Any) -> "Opened":
        return Opened()


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
@pytest.mark.parametrize("kind", [Slotted, Opened])
def test_what_a_sampler_keeps_is_told_of_wherever_it_is(
    kind: type, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = seen_by(Turned(kind()), name="one", max_epochs=1)
    assert seen_by(Turned(kind()), name="one", ckpt_path="last", max_epochs=2) == first
    assert f"{kind.__name__} began anew: what it keeps" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
@pytest.mark.parametrize("in_batches", [False, True])
@pytest.mark.parametrize("by", ["count", "generator", "list", "draws"])
def test_a_sampler_without_a_state_is_told_of(
    by: str, in_batches: bool, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unless it keeps nothing from one epoch to the next, and goes on to the bit."""
    whole = seen_by(Turned(Turning(by, in_batches)), name="whole", max_epochs=3)
    first = seen_by(Turned(Turning(by, in_batches)), name="one", max_epochs=1)
    assert "began anew" not in capsys.readouterr().out
    second = seen_by(Turned(Turning(by, in_batches)), name="one", ckpt_path="last", max_epochs=3)
    is_told = "        Turning began anew: what it keeps is in no state_dict" in capsys.readouterr().out
    assert is_told == (by != "draws") == (first + second != whole)


class Buckets:
    """A sampler of batches that says to have one more, or that has fewer from epoch to epoch."""

    in_batches = True

    def __init__(self, shrinks: bool) -> None:
        self.shrinks, self.epoch = shrinks, 0

    def __len__(self) -> int:
        return 5 - self.shrinks - min(self.epoch, 1) * self.shrinks

    def __iter__(self) -> Iterator[list[int]]:
        batches = [list(range(i, i + 16)) for i in range(0, 64, 16)][: len(self)]
        self.epoch += 1
        yield from batches


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
@pytest.mark.parametrize("shrinks", [False, True])
def test_a_loader_that_gives_less_than_it_says_is_told(shrinks: bool, workplace: Path) -> None:
    """Lightning would leave out each validation, and a run could not go on."""
    found = r"len\(\) is 4 batches, and it gave 3:" if shrinks else r"len\(\) is 5 batches, and it gave 4:"
    with pytest.raises(InputError, match=found):
        seen_by(Turned(Buckets(shrinks)), max_epochs=3)
    assert len(seen_by(Turned(Buckets(shrinks)), max_epochs=2, limit_train_batches=3)) == 96
