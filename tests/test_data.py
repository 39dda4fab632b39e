"""Splits and the rows that were made."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from linreg import CSVData, DataModule, InputError, LinearRegression, SyntheticData
from linreg.tables.batches import TensorBatches


def test_a_split_holds_every_row_once() -> None:
    data = SyntheticData(num_rows=103, val_fraction=0.2, test_fraction=0.3)
    assert data.row_counts == {"read": 103, "dropped": 0, "train": 51, "val": 21, "test": 31}
    together = torch.cat([x for x, _ in data.splits.values()])
    assert sorted(map(tuple, together.tolist())) == sorted(map(tuple, data.table.x.tolist()))


def test_a_split_depends_on_its_seed_only() -> None:
    one, same, other = (SyntheticData(split_seed=seed).splits["test"][0] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(("val", "test", "rows"), [(0, 0, (10, 0, 0)), (0.01, 0, (9, 1, 0)), (0, 1, (0, 0, 10))])
def test_fractions_at_the_edges(val: float, test: float, rows: tuple[int, ...]) -> None:
    counts = SyntheticData(num_rows=10, val_fraction=val, test_fraction=test).row_counts
    assert tuple(counts[split] for split in ("train", "val", "test")) == rows


@pytest.mark.parametrize(
    "arguments",
    [{"val_fraction": -0.1}, {"test_fraction": 1.1}, {"val_fraction": 0.6, "test_fraction": 0.6}, {"batch_size": 0}]
    + [{"num_rows": 0}, {"num_features": 0}, {"noise_std": -1.0}, {"noise_std": float("nan")}, {"noise_std": 1e160}]
    + [{"num_rows": 10**15}, {"num_rows": 2**70}, {"num_features": 10**12}, {"num_features": 2**70}]
    + [{name: seed} for name in ("data_seed", "split_seed") for seed in (2**70, -(2**70), 2**32, -1)]
    + [{"num_features": 10**11, "num_rows": 1}, {"num_rows": 10**6, "num_features": 10**6}],
)
def test_settings_out_of_range_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(arguments))) as error:
        SyntheticData(**arguments)
    assert "\n" not in str(error.value)


def test_settings_at_the_edges() -> None:
    data = SyntheticData(noise_std=1e140, data_seed=2**32 - 1, split_seed=2**32 - 1, batch_size=2**70)
    assert (data.table.y**2).sum().isfinite()
    assert data.row_counts["train"] == 800
    for mapped in (False, True):
        (batch,) = TensorBatches(*data.splits["train"], 2**70, seed=0, mapped=mapped)
        assert len(batch[0]) == 800


def test_too_few_rows_to_split() -> None:
    with pytest.raises(InputError, match="too few to split"):
        _ = SyntheticData(num_rows=2).splits


def test_synthetic_rows_follow_the_true_coefficients() -> None:
    table = SyntheticData(num_rows=5_000, num_features=2, noise_std=0.5, data_seed=3).load()
    residual = table.y - table.x @ table.true_coef.T - table.true_intercept
    assert residual.std().item() == pytest.approx(0.5, rel=0.05)
    assert residual.mean().item() == pytest.approx(0, abs=0.03)
    assert table.true_coef.abs().min() >= 1


def test_csv_rows_keep_their_target(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,y\n" + "".join(f"{i},{2 * i + 1}\n" for i in range(50)))
    data = CSVData(str(path), "y")
    for x, y in data.splits.values():
        np.testing.assert_array_equal(y, 2 * x + 1)


class Holes(DataModule):
    def load(self) -> tuple[Tensor, ...]:
        return torch.tensor([torch.nan, *range(19)]), torch.arange(20)


@pytest.mark.parametrize("data", [SyntheticData(), Holes()], ids=["table", "holes"])
@pytest.mark.parametrize("kind", [torch.bool, torch.complex128, torch.int64, torch.float32])
def test_a_fingerprint_of_another_kind_is_none_of_these_rows(kind: torch.dtype, data: Any) -> None:
    assert data.is_same(data.fingerprint)
    assert not data.is_same(data.fingerprint[:2])
    assert not data.is_same(data.fingerprint.to(kind))


def test_a_split_without_rows_is_in_no_other_unit(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,y\n" + "".join(f"{i},{2 * i + 1}\n" for i in range(50)))
    data: Any = CSVData(str(path), "y", test_fraction=0)
    data.trainer = SimpleNamespace(lightning_module=LinearRegression(1))
    data.setup("test")


class Scaled(DataModule):
    """Rows in which one column is far smaller than the other, and has a hole."""

    def __init__(self, order: tuple[int, ...] = (0, 1, 2), seed: int = 0, hole: int = 3) -> None:
        super().__init__()
        self.order, self.seed, self.hole = order, seed, hole

    def load(self) -> tuple[Tensor, Tensor]:
        x = 1e-12 * torch.randn(200, 3, generator=torch.Generator().manual_seed(self.seed))
        x[self.hole, 1] = torch.nan
        return x[:, list(self.order)], torch.arange(200)


@pytest.mark.parametrize("change", [{"order": (2, 1, 0)}, {"seed": 1}, {"hole": 7}], ids=["order", "seed", "hole"])
def test_other_values_are_other_rows_at_any_scale(change: dict[str, Any]) -> None:
    before = Scaled().fingerprint
    assert Scaled().is_same(before)
    assert Scaled().is_same(before[:, :2])  # as an older version has left it
    assert not Scaled(**change).is_same(before)
