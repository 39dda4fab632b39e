"""Columns of text as features: the same rows as with columns of 0 and 1 made by hand, wherever they come from."""

import gzip
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from linreg import CSVData, InputError, LinearRegression, Table, read_csv
from linreg.tables.prediction import PredictionData
from tests.conftest import Train, read_metrics, read_rows
from tests.tools import CKPT, load, ols

PENGUINS = Path(__file__).parents[1] / "configs/penguins.csv"
TEXT = "kind,a,ok,y\nq,1,true,3\np,2,false,4\nr,3,true,5\nq,4,false,7\n"
NAMES = ["kind=q", "kind=r", "a", "ok=true"]
ROWS = [[1, 0, 1, 1], [0, 0, 2, 0], [0, 1, 3, 1], [1, 0, 4, 0]]


def write(name: str, content: str | bytes) -> Path:
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def by_hand(rows: list[dict[str, str]], numbers: list[str], texts: list[str]) -> np.ndarray:
    """The design matrix of complete rows."""
    columns = [np.array([float(row[name]) for row in rows]) for name in numbers]
    for name in texts:
        levels = sorted({row[name] for row in rows})
        columns += [np.array([float(row[name] == level) for row in rows]) for level in levels[1:]]
    return np.column_stack(columns)


def test_each_level_but_the_first_is_a_column(workplace: Path) -> None:
    path = write("t.csv", TEXT)
    for categories in ("all", ["kind", "ok"], {"ok": ["false", "true"], "kind": ["p", "q", "r"]}):
        table = read_csv(path, "y", categories=categories)
        assert (table.feature_names, table.x.tolist()) == (NAMES, ROWS)
        assert table.levels == {"kind": ["p", "q", "r"], "ok": ["false", "true"]}
        assert "'kind' has the levels 'p', left out as the reference, 'q', 'r'" in table.notes
    table = read_csv(path, "y", categories={"kind": ["r", "q", "p"]})  # any level may be the first
    assert (table.feature_names, table.x[:, :2].tolist()) == (
        ["kind=q", "kind=p", "a"],
        [[1, 0], [0, 1], [0, 0], [1, 0]],
    )
    assert "left out 'ok' (text: 'true' in line 2)" in table.notes[0]
    table = read_csv(path, "y", ["a"], categories="kind")
    assert table.feature_names == ["a", "kind=q", "kind=r"]
    table = read_csv(path, "y", ["ok", "a"], categories="all")
    assert table.feature_names == ["ok=true", "a"]


def test_levels_that_differ_by_capitals_only_are_said(workplace: Path) -> None:
    rows = "".join(f"{level},{i}\n" for i, level in enumerate(["Nord", "Süd", "nord", "west", "SÜD"] * 2))
    notes = read_csv(write("t.csv", "region,y\n" + rows), "y", categories="all").notes
    assert "'region': 'SÜD' and 'Süd', 'Nord' and 'nord' differ by capitals only, and count as two levels" in notes
    rows = rows.replace("nord", "ost").replace("SÜD", "ost")
    assert "capitals" not in str(read_csv(write("t.csv", "region,y\n" + rows), "y", categories="all").notes)


def test_a_level_that_may_stand_for_a_missing_cell_is_said(train: Train, workplace: Path) -> None:
    marks = ["-", "--", ".", "?", "Missing", "unknown", "(blank)", "None", "#REF!", "na", "k.A.", "n.a."]
    cells = ["Nord", "Süd", "n/a", "#N/A", *marks, "Nana", "Unna", "-1", "#7", "a?"]
    path = write("t.csv", "Region,y\n" + "".join(f"{cell},{i}\n" for i, cell in enumerate(cells)))
    table = read_csv(path, "y", categories="all")
    assert {"n/a", "#N/A"} & {*table.levels["Region"]} == set()
    assert table.num_read - len(table.x) == 2
    (line,) = (note for note in table.notes if "stands for a missing cell" in note)
    asked = json.loads(line.partition("--data.missing_values ")[2].strip("'"))
    assert sorted(asked) == sorted(marks)
    flags = ["--data.path", "t.csv", "--data.target", "y", "--data.categories", "all", "--max_epochs", 1]
    _, out = train("fit", *flags, *shlex.split("--data.missing_values " + shlex.quote(json.dumps(asked))))
    assert "stands for a missing cell" not in out
    assert "dropped 14 of 21 rows for a missing cell in: 'Region' 14" in " ".join(out.split())
    _, out = train(
        "fit", *flags[:-2], "--max_epochs", 1, "--data.missing_values", json.dumps([m for m in marks if m != "-"])
    )
    assert """'Region': if '-' stands for a missing cell, give --data.missing_values '["-"]'""" in " ".join(out.split())


