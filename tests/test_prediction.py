"""Predictions beside their rows: as the file has them, in its order, whatever kind of file it is."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from tests.conftest import Train, read_rows
from tests.tools import CKPT

PREDICT = ["predict", "--ckpt_path", f"{CKPT}/last.ckpt", "--data.path"]


def fit(train: Train, *flags: object) -> None:
    rows = [f"{i % 17};{i * i % 7},5;{'uvw'[i % 3]};{i % 17 + (i * i % 7)},25" for i in range(60)]
    Path("t.csv").write_text("\n".join(["a;b;t;y", *rows, "?;1;u;2", ""]))
    typed = ["--data.path", "t.csv", "--data.target", "y", "--data.categories", "t", "--data.decimal", ","]
    code, out = train(*typed, "--data.missing_values", '["?"]', "--max_epochs", 3, *flags)
    assert code == 0, out
    assert "dropped 1 of 61 rows for a missing cell in: 'a' 1" in " ".join(out.split())


def test_rows_stay_as_they_are(train: Train) -> None:
    """Quotes, spaces, line ends inside of quotes, spellings of numbers: but for blank lines, byte for byte."""
    fit(train)
    lines = ['"1";2;"say; ""hi""\nthere"; u', "01;2,50;;v", ' 3;"4";é;w', "?;2;x;u", "5;6;y;v"]
    for many in (1, 30_000):  # in one block and in several, of which some are plain
        body = [*lines, *["7,5;1;z;u", "8;2;z;w"] * many, *lines[:2]]
        Path("new.csv").write_text("\n".join(["a;b;note;t", *body, "", ""]), newline="\r\n" if many > 1 else "")
        code, out = train(*PREDICT, "new.csv")
        assert code == 0, out
        assert f"{len(body):,} predictions, 1 of them empty for a missing cell" in out
        text = Path("predictions.csv").read_bytes().decode()
        header, *rest = text.split("\n")
        assert header == "a;b;note;t;prediction"
        found = ["" if line == "?;2;x;u" else line for line in body]
        text = "\n".join(rest)
        for line, kept in zip(body, found, strict=True):
            line = line.replace("\n", "\r\n") if many > 1 else line
            assert text.startswith(line + ";"), (line, text[:80])
            cell, text = text.removeprefix(line + ";").split("\n", 1)
            assert (cell == "") == (kept == "")
        assert text == ""


def test_every_kind_of_file_has_the_same_predictions(train: Train) -> None:
    """Without a word of decimal commas or missing values, which the checkpoint knows, unless the file has others."""
    fit(train)
    rng = np.random.default_rng(0)
    a, b, t = (
        rng.normal(size=2_000).round(3),
        rng.integers(0, 9, 2_000),
        np.array(list("uvw"))[rng.integers(0, 3, 2_000)],
    )
    points = [f"{x},{n},{k}" for x, n, k in zip(a.tolist(), b.tolist(), t.tolist(), strict=True)]
    Path("points.csv").write_text("\n".join(["a,b,t", *points]))
    Path("commas.csv").write_text("\n".join(["a;b;t", *(line.replace(",", ";").replace(".", ",") for line in points)]))
    Path("all").mkdir()
    for i in range(2):
        part = points[i * 700 : None if i else 700]
        text = "\n".join(["a;b;t", *(line.replace(",", ";").replace(".", ",") for line in part)])
        Path(f"all/{i}.csv").write_text(text)
    parquet.write_table(pa.table({"t": t, "a": a, "b": b}), "t.parquet")
    found = {}
    for path, flags in (("commas.csv", []), ("points.csv", ["--data.decimal", "."]), ("all", []), ("t.parquet", [])):
        code, out = train(*PREDICT, path, *flags, "--output", "out.csv")
        assert code == 0, out
        sep = ";" if path in ("commas.csv", "all") else ","
        spelled = arrow_csv.ConvertOptions(decimal_point="," if sep == ";" else ".")  # as the file's own numbers are
        table = arrow_csv.read_csv("out.csv", None, arrow_csv.ParseOptions(delimiter=sep), spelled)
        found[path] = table["prediction"].to_numpy()
    assert len(found["all"]) == 2_000
    for path, values in found.items():
        np.testing.assert_allclose(values, found["commas.csv"], rtol=1e-6, err_msg=path)
    assert table["t"].to_pylist() == t.tolist()
    code, out = train(*PREDICT, "points.csv")
    assert code == 2
    assert "points.csv, line 2, column 'a'" in out
    assert "decimal" in out


def test_a_comma_that_separates_too_is_in_quotes(train: Train) -> None:
    fit(train)
    found = []
    for text in ("a;b;t\n1,5;2;u\n", 'a,b,t\n"1,5",2,u\n'):
        Path("new.csv").write_text(text)
        assert train(*PREDICT, "new.csv")[0] == 0
        found.append(Path("predictions.csv").read_text())
        Path("predictions.csv").unlink()
    prediction = found[0].strip().rpartition(";")[2]
    assert found == [f"a;b;t;prediction\n1,5;2;u;{prediction}\n", f'a,b,t,prediction\n"1,5",2,u,"{prediction}"\n']


def test_what_cannot_be_predicted_together(train: Train) -> None:
    fit(train)
    Path("all").mkdir()
    Path("all/0.csv").write_text("a;b;t\n1;2;u\n")
    for content, part in (("a,b,t\n1,2,u\n", "separator"), ("b;a;t\n1;2;u\n", "order of columns"), ("a;b;t\n", None)):
        Path("all/1.csv").write_text(content)
        code, out = train(*PREDICT, "all", "--output", "out.csv")
        assert (code, part is None or part in out) == (0 if part is None else 2, True), out
    Path("text.csv").write_text("a;b;t\n1;oops;u\n")
    code, out = train(*PREDICT, "text.csv")
    assert (code, out.endswith("""if it stands for a missing one, give --data.missing_values '["oops"]'\n""")) == (
        2,
        True,
    ), out
    for output, part in (("x.parquet", "end"), ("all/0.csv", "file to predict")):
        code, out = train(*PREDICT, "all", "--output", output)
        assert code == 2
        assert part in out
    assert Path("all/0.csv").read_text() == "a;b;t\n1;2;u\n"
    parquet.write_table(pa.table({"a": [1.0, 2], "b": [1, 2], "t": ["u", "x"], "l": [[1], [2]]}), "t.parquet")
    code, out = train(*PREDICT, "t.parquet")
    assert code == 2
    assert "t.parquet, row 2, column 't': 'x' is none of the known levels: 'u', 'v', 'w'; nothing is known of it" in out
    parquet.write_table(pa.table({"a": [1.0, 2], "b": [1, 2], "t": ["u", "v"], "l": [[1], [2]]}), "t.parquet")
    code, out = train(*PREDICT, "t.parquet")
    assert code == 2, out
    assert out.count("\n") == 1, out
    assert not Path("predictions.csv").exists()


@pytest.mark.parametrize("missing", ["drop", "error"])
def test_private_predictions_of_several_files(missing: str, train: Train) -> None:
    fit(train)
    Path("all").mkdir()
    for i in range(2):
        Path(f"all/{i}.csv").write_text(f"a;b;t\n1;{'?' if i else 2};u\n")
    Path("all/1.csv").chmod(0o600)
    code, out = train(*PREDICT, "all", "--data.missing", missing)
    if missing == "error":
        assert code == 2
        assert "1.csv, line 2, column 'b': a missing cell ('?')" in out
        assert not Path("predictions.csv").exists()
        return
    assert code == 0, out
    assert Path("predictions.csv").stat().st_mode & 0o77 == 0
    rows = Path("predictions.csv").read_text().splitlines()
    assert rows[2] == "1;?;u;"
    assert read_rows("predictions.csv")


def test_dots_that_may_part_thousands_are_said(train: Train) -> None:
    """As a fit says it, and where all cells have one, if that comes nearer to what the model was trained on."""
    rng = np.random.default_rng(0)
    sales, prices = rng.integers(1_000, 30_000, 40), [f"{n / 1_000:.3f}" for n in rng.integers(1_000, 9_000, 40)]
    plain = [f"{n};{price};{i * i % 31}.5" for i, (n, price) in enumerate(zip(sales, prices, strict=True))]
    Path("t.csv").write_text("\n".join(["sales;price;y", *plain, ""]))
    code, out = train("--data.path", "t.csv", "--data.target", "y", "--max_epochs", 1)
    assert (code, "thousands" in out) == (0, False)
    dotted = [f"{n:,}".replace(",", ".") + f";{price};1" for n, price in zip(sales, prices, strict=True)]
    mixed, sound = ["94;1.25;3", *dotted], ["1000;1.5;3", *dotted]
    for command, rows, line in (
        (PREDICT, plain, None),
        (PREDICT, dotted, 2),
        (PREDICT, mixed, 3),
        (PREDICT, sound, None),
        (["test", *PREDICT[1:]], mixed, 3),
    ):
        Path("new.csv").write_text("\n".join(["sales;price;y", *rows, ""]))
        code, out = train(*command, "new.csv")
        assert code == 0, out
        found = f"as in {dotted[0].partition(';')[0]} (new.csv, line {line}); if three digits after it are thousands"
        out = " ".join(out.split())
        assert out.count("decimal point") == (line is not None), out
        assert line is None or f"'sales': each dot is read as a decimal point, {found}" in out, out
    Path("new.csv").write_text("\n".join(["sales;price;y", *(f"{n:,};{n % 9},5;1" for n in sales), ""]))
    code, out = train(*PREDICT, "new.csv", "--data.decimal", ",")
    assert (code, "'sales': each comma is read as a decimal comma" in out) == (0, True), out


def test_a_column_in_another_unit_is_said(train: Train) -> None:
    """As of thousands that were read as decimals in the fit, or of grams in the place of kilograms."""
    rng = np.random.default_rng(0)
    sales, kind = rng.integers(1_001, 9_999, 60), rng.integers(0, 2, 60)
    for name, shown in (("t", [f"{n / 1_000:.3f}" for n in sales]), ("new", list(map(str, sales)))):
        rows = [f"{s},{'ab'[k]},{n % 7 + n}.5" for n, s, k in zip(sales.tolist(), shown, kind.tolist(), strict=True)]
        Path(f"{name}.csv").write_text("\n".join(["sales,kind,y", *rows, ""]))
    assert train("--data.path", "t.csv", "--data.target", "y", "--data.categories", "all", "--max_epochs", 1)[0] == 0
    code, out = train(*PREDICT, "t.csv")
    assert (code, "same unit" in out) == (0, False), out
    code, out = train(*PREDICT, "new.csv")
    found = re.search(r"'sales' averages ([\d,]+) here and ([\d.]+), give or take ([\d.]+), in the", out)
    assert found, out
    here, mean, std = (float(number.replace(",", "")) for number in found.groups())
    assert here == pytest.approx(sales.mean(), rel=1e-3)
    assert (mean, std) == pytest.approx((sales.mean() / 1_000, sales.std() / 1_000), rel=0.15)  # of most rows
    assert (code, out.count("same unit")) == (0, 1), out
    for command, path, is_told in (("test", "t.csv", False), ("validate", "new.csv", True), ("test", "new.csv", True)):
        code, out = train(command, *PREDICT[1:3], "--data.path", path)
        assert (code, out.count("same unit"), "'sales' averages" in out) == (0, is_told, is_told), out


def test_a_power_of_ten_is_said_sooner(train: Train) -> None:
    """Five spreads from 0 none of them is ten spreads off: of the target as well as of a feature."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(50, 10, 80), rng.normal(50, 10, 80)
    for name, a, b in (("t", 1, 1), ("x", 0.1, 1), ("y", 1, 0.001), ("far", 0.3, 1)):
        rows = [f"{one * a:.6f},{two * b:.6f}" for one, two in zip(x.tolist(), y.tolist(), strict=True)]
        Path(f"{name}.csv").write_text("\n".join(["x,y", *rows, ""]))
    assert train("--data.path", "t.csv", "--data.target", "y", "--max_epochs", 1)[0] == 0
    for name in ("t", "x", "y", "far"):
        code, out = train("test", *PREDICT[1:3], "--data.path", f"{name}.csv")
        assert (code, out.count("same unit")) == (0, name in "xy"), out
        assert name not in "xy" or f"'{name}' averages" in out, out
