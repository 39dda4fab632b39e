"""A table larger than memory: the same rows, the same answer, and a file that is trusted only while it is whole."""

import gzip
import importlib
import json
import os
import re
import resource
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from linreg import CSVData, InputError, RunError, read_csv
from linreg.tables.batches import MIXED, NEAR, TensorBatches
from linreg.tables.conversion import convert
from linreg.tables.csv_data import MAX_CELLS
from linreg.tables.reader import TableReader
from tests.conftest import Train, completed, read_rows
from tests.test_files import dead_process, of_process

ROWS = 5_000


@pytest.fixture(autouse=True)
def _small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_CELLS * 8 == 1 << 27
    monkeypatch.setattr("linreg.tables.csv_data.MAX_CELLS", 1_000)
    monkeypatch.setattr("linreg.tables.conversion.BUCKET", 1 << 14)  # several buckets


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
    for batches in (mapped.train_dataloader(), mapped.val_dataloader(), mapped.evaluation_batches("test")):
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


def test_an_epoch_is_drawn_a_part_at_a_time() -> None:
    """All row numbers of a table larger than memory might not fit either."""
    rows = torch.arange(200_000)[:, None]
    batches = TensorBatches(rows, rows, 30_000, seed=0, mapped=True)
    assert max(len(part) for part in batches._drawn(len(rows))) == NEAR * MIXED
    whole = [x for x, _ in batches]
    for seen in range(7):
        batches.seen = seen
        assert all(map(torch.equal, [x for x, _ in batches], whole[seen:]))


def test_a_run_from_it_is_a_run_from_memory(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same exact solution and, as near as two orders of the same rows can be, the same learned one."""
    table(Path("t.csv"))
    typed = ["--data.path", "t.csv", "--data.target", "y", "--data.cache", "cache", "--data.val_fraction", 0]
    typed += ["--data.test_fraction", 0]
    assert train(*typed, "--name", "mapped")[0] == 0
    monkeypatch.setattr("linreg.tables.csv_data.MAX_CELLS", MAX_CELLS)
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


FRUGAL = """
import sys, threading, time
from pathlib import Path
import linreg
import linreg.tables.csv_data

def memory() -> int:  # of the process's own, in kB: not what is mapped from files
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0])

linreg.tables.csv_data.MAX_CELLS, peak = 1_000, 0
data = linreg.CSVData("t.parquet", "y", cache="cache", batch_size=65_536, test_fraction=0.6)
print(data.num_features)  # and now it is converted
before = memory()

def watch() -> None:
    global peak
    while True:
        peak = max(peak, memory())
        time.sleep(0.002)

