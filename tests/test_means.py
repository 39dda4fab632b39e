"""The mean of an epoch is that of its rows: where a loss is returned at times, where a batch's tensors differ."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

from linreg import DataModule, Module, run

pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
    pytest.mark.filterwarnings("ignore:The '.*dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:Trying to infer the `batch_size`"),
    pytest.mark.filterwarnings("ignore:`training_step` returned `None`"),
]


class Pairs(DataModule):
    """100 rows in batches of 16, the last of which has 4."""

    def load(self) -> Any:
        x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
        return {"train": {"x": x, "y": x.sum(dim=1)}, "val": {"x": x[:50], "y": x[:50].sum(dim=1)}}


class AtTimes(Module):
    """No loss of each second batch, and one more of each third; the rate is so small that the weights stay."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(3, 1), lr=1e-12)
        self.seen: list[tuple[str, float, int]] = []

    def error(self, batch: dict[str, Tensor]) -> Tensor:
        return (self(batch["x"])[:, 0] - batch["y"]).square().mean()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Any:
        loss, extra = self.error(batch), batch["x"].abs().mean()
        if batch_idx % 2:
            return None
        found = {"loss": loss} | ({"extra": extra} if batch_idx % 3 == 0 else {})
        self.seen += [(name, value.item(), len(batch["x"])) for name, value in found.items()]
        return found

    def step(self, batch: dict[str, Tensor]) -> Any:
        return None if len(batch["x"]) == 2 else self.error(batch)  # of an evaluation's last one


def mean_of(seen: list[tuple[str, float, int]], name: str) -> float:
    rows = [(value, n) for each, value, n in seen if each == name]
    return sum(value * n for value, n in rows) / sum(n for _, n in rows)


def test_a_loss_that_is_returned_at_times(workplace: Path) -> None:
    found = run(model := AtTimes(), Pairs(batch_size=16), max_epochs=1)
    for name in ("loss", "extra"):
        assert found.metrics["train"][name] == pytest.approx(mean_of(model.seen, name), rel=1e-5)
    with torch.no_grad():
        rows = Pairs().datasets["val"][:48]
        assert found.metrics["val"]["loss"] == pytest.approx(float(model.error(rows)), rel=1e-5)


class Series(Dataset[Tensor]):
    def __len__(self) -> int:
        return 50

    def __getitem__(self, i: int) -> Tensor:
        return torch.arange(3.0 + i % 9)


class TimeFirst(DataModule):
    """Series of different lengths, padded, with the time first."""

    def load(self) -> Any:
        return {"train": Series(), "val": Series()}

    @staticmethod
    def collate(rows: list[Tensor]) -> dict[str, Tensor]:
        ends = torch.stack([row[-1] for row in rows])
        return {"x": nn.utils.rnn.pad_sequence(rows), "y": ends}


class Ends(Module):
    def __init__(self) -> None:
        super().__init__(nn.Linear(1, 1), lr=1e-12)
        nn.init.zeros_(self.hypothesis.weight)  # type: ignore[union-attr]
        nn.init.zeros_(self.hypothesis.bias)  # type: ignore[union-attr]

    def step(self, batch: dict[str, Tensor]) -> Tensor:
        return (self(batch["y"][:, None])[:, 0] - batch["y"]).square().mean()


class CountedEnds(Ends):
    def count_rows(self, batch: dict[str, Tensor]) -> int:
        return len(batch["y"])


def test_the_rows_of_a_batch_are_those_that_the_model_counts(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(CountedEnds(), TimeFirst(batch_size=16), max_epochs=1)
    right = torch.tensor([float(row[-1]) ** 2 for row in map(Series().__getitem__, range(50))]).mean().item()
    assert "has tensors of" not in capsys.readouterr().out
    for split in ("train", "val"):
        assert found.metrics[split]["loss"] == pytest.approx(right, rel=1e-5)
    run(Ends(), TimeFirst(batch_size=16), max_epochs=1)
    out = capsys.readouterr().out
    assert out.count("a batch has tensors of 11 and 16 rows, and counts as 11; count_rows(batch) can tell") == 1


class Drawn(Pairs):
    """A loader of one's own, over the rows of a split."""

    def train_dataloader(self) -> Any:
        rows = self.datasets["train"]
        return DataLoader(rows, 16, sampler=WeightedRandomSampler([1.0] * 50 + [0.0] * 50, 100))


class Summed(Pairs):
    @staticmethod
    def collate(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {name: torch.stack([row[name] for row in rows]) for name in ("x", "y")}


@pytest.mark.parametrize("kind", [Drawn, Summed])
def test_rows_that_are_arrays_are_collated_as_those_of_any_dataset(kind: type[Pairs], workplace: Path) -> None:
    data, same = kind(batch_size=16), Pairs(batch_size=16)
    batches, expected = list(data.train_dataloader()), list(same.train_dataloader())
    assert [each["x"].shape for each in batches] == [each["x"].shape for each in expected]
    for batch in batches:
        torch.testing.assert_close(batch["x"].sum(dim=1), batch["y"])
    if kind is Drawn:  # of which the first half alone may be drawn
        first = {*data.datasets["train"][:50]["y"].tolist()}
        assert {y for batch in batches for y in batch["y"].tolist()} <= first
    found = run(model := AtTimes(), data, max_epochs=1)
    assert found.metrics["train"]["loss"] == pytest.approx(mean_of(model.seen, "loss"), rel=1e-5)