@pytest.mark.parametrize(
    ("cells", "is_date"),
    [
        ([f"2024-01-{i:02}" for i in range(1, 29)], True),
        ([f"{i}.3.24" for i in range(1, 29)], True),
        ([f"{i:02}/12/2024 12:30" for i in range(1, 29)], True),
        ([f"2024-01-{i:02}T12:30:00Z" for i in range(1, 29)], True),
        (["-", "n.d.", *(f"2024/1/{i}" for i in range(1, 9))], True),
        ([f"{i}-{i}" for i in range(1, 29)], False),
        ([f"192.168.1.{i}" for i in range(1, 29)], False),
        ([f"A2024-01-{i:02}" for i in range(1, 29)], False),
        (["2024-01-01", "Nord", "Süd"], False),
    ],
)
def test_a_category_of_dates_is_said(cells: list[str], is_date: bool, workplace: Path) -> None:
    path = write("t.csv", "Datum,a,y\n" + "".join(f"{cell},{i * i},{i % 5}\n" for i, cell in enumerate(cells)))
    notes = " ".join(read_csv(path, "y", categories="all").notes)
    assert ("these are dates, which --data.exclude '[Datum]' leaves out" in notes) == is_date


SOURCES = ["gzip", "semicolons", "quotes", "folder", "parquet", "dictionary", "mapped", "frame"]


