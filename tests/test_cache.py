"""A table larger than memory: the same rows, the same answer, and a file that is trusted only while it is whole."""

import os
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from linreg import CSVData, RunError, read_csv
from linreg.cache import _convert as convert
from linreg.data import MAX_CELLS
from linreg.loader import MIXED, NEAR, TensorBatches
from tests.conftest import Train, read_rows

ROWS = 5_000


@pytest.fixture(autouse=True)
def _small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_CELLS * 8 == 1 << 27
    monkeypatch.setattr("linreg.data.MAX_CELLS", 1_000)
    monkeypatch.setattr("linreg.cache.BUCKET", 1 << 14)  # several buckets


def table(path: Path, year: bool = False) -> np.ndarray:
    """A CSV file with a text column and 10 rows that lack a cell; returns its complete rows (a, b, y)."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 2)) * [1, 50] + [0, 2_000 if year else 0]
    values = np.column_stack([x, x @ [2, -3] + 1 + rng.normal(size=ROWS)]).round(4)
    lines = [f"{a},word,{b},{y}" for a, b, y in values.tolist()]
    lines[7::500] = ["NA" + line[line.index(",") :] for line in lines[7::500]]
    path.write_text("a,t,b,y\n" + "\n".join(lines) + "\n")
    return np.delete(values, np.s_[7::500], axis=0)


def in_order(rows: np.ndarray | torch.Tensor) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float64)
    return rows[np.lexsort(rows.T)]


def data(seed: int = 0) -> CSVData:
    return CSVData("t.csv", "y", cache="cache", split_seed=seed)


@pytest.mark.parametrize("year", [False, True])
def test_the_same_rows_in_random_order(workplace: Path, year: bool) -> None:
    rows = table(Path("t.csv"), year)
    mapped = data()
    assert mapped.row_counts == {"read": ROWS, "dropped": 10, "train": 3_992, "val": 499, "test": 499}
    x = torch.cat([x for x, _ in mapped.splits.values()])
    y = torch.cat([y for _, y in mapped.splits.values()])
    dtype = torch.float64 if year else torch.float32  # which would keep 4 digits of a year's spread
    assert x.dtype == dtype
    np.testing.assert_array_equal(in_order(torch.cat([x, y], 1)), in_order(torch.tensor(rows).to(dtype)))
    assert abs(np.corrcoef(np.arange(len(x)), [r[0] for r in x.tolist()])[0, 1]) < 0.05
    assert not np.array_equal(x[:100, 0], rows[:100, 0].astype(np.float32))
    notes = "; ".join(mapped.table.notes)
    assert "left out 't'" in notes
    assert f"dropped 10 of {ROWS} rows for a missing cell in: 'a' 10" in notes
    assert not list(Path("cache").glob(".*"))
    for batches in (mapped.train_dataloader(), mapped.val_dataloader(), mapped.in_order("test")):
        for x, y in batches:
            x += 1  # a batch is the receiver's own, even where the table cannot be written to
            y += 1


def test_it_is_made_once_for_each_source_and_seed(workplace: Path) -> None:
    table(Path("t.csv"))
    first = data().splits["test"][0].clone()
    (place,) = Path("cache").iterdir()
    made = (place / "rows").stat().st_ino
    again = data()
    assert torch.equal(again.splits["test"][0], first)
    assert again.table.notes[-1] == f"mapped from {place}"
    assert (place / "rows").stat().st_ino == made
    assert not torch.equal(data(seed=1).splits["test"][0], first)
    text = Path("t.csv").read_text()
    Path("t.csv").write_text(text + "1,word,2,3\n")
    assert data().row_counts["read"] == ROWS + 1
    before = Path("t.csv").stat().st_mtime_ns
    Path("t.csv").write_text(text + "1,word,2,4\n")  # of the same size
    os.utime("t.csv", ns=(before, before + 2 * 10**9))  # some file systems count whole seconds, and this took less
    assert data().row_counts["read"] == ROWS + 1
    assert len(list(Path("cache").iterdir())) == 4


@pytest.mark.parametrize("damage", ["a flipped bit", "cut off", "no record", "a record cut off", "another version"])
def test_a_broken_one_is_made_again(workplace: Path, damage: str) -> None:
    table(Path("t.csv"))
    first = data().splits["train"][0].clone()
    (place,) = Path("cache").iterdir()
    rows, record = place / "rows", place / "table.json"
    if damage == "a flipped bit":
        content = bytearray(rows.read_bytes())
        content[12_345] ^= 4
        rows.write_bytes(content)
    elif damage == "cut off":
        rows.write_bytes(rows.read_bytes()[:-4])
    elif damage == "no record":
        record.unlink()
    elif damage == "a record cut off":
        record.write_text(record.read_text()[:-9])
    else:
        record.write_text("[]")
    again = data()
    assert torch.equal(again.splits["train"][0], first)
    assert again.table.notes[-1].startswith("converted")


def test_a_cache_that_cannot_be_written_is_said_in_one_line(train: Train) -> None:
    table(Path("t.csv"))
    Path("cache").write_text("in the way")
    with pytest.raises(RunError, match=r"t\.csv does not fit memory .* --data\.cache"):
        data().splits  # noqa: B018
    code, text = train("--data.path", "t.csv", "--data.target", "y", "--data.cache", "cache")
    assert (code, text.count("\n")) == (1, 1)


def test_an_epoch_holds_every_row_once_and_mixes_far_and_near() -> None:
    rows = torch.arange(200_000)[:, None]
    batches = TensorBatches(rows, rows, 1_000, seed=0, mapped=True)
    epochs = []
    for epoch in (0, 1, 0):
        batches.set_epoch(epoch)
        epochs.append([x.flatten() for x, _ in batches])
        assert torch.equal(torch.cat(epochs[-1]).sort().values, rows.flatten())
    assert all(map(torch.equal, epochs[0], epochs[2]))
    assert not torch.equal(epochs[0][0], epochs[1][0])
    assert max(len({int(row) // NEAR for row in batch}) for batch in epochs[0]) <= 2 * MIXED
    assert min(len({int(row) // NEAR for row in batch}) for batch in epochs[0][:-10]) > MIXED // 2


def test_a_run_from_it_is_a_run_from_memory(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same exact solution and, as near as two orders of the same rows can be, the same learned one."""
    table(Path("t.csv"))
    typed = ["--data.path", "t.csv", "--data.target", "y", "--data.cache", "cache", "--data.val_fraction", 0]
    typed += ["--data.test_fraction", 0]
    assert train(*typed, "--name", "mapped")[0] == 0
    monkeypatch.setattr("linreg.data.MAX_CELLS", MAX_CELLS)
    assert train(*typed, "--name", "memory")[0] == 0
    mapped, memory = (read_rows(f"runs/{name}/version_0/coefficients.csv") for name in ("mapped", "memory"))
    for one, other in zip(mapped, memory, strict=True):
        assert float(one["exact"]) == pytest.approx(float(other["exact"]), rel=1e-6)
        assert float(one["learned"]) == pytest.approx(float(other["learned"]), rel=0.02)