threading.Thread(target=watch, daemon=True).start()
linreg.run(linreg.LinearRegression(32), data, max_epochs=1)
print("MB", (peak - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says how much memory is a process's own")
def test_a_run_from_it_holds_no_part_of_it(workplace: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = importlib.import_module("pyarrow")
    x = np.random.default_rng(0).integers(-9, 9, (1_500_000, 32), dtype=np.int8)
    columns = {f"x{i}": x[:, i] for i in range(32)} | {"y": x.sum(axis=1, dtype=np.int16)}
    parquet.write_table(arrow.table(columns), "t.parquet")
    done = completed([sys.executable, "-c", FRUGAL])
    assert int(done.stdout.split("MB")[1]) < 150, done.stdout  # float64 test rows are 230


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
        monkeypatch.setattr("linreg.tables.csv_data.MAX_CELLS", 1_000)
        monkeypatch.setattr("linreg.tables.conversion.BUCKET", 1 << 14)
        monkeypatch.setattr("linreg.tables.memmap.os.getpid", lambda: 0)
        monkeypatch.setattr("linreg.tables.memmap.alone", nullcontext)  # a drive on which a lock holds nobody off
        monkeypatch.chdir(workplace)
        data().splits  # noqa: B018
        made.extend(path.stat().st_ino for path in Path("cache").glob("*/rows") if path.parent.name[0] != ".")

    monkeypatch.setattr("linreg.tables.memmap.convert", slow)
    first = data().splits["train"][0]
    (place,) = (path for path in Path("cache").iterdir() if not path.name.startswith("."))
    assert [(place / "rows").stat().st_ino] == made  # the one that was there first stays
    assert torch.equal(first, data().splits["train"][0])


def converted(columns: dict[str, np.ndarray]) -> torch.dtype:
    """The type that the table of some columns and a target is kept with; blocks of a few thousand rows."""
    rng = np.random.default_rng(1)
    columns = columns | {"y": rng.normal(size=len(next(iter(columns.values()))))}
    lines = [",".join("" if v != v else repr(v) for v in row) for row in np.column_stack([*columns.values()]).tolist()]
    Path("t.csv").write_text("\n".join([",".join(columns), *lines]) + "\n")
    x = torch.cat([x for x, _ in data().splits.values()])
    held = in_order(x)
    rows = np.column_stack(list(columns.values()))[:, :-1]
    rows = rows[~np.isnan(rows).any(axis=1)]
    np.testing.assert_array_equal(held, in_order(rows.astype(np.float32) if x.dtype == torch.float32 else rows))
    return x.dtype


N = 40_000  # rows of about 40 bytes: a block of 64 kB, then two of 1 MB
rng = np.random.default_rng(0)
NORMAL = rng.normal(size=N)
TIMES = 1_699_999_990 + rng.uniform(0, 20, size=N).round(3)


def changed(values: np.ndarray, place: slice | int, to: Any) -> np.ndarray:
    values = values.copy()
    values[place] = to[place] if isinstance(to, np.ndarray) else to
    return values


FINE = {
    "times with a missing cell above": changed(TIMES, 7, np.nan),
    "times with a missing cell in each block": changed(TIMES, slice(None, None, 500), np.nan),
    "times in the second half": changed(NORMAL, slice(N // 2, None), TIMES),
    "times in the last rows": changed(NORMAL, slice(N - 9_000, None), TIMES),
    "years in the second half": changed(NORMAL, slice(N // 2, None), NORMAL + 2_000),
    "times in every other row": changed(TIMES, slice(None, None, 2), 0.0),
    "times in one row of 8": np.where(np.arange(N) % 8, -1.0, TIMES),
    "times among normal values": changed(TIMES, slice(None, None, 3), NORMAL),
    "times, mostly missing": np.where(np.arange(N) % 100, np.nan, TIMES),
    "a time in each block": 1_700_000_000 + (np.arange(N) // 500) * 10.0,
    "too large, in the last row": changed(NORMAL, N - 1, 1e60),
    "too large, in a row": changed(NORMAL, N // 2, -3.5e38),
    "0 in float32": changed(NORMAL, N - 1, 1e-60),
    "subnormal in float32": changed(NORMAL, N - 2, 1e-39),
    "small throughout": NORMAL * 1e-60,
    "a narrow spread": 1 + NORMAL * 1e-6,
}
PLAIN = {
    "normal": NORMAL,
    "times in days, whole": np.floor(TIMES / 86_400) + np.arange(N) // 80,
    "whole numbers far from 0": 16_000_000.0 + np.arange(N) % 7,
    "a constant": np.full(N, 0.1),
    "a constant but for one row": changed(np.full(N, 0.1), N // 2, 5.0),
    "yes and no": (NORMAL > 1).astype(float),
    "zeros and normal": changed(NORMAL, slice(None, None, 2), 0.0),
    "lognormal": np.exp(3 * NORMAL),
    "of all sizes": NORMAL * 10.0 ** rng.integers(-20, 20, size=N),
    "prices": (50 + 20 * NORMAL).round(2),
    "mostly missing": np.where(np.arange(N) % 50, np.nan, NORMAL),
    "the smallest normal": changed(NORMAL, 5, 1.2e-38),
    "the largest": changed(NORMAL, 5, 3.4e38),
}


@pytest.mark.parametrize("name", [*FINE, *PLAIN])
def test_float64_where_float32_would_lose_what_a_column_says(name: str, workplace: Path) -> None:
    other = rng.normal(size=N)
    expected = torch.float64 if name in FINE else torch.float32
    assert converted({"a": (FINE | PLAIN)[name], "b": other}) == expected


def test_a_short_last_block_is_no_accident(workplace: Path) -> None:
    for rows in (1_648, 1_649, 1_660):  # of 40 bytes: the second block has 1 row, or a few
        assert converted({"a": 3 + NORMAL[:rows], "b": NORMAL[-rows:]}) == torch.float32
    assert converted({"a": changed(NORMAL[:1_660], 1_659, 1e60), "b": NORMAL[:1_660]}) == torch.float64


def test_columns_too_many_for_a_spread_in_a_block_are_judged(workplace: Path) -> None:
    """13 rows in a block."""
    Path("t.csv").write_text(",".join(["y", *(f"c{i}" for i in range(3_000))]) + "\n")
    with Path("t.csv").open("a") as file:
        for row in np.column_stack([NORMAL[:200], TIMES[:200]]).tolist():
            file.write(f"{row[0]},{row[1]!r}" + ",1.5" * 2_999 + "\n")
    assert data().table.x.dtype == torch.float64


def test_the_exact_solution_of_times(train: Train) -> None:
    y = 0.1 * (TIMES - TIMES.mean()) + 0.01 * NORMAL
    lines = [f"{t!r},{v!r}" for t, v in zip(TIMES.tolist(), y.tolist(), strict=True)]
    lines[3] = "," + lines[3].split(",")[1]
    Path("t.csv").write_text("\n".join(["a,y", *lines]))
    assert train("--data.path", "t.csv", "--data.target", "y", "--data.cache", "cache", "--max_epochs", 1)[0] == 0
    assert float(read_rows("runs/default/version_0/coefficients.csv")[0]["exact"]) == pytest.approx(0.1, rel=1e-3)


def test_only_what_a_dead_conversion_left_is_removed(workplace: Path, tmp_path: Path) -> None:
    table(Path("t.csv"))
    cache, dead = Path("cache"), dead_process()
    made = cache / ("0" * 20)
    ours, alive, strange, linked, inner = (
        of_process(made, *who) for who in ((dead, 0), (os.getppid(), 0), (dead, 1), (dead, 2), (dead, 3))
    )
    foreign = [cache / ".old.tmp", cache / f".{'0' * 20}.{dead}.tmp", of_process(cache / "mine", dead)]
    foreign += [ours.with_name(ours.name.replace(f".{dead}-", f"x.{dead}-"))]  # of another machine
    for folder in (ours, alive, strange, inner, *foreign):
        folder.mkdir(parents=True)
        for name in ("0", "17", "rows", "table.json"):
            (folder / name).write_text("half")
    (strange / "thesis.tex").write_text("precious")
    (inner / "5").mkdir()
    (inner / "5/fresh").write_text("precious")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/rows").write_text("precious")
    linked.symlink_to(tmp_path / "elsewhere")
    for folder in foreign:
        os.utime(folder, (0, 0))
    data().splits  # noqa: B018
    assert not ours.exists()
    for folder in (alive, strange, inner, *foreign):
        assert len(list(folder.iterdir())) >= 4
    assert (tmp_path / "elsewhere/rows").exists()


def test_a_folder_of_somebody_else_in_its_place_stays(workplace: Path) -> None:
    table(Path("t.csv"))
    data().splits  # noqa: B018
    (place,) = Path("cache").iterdir()
    (place / "rows").unlink()
    (place / "thesis.tex").write_text("precious")
    with pytest.raises(RunError, match="not empty"):
        data().splits  # noqa: B018
    assert sorted(file.name for file in place.iterdir()) == ["table.json", "thesis.tex"]
    assert list(Path("cache").iterdir()) == [place]
    (place / "thesis.tex").rename("thesis.tex")
    assert data().row_counts["read"] == ROWS


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_it_is_its_owners_alone(workplace: Path, umask: int) -> None:
    table(Path("t.csv"))
    before = os.umask(umask)
    try:
        data().splits  # noqa: B018
    finally:
        os.umask(before)
    (place,) = Path("cache").iterdir()
    assert oct(place.stat().st_mode & 0o777) == "0o700"
    assert {oct(file.stat().st_mode & 0o777) for file in place.iterdir()} == {"0o600"}


def sign(record: dict[str, Any], rows: bytes) -> None:
    """Puts the checksum right, as who understands the format could."""
    record.pop("checksum", None)
    record["checksum"] = zlib.crc32(json.dumps(record).encode(), zlib.crc32(rows))


HUGE = 10**4_000
POISON: dict[str, Callable[[dict[str, Any]], Any]] = {
    **{f"dtype {kind!r}": (lambda r, k=kind: r.update(dtype=k)) for kind in ("object", "S4", "int32", "f4", 5, None)},
    "another dtype": lambda r: r.update(dtype="float64", rows=r["rows"] // 2),
    "dtype a list": lambda r: r.update(dtype=[["a", "f4"]]),
    **{
        f"{key} {str(number)[:9]}": (lambda r, k=key, n=number: r.update({k: n}))
        for key in ("rows", "read")
        for number in (-1, 0, HUGE, 1e308, float("nan"), True, "5", None, [1])
    },
    "rows and read negative": lambda r: r.update(rows=-r["rows"], read=-r["rows"]),
    "other columns": lambda r: r.update(kept=[0, 2, 4]),
    "another order": lambda r: r.update(kept=r["kept"][::-1]),
    "a column twice": lambda r: r.update(kept=[0, 1, 1]),
    "a column that is none": lambda r: r.update(kept=[0, 1, 99]),
    "negative columns": lambda r: r.update(kept=[-3, -2, -1]),
    "no feature": lambda r: r.update(kept=[0], rows=r["rows"] * 3, read=r["read"] * 3),
    "no target": lambda r: r.update(kept=[1, 2, 3]),
    "columns of text": lambda r: r.update(kept="013"),
    "columns as fractions": lambda r: r.update(kept=[0.0, 1.0, 3.0]),
    "columns in lists": lambda r: r.update(kept=[[0], [1], [3]]),
    "no columns": lambda r: r.pop("kept"),
    "notes a number": lambda r: r.update(notes=7),
    "notes of numbers": lambda r: r.update(notes=[7]),
    "notes text": lambda r: r.update(notes="evil"),
    "notes an object": lambda r: r.update(notes={"a": 1}),
    "checksum text": lambda r: r.update(checksum="x"),
    "empty": lambda r: r.clear(),
}


@pytest.mark.parametrize("signed", [True, False])
def test_a_poisoned_record_is_made_again(workplace: Path, signed: bool) -> None:
    table(Path("t.csv"))
    first = data().splits["train"][0].clone()
    (place,) = Path("cache").iterdir()
    good, rows = (place / "table.json").read_text(), (place / "rows").read_bytes()
    for name, change in POISON.items():
        record = json.loads(good)
        change(record)
        if signed and name not in ("checksum text", "empty", "another dtype"):  # who signs that can put any rows there
            sign(record, rows)
        (place / "table.json").write_text(json.dumps(record))
        again = data()
        assert torch.equal(again.splits["train"][0], first), name
        assert again.table.notes[-1].startswith("converted"), name
        assert (place / "table.json").read_text() == good, name


@pytest.mark.parametrize(
    "text", ["null", "7", '"x"', "[" * 100_000, '{"a":' * 100_000, "[1]", "\0", "9" * 5_000, "{}", "\ud800"]
)
def test_a_record_that_is_none(workplace: Path, text: str) -> None:
    table(Path("t.csv"))
    first = data().splits["train"][0].clone()
    (place,) = Path("cache").iterdir()
    (place / "table.json").write_bytes(text.encode(errors="surrogatepass"))
    assert torch.equal(data().splits["train"][0], first)


@pytest.mark.parametrize("file", ["table.json", "rows"])
def test_a_file_of_gigabytes_in_it_is_not_read(workplace: Path, file: str) -> None:
    table(Path("t.csv"))
    first = data().splits["train"][0].clone()
    (place,) = Path("cache").iterdir()
    os.truncate(place / file, 1 << 43)
    start = time.perf_counter()
    assert torch.equal(data().splits["train"][0], first)
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize("file", ["table.json", "rows"])
def test_a_pipe_in_the_place_of_a_file_does_not_wait(workplace: Path, file: str) -> None:
    table(Path("t.csv"))
    data().splits  # noqa: B018
    (place,) = Path("cache").iterdir()
    (place / file).unlink()
    os.mkfifo(place / file)
    with pytest.raises(RunError, match="not empty"):
        data().splits  # noqa: B018


@pytest.mark.parametrize("kilobytes", [8, 48, 100])
def test_a_full_disk_says_so(workplace: Path, kilobytes: int) -> None:
    """The first time in a bucket of 16 kB, then in the rows, 60 kB, early and late."""
    table(Path("t.csv"))
    code = "import linreg.tables.csv_data, linreg.tables.conversion; linreg.tables.csv_data.MAX_CELLS = 1_000\n"
    code += f"linreg.tables.conversion.BUCKET = {1 << 14}\n"
    code += "linreg.tables.csv_data.CSVData('t.csv', 'y', cache='cache').splits"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1_000,) * 2),
    )
    if kilobytes < 60:
        assert re.search(r"RunError: .*could not be converted in cache: File too large;", done.stderr), done.stderr
        assert not list(Path("cache").iterdir())
    else:
        assert done.returncode == 0, done.stderr


def test_what_is_packed_tight_is_mapped_all_the_same(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("t.csv.gz").write_bytes(gzip.compress(b"a,b,y\n" + b"1,2,3\n4,5,7\n" * 10_000))
    read: list[float] = []
    stack = TableReader.read

    def counted(source: TableReader, most: float = 1e9) -> np.ndarray | None:
        found = stack(source, most)
        read.append(source.num_read)
        return found

    monkeypatch.setattr(TableReader, "read", counted)
    packed = CSVData("t.csv.gz", "y", cache="cache")
    assert packed.row_counts["read"] == 20_000
    assert packed.table.mapped
    assert sorted(packed.table.y.flatten().tolist()) == [3.0] * 10_000 + [7.0] * 10_000
    assert read[0] < 20_000
    assert len(read_csv("t.csv.gz", "y").x) == 20_000
    Path("t.csv").write_bytes(b"a,b,y\n" + b"1,2,3\n" * 1_000)
    assert not CSVData("t.csv", "y", cache="cache").table.mapped
    Path("t.csv").write_bytes(b"a,b,y,c,d,e,f,g,h,i\n" + b"1,2,3,,,,,,,\n" * 600)
    monkeypatch.setattr("linreg.tables.csv_data.MAX_CELLS", 1_200)
    assert CSVData("t.csv", "y", cache="cache").table.mapped


def test_a_source_that_changes_between_two_conversions(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table(Path("t.csv"), year=True)
    again = TableReader.again

    def change(source: TableReader) -> TableReader:
        if source.num_read:
            table(Path("t.csv"))
        return again(source)

    monkeypatch.setattr(TableReader, "again", change)
    with pytest.raises(InputError, match="changed while it was read"):
        data().splits  # noqa: B018
    assert not list(Path("cache").iterdir())