@pytest.mark.parametrize("source", SOURCES)
def test_wherever_it_comes_from(source: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {"kind": list("qprq"), "a": [1, 2, 3, 4], "ok": [True, False] * 2, "y": [3.0, 4, 5, 7]}
    names = NAMES if source not in ("parquet", "dictionary", "frame") else [*NAMES[:3], "ok=True"]
    if source == "gzip":
        path = write("t.csv.gz", gzip.compress(TEXT.encode()))
    elif source == "semicolons":
        path = write("t.csv", TEXT.replace(",", ";"))
    elif source == "quotes":
        path = write("t.csv", TEXT.replace("q", '"q"').replace("p", '"p"'))
    elif source == "folder":
        head, *lines = TEXT.splitlines()
        path = write("all/1.csv", "\n".join([head, *lines[:1]])).parent
        write("all/2.csv", "\n".join([head, *lines[1:]]))
    elif source in ("parquet", "dictionary"):
        if source == "dictionary":
            kinds = pa.DictionaryArray.from_arrays(pa.array([2, 1, 0, 2]), pa.array(["r", "p", "q", "unused"]))
            columns["kind"] = kinds
        path = Path("t.parquet")
        parquet.write_table(pa.table(columns), path)
    elif source == "mapped":
        monkeypatch.setattr("linreg.tables.csv_data.MAX_CELLS", 0)
        path = write("t.csv", TEXT)
    if source == "mapped":
        for _ in range(2):  # converted, and found again
            table = CSVData(str(path), "y", categories="all", cache="cache").table
            order = sorted(range(4), key=lambda i: (table.x[i, 2],))
            assert table.mapped
            assert (table.feature_names, table.x[order].tolist()) == (names, ROWS)
            assert table.levels["kind"] == ["p", "q", "r"]
        return
    if source == "frame":
        table = Table.from_frame(pa.table(columns), "y", categories="all")
    else:
        table = read_csv(path, "y", categories="all")
    assert (table.feature_names, table.x.tolist()) == (names, ROWS)


@pytest.mark.parametrize("arrow", [True, False])
@pytest.mark.parametrize("categories", ["all", ["t", "n"]])
def test_a_large_file(
    categories: str | list[str], arrow: bool, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of which pyarrow takes the plain blocks, on several threads, and the csv module those with quotes."""
    if not arrow:
        monkeypatch.setattr("linreg.files.blocks.import_arrow", lambda: None)
    generator = np.random.default_rng(0)
    texts = np.array(["10", "9", "é", "NA", " b", '"b"', "4"])[generator.integers(0, 7, 120_000)]
    texts[:60_000][texts[:60_000] == '"b"'] = "b"  # so that there are plain blocks
    texts[0] = "é"
    numbers = generator.integers(8, 12, 120_000)
    y = generator.normal(size=120_000).round(3)
    lines = [f"{t},{n},{v}" for t, n, v in zip(texts.tolist(), numbers.tolist(), y.tolist(), strict=True)]
    table = read_csv(write("t.csv", "t,n,y\n" + "\n".join(lines)), "y", categories=categories)
    whole = texts != "NA"
    clean = np.char.strip(np.char.strip(texts[whole], '"'))
    expected = [clean == level for level in ("4", "9", "b", "é")]
    expected += [numbers[whole]] if categories == "all" else [numbers[whole] == level for level in (9, 10, 11)]
    np.testing.assert_array_equal(table.x, np.column_stack(expected))
    assert table.levels["t"] == ["10", "4", "9", "b", "é"]
    assert categories == "all" or table.levels["n"] == ["8", "9", "10", "11"]  # by size, since all are numbers
    assert table.num_read == 120_000


@pytest.mark.parametrize(
    ("content", "how", "parts"),
    [
        (TEXT, {"categories": ["kind", "y"]}, ["'y' is the target", "classifier"]),
        (TEXT, {"target": "kind"}, ["line 2, column 'kind'", "'q' is not a number", "classifier"]),
        (TEXT, {"categories": ["kid"]}, ["no column 'kid'", "did you mean 'kind'"]),
        (TEXT, {"categories": ["kind", "kind"]}, ["different columns"]),
        (TEXT, {"categories": ["kind"], "exclude": "kind"}, ["'kind' is to be left out and among the features"]),
        (TEXT, {"categories": {"kind": ["p", "q"]}}, ["line 4, column 'kind'", "'r' is none of the known levels"]),
        (TEXT, {"categories": {"kind": ["p"]}}, ["'kind'", "two or more different levels"]),
        (TEXT, {"categories": {"kind": ["p", "p"]}}, ["'kind'", "two or more different levels"]),
        (TEXT, {"features": ["kind"]}, ["line 2, column 'kind'", "--data.categories '[kind]'"]),
        (TEXT, {"categories": 7}, ["categories=7"]),
        (TEXT + ",5,true,8\n", {"categories": "all", "missing": "error"}, ["line 6, column 'kind'", "missing"]),
        ("t,y\n,1\n,2\n", {"categories": ["t"]}, ["column 't'", "no text"]),
        ("t,y\nkm,1\n1,2\n2,3\n", {"categories": "all"}, ["line 2, column 't'", "text in a column of numbers"]),
        ("t,y\n1,1\nx,2\n", {"categories": "all"}, ["line 3, column 't'", "'x'", "--data.categories '[t]'"]),
        ("t,y\nx,1\nx,2\n", {"categories": "all"}, ["no column of numbers", "'t' (always 'x')"]),
        ("t,t=b,y\na,1,1\nb,2,2\n", {"categories": "all"}, ["different names", "t=b"]),
    ],
)  # fmt: skip
def test_what_is_refused(content: str, how: dict[str, object], parts: list[str], workplace: Path) -> None:
    path = write("t.csv", content)
    with pytest.raises(InputError) as error:
        read_csv(path, **{"target": "y"} | how)
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize("kind", ["csv", "large csv", "parquet"])
def test_a_column_of_too_many_levels(kind: str, workplace: Path) -> None:
    texts = [f"n{i % 1_001}" for i in range(200_000 if kind == "large csv" else 1_001)]
    path = Path("t.parquet")
    if kind == "parquet":
        parquet.write_table(pa.table({"t": texts, "y": range(len(texts))}), path)
    else:
        path = write("t.csv", "t,y\n" + "".join(f"{text},1\n" for text in texts))
    with pytest.raises(
        InputError, match=r"(line 1002|row 1001), column 't': 'n1000' .* 1,000 .*--data.exclude '\[t\]'"
    ):
        read_csv(path, "y", categories="all")
    path = write("t.csv", "t,y\n" + "".join(f"{text},{i}\n" for i, text in enumerate(texts[:1_000])))
    assert read_csv(path, "y", categories="all").x.sum() == 999


def test_a_level_without_a_training_row_is_named(workplace: Path) -> None:
    write("t.csv", "t,a,y\n" + "".join(f"{'abc'[i % 3]},{i},{i % 7}\n" for i in range(60)) + "d,5,6\n")
    data = [CSVData("t.csv", "y", categories="t", split_seed=seed) for seed in range(30)]
    seen = [bool(each.splits["train"][0][:, 2].any()) for each in data]
    said = ["'d' of 't' is in no training row" in " ".join(each.describe()) for each in data]
    assert {*seen} == {True, False}
    assert said == [not it for it in seen]


def test_the_penguins(train: Train) -> None:
    """All over the command line: the fit, the test, the prediction from the raw file, and what is unknown there."""
    typed = ["--data.path", PENGUINS, "--data.target", "body_mass_g", "--data.categories", "[species, sex, island]"]
    code, out = train(*typed, "--check", 0.01, "--data.val_fraction", 0, "--data.test_fraction", 0)
    assert code == 0, out
    assert "'species' has the levels 'Adelie', left out as the reference, 'Chinstrap', 'Gentoo'" in " ".join(
        out.split()
    )
    rows = [row for row in read_rows(PENGUINS) if "NA" not in row.values()]
    numbers = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "year"]
    x = by_hand(rows, numbers, ["species", "sex", "island"])
    y = np.array([[float(row["body_mass_g"])] for row in rows])
    expected = ols(x, y)
    r2 = 1 - np.square(y - x @ expected[:-1] - expected[-1]).sum() / np.square(y - y.mean()).sum()
    metrics = read_metrics("runs/default/version_0")
    assert metrics["exact"]["train"]["r2"] == pytest.approx(r2, rel=1e-9)
    assert r2 == pytest.approx(0.877, abs=5e-4)
    found = {row["name"]: float(row["exact"]) for row in read_rows("runs/default/version_0/coefficients.csv")}
    order = [*numbers, "species=Chinstrap", "species=Gentoo", "sex=male", "island=Dream", "island=Torgersen"]
    np.testing.assert_allclose([found[name] for name in [*order, "(intercept)"]], expected[:, 0], rtol=1e-7)
    checkpoint = load(f"{CKPT}/best.ckpt")
    assert checkpoint["columns"]["levels"]["species"] == ["Adelie", "Chinstrap", "Gentoo"]
    raw = PENGUINS.read_text().splitlines()
    write("new.csv", "\n".join([raw[0], *reversed(raw[1:])]))  # another level comes first
    code, out = train("predict", "--ckpt_path", f"{CKPT}/best.ckpt", "--data.path", "new.csv")
    assert code == 0, out
    model = LinearRegression.load_from_checkpoint(f"{CKPT}/best.ckpt")
    names = [order.index(name) for name in model.feature_names]
    predicted = [float(row["prediction"]) for row in read_rows("predictions.csv") if row["prediction"]]
    np.testing.assert_allclose(predicted[::-1], model(torch.tensor(x[:, names])).detach()[:, 0], rtol=1e-6)
    write("few.csv", "\n".join([raw[0], *[line for line in raw if "Gentoo" in line]]))
    code, out = train("test", "--ckpt_path", f"{CKPT}/best.ckpt", "--data.path", "few.csv")
    assert code == 0, out
    write("new.csv", "\n".join(raw).replace("Chinstrap", "Chinstrop"))
    for command in ("test", "predict"):
        code, out = train(command, "--ckpt_path", f"{CKPT}/best.ckpt", "--data.path", "new.csv")
        assert code == 2
        (line,) = out.splitlines()
        assert "line 278, column 'species': 'Chinstrop' is none of the known levels" in line


def test_another_first_level_is_another_model(train: Train) -> None:
    """The features have the same names, so only the levels tell."""
    typed = ["--data.path", "t.csv", "--data.target", "y", "--data.categories", "t", "--max_epochs", 2]
    rows = [f"{'bcd'[i % 3]},{i},{i * i % 7}" for i in range(60)]
    write("t.csv", "\n".join(["t,a,y", *rows, "a,1,2"]))
    assert train(*typed)[0] == 0
    text = Path("t.csv").read_text().replace("\na,1,2", "\nA,1,2")
    write("t.csv", text)
    code, out = train("--ckpt_path", f"{CKPT}/last.ckpt", "--max_epochs", 4)
    assert code == 2
    assert "levels" in out or "training rows are not those" in out
    code, out = train("test", "--ckpt_path", f"{CKPT}/last.ckpt")
    assert code == 2
    assert "'A' is none of the known levels: 'a', 'b', 'c', 'd'; did you mean 'a'?" in out


@pytest.mark.parametrize("levels", [7, {"t": 5}, {"t": ["a"]}, {"t": ["a", "b"]}, {"t": [1, {}]}])
def test_a_checkpoint_with_other_levels_is_refused(levels: object, train: Train) -> None:
    assert train("--data.num_rows", 60, "--max_epochs", 1)[0] == 0
    content = load(f"{CKPT}/last.ckpt")
    content["columns"]["levels"] = levels
    torch.save(content, "changed.ckpt")
    write("new.csv", "x1,x2,x3\n1,2,3\n")
    for command in (["predict", "--data.path", "new.csv"], ["test"], ["fit", "--max_epochs", 2]):
        code, out = train(*command, "--ckpt_path", "changed.ckpt")
        assert code == 2
        assert out.splitlines()[-1].startswith("error: "), out


def test_predicting_from_parquet_and_folders(workplace: Path) -> None:
    data = PredictionData("t.parquet")
    parquet.write_table(pa.table({"kind": ["r", None, "p"], "a": [1, 2, 3]}), "t.parquet")
    data.feature_names, data.levels = ["kind=q", "kind=r", "a"], {"kind": ["p", "q", "r"]}
    ((x, rows),) = data.predict_dataloader()
    np.testing.assert_array_equal(x, [[0, 1, 1], [np.nan, np.nan, 2], [0, 0, 3]])
    assert rows.place(2) == "t.parquet, row 3"


def test_what_a_trained_model_knows_is_not_said_to_be_unknown(train: Train, workplace: Path) -> None:
    """Of other data, whatever their split: no row of these was trained on."""
    write("t.csv", "t,a,y\n" + "".join(f"{'abc'[i % 3]},{i},{i % 7}\n" for i in range(60)))
    write("n.csv", "t,a,y\n" + "".join(f"c,{i // 2},{i % 7}\n" for i in range(8)))
    typed = ["--data.path", "t.csv", "--data.target", "y", "--data.categories", "t", "--max_epochs", 2]
    assert train(*typed)[0] == 0
    last = "runs/default/version_0/checkpoints/last.ckpt"
    code, out = train("test", "--ckpt_path", last, "--data.path", "n.csv", "--data.test_fraction", 0.5)
    assert code == 0, out
    assert "training row" not in out


def test_a_bias_that_is_another_is_named(train: Train, workplace: Path) -> None:
    assert train("--max_epochs", 2)[0] == 0
    last = "runs/default/version_0/checkpoints/last.ckpt"
    code, out = train("--ckpt_path", last, "--model.bias", "false", "--max_epochs", 4)
    assert (code, "--model.bias was True, not False" in out) == (2, True), out


def test_a_level_of_several_lines_has_one_in_the_table(train: Train) -> None:
    Path("t.csv").write_text("c,y\n" + '"z\nq",1\nx,2\n' * 10)
    fit = ("--data.path", "t.csv", "--data.target", "y", "--data.categories", "c", "--model.bias", "false")
    code, out = train(*fit, "--max_epochs", 1, "--model.lr", 0.1)
    assert code == 0, out
    assert re.search(r"^c=z\\nq +-?[\d.]+ +[\d.]+", out, re.MULTILINE), out