def test_a_run_from_it_goes_on_to_the_bit(train: Train) -> None:
    table(Path("t.csv"))
    typed = ["--data.path", "t.csv", "--data.target", "y", "--data.cache", "cache", "--data.batch_size", 64]
    assert train(*typed, "--max_epochs", 4, "--name", "whole")[0] == 0
    assert train(*typed, "--max_epochs", 2, "--name", "halves")[0] == 0
    assert train("--ckpt_path", "runs/halves/version_0/checkpoints/last.ckpt", "--max_epochs", 4)[0] == 0
    whole, halves = (
        torch.load(f"runs/{name}/version_0/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "halves")
    )
    assert all(torch.equal(whole[key], halves[key]) for key in whole)


def test_files_of_a_folder_are_one_table(workplace: Path) -> None:
    rows = table(Path("t.csv"))
    header, *lines = Path("t.csv").read_text().splitlines()
    Path("parts").mkdir()
    for i in range(3):
        Path(f"parts/{i}.csv").write_text("\n".join([header, *lines[i::3]]))
    mapped = CSVData("parts", "y", cache="cache", val_fraction=0, test_fraction=0)
    found = torch.cat(mapped.splits["train"], 1)
    np.testing.assert_array_equal(in_order(found), in_order(rows.astype(np.float32)))
    assert list(chain(*read_csv("parts", "y").y.tolist())) != list(chain(*found[:, 2:].tolist()))


def test_another_run_that_converts_at_the_same_time(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table(Path("t.csv"))
    Path("cache/.other.1.tmp").mkdir(parents=True)
    Path("cache/.other.1.tmp/0").symlink_to("gone")  # as a file that goes between being listed and being looked at
    made: list[int] = []

    def slow(*arguments: object) -> None:
        convert(*arguments)
        monkeypatch.undo()
        monkeypatch.setattr("linreg.data.MAX_CELLS", 1_000)
        monkeypatch.setattr("linreg.cache.BUCKET", 1 << 14)
        monkeypatch.setattr("linreg.cache.os.getpid", lambda: 0)
        monkeypatch.chdir(workplace)
        data().splits  # noqa: B018
        made.extend(path.stat().st_ino for path in Path("cache").glob("*/rows") if path.parent.name[0] != ".")

    monkeypatch.setattr("linreg.cache._convert", slow)
    first = data().splits["train"][0]
    (place,) = (path for path in Path("cache").iterdir() if not path.name.startswith("."))
    assert [(place / "rows").stat().st_ino] == made  # the one that was there first stays
    assert torch.equal(first, data().splits["train"][0])
