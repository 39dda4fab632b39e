"""What a table takes: whatever can be read as numbers without a guess; the rest is refused with a remedy."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from linreg import InputError, RegressionData, Table, read_csv
from linreg.files.doubts import far_cells, far_values
from tests.conftest import Train

X, Y = [[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]], [1.0, 2.0, 4.0]
TAKEN: dict[str, tuple[Any, Any]] = {
    "tensors": (torch.tensor(X), torch.tensor(Y)[:, None]),
    "y (N,)": (torch.tensor(X), torch.tensor(Y)),
    "arrays": (np.array(X), np.array(Y)),
    "lists": (X, Y),
    "whole numbers": (torch.tensor(X).long(), np.array(Y, dtype=np.uint8)),
    "half precision": (torch.tensor(X).bfloat16(), np.array(Y, dtype=np.float16)),
    "long doubles": (np.array(X, dtype=np.longdouble), Y),
    "another byte order": (np.array(X, dtype=">f8"), np.array(Y, dtype=">i2")),
    "read only": (np.broadcast_to(np.array(X), (3, 2)), np.array(Y)),
    "backwards": (np.array(X[::-1])[::-1], np.array(Y[::-1])[::-1]),
    "with a gradient": (torch.tensor(X, requires_grad=True), torch.tensor(Y)),
    "rows that are tensors": ([torch.tensor(row) for row in X], Y),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_taken(name: str) -> None:
    table = Table(*TAKEN[name])
    for tensor in (table.x, table.y):
        assert (tensor.dtype, tensor.requires_grad) == (torch.float64, False)
    assert (table.x.tolist(), table.y.tolist()) == (X, [[value] for value in Y])
    assert (table.feature_names, table.target_names) == (["x1", "x2"], ["y"])
    assert (table.num_read, table.notes, table.true_coef, table.true_intercept, table.mapped) == (
        (3, [], None, None, False)
    )


def test_what_is_known_of_it() -> None:
    table = Table(X, np.array([Y, Y]).T, ["a", "b"], np.array(["u", "v"]), 7, ("dropped 4",), [[1, 2], [3, 4]], [5, 6])
    assert (table.feature_names, table.target_names) == (["a", "b"], ["u", "v"])
    assert (table.num_read, table.notes) == (7, ["dropped 4"])
    assert table.true_coef.tolist() == [[1, 2], [3, 4]]
    assert table.true_intercept.dtype == torch.float64
    assert Table(X, np.array([Y, Y]).T).target_names == ["y1", "y2"]
    assert Table(X, torch.tensor([True, False, True])).y.tolist() == [[1], [0], [1]]


def test_a_judged_table_stays_as_it_is() -> None:
    x, y = torch.tensor(X), torch.tensor(Y)[:, None]
    x[1, 0] = torch.inf  # its cells were judged: nobody looks again
    table = Table(x, y, is_judged=True)
    assert table.x is x
    assert table.y is y


HOLE = np.array(X)
HOLE[1, 1] = np.nan
REFUSED: dict[str, tuple[dict[str, Any], str]] = {  # what is given, and what the message has to say
    "x (N,)": ({"x": Y}, r"x: .*\(N, D\).* \(3,\).*\[:, None\]"),
    "x of four dimensions": ({"x": torch.zeros(3, 1, 28, 28)}, r"x: .*\(N, D\).* \(3, 1, 28, 28\).*flatten"),
    "y of three dimensions": ({"y": torch.zeros(3, 1, 1)}, r"y: .*\(N, T\).* \(3, 1, 1\)"),
    "a number": ({"y": 5}, r"y: .*\(N, T\).* \(\)"),
    "unequal lengths": ({"y": Y[:2]}, r"3 rows of x and 2 of y: .* as many"),
    "y lying": ({"y": [Y[:2]]}, r"3 rows of x and 1 of y"),
    "no rows": ({"x": np.zeros((0, 2)), "y": []}, "no row"),
    "no features": ({"x": np.zeros((3, 0))}, "no column"),
    "no targets": ({"y": np.zeros((3, 0))}, "no column"),
    "NaN in x": ({"x": HOLE}, r"x\[1, 1\] \('x2'\) is nan: .*leave out"),
    "NaN in y": ({"y": [1, float("nan"), 3]}, r"y\[1, 0\] \('y'\) is nan"),
    "infinity": ({"x": -np.array([X[0], [np.inf, 1], X[2]])}, r"x\[1, 0\] \('x1'\) is -inf"),
    "beyond what can be squared": ({"y": [1, 2, 1e200]}, r"y\[2, 0\] \('y'\) is 1e\+200: .*1e\+150"),
    "half precision that overflowed": ({"y": torch.tensor([1, 2, 1e6]).half()}, r"y\[2, 0\] .* inf"),
    "identifiers": ({"y": [1, 2, 2**53 + 1]}, r"y: 9007199254740993 .*float64"),
    "identifiers, uint64": ({"y": np.array([1, 2, 2**64 - 1], dtype=np.uint64)}, r"y: 18446744073709551615 "),
    "identifiers, tensor": ({"y": torch.tensor([1, 2, -(2**60) - 1])}, r"y: -1152921504606846977 "),
    "longer than any type": ({"y": [1, 2, 2**70]}, r"y: numbers are expected, .*object"),
    "complex numbers": ({"x": torch.tensor(X) + 1j}, r"x: numbers are expected, .*complex"),
    "text": ({"x": [["1", "2"]] * 3}, r"x: numbers are expected, .*text"),
    "objects": ({"x": [[1, None]] * 3}, r"x: numbers are expected, .*object"),
    "dates": ({"y": np.array(["2020-01-01"] * 3, dtype="M8[D]")}, r"y: numbers are expected, .*datetime64"),
    "ragged": ({"x": [[1, 2], [3], [4, 5]]}, r"x: numbers are expected"),
    "nothing": ({"x": None}, r"x: numbers are expected"),
    "sparse": ({"x": torch.tensor(X).to_sparse()}, r"x: numbers are expected in a dense"),
    "on no device": ({"x": torch.empty(3, 2, device="meta")}, r"x: numbers are expected"),
    "a spread that float64 cannot square": (
        {"x": np.c_[np.arange(3), [0, 1e-170, 2e-170]]},
        r"x\[1, 1\] \('x2'\) is 1e-170: 0, or between 1e-150 and 1e\+150 in size, is expected",
    ),
    "masked": ({"x": np.ma.masked_equal(np.array(X), 4)}, r"x\[1, 1\] \('x2'\) is nan"),
    "too few names": ({"feature_names": ["a"]}, r"feature_names=\['a'\]: 2 different names"),
    "too many names": ({"target_names": ["a", "b"]}, r"target_names=\['a', 'b'\]: 1 name"),
    "a name twice": ({"feature_names": ["a", "a"]}, r"feature_names=\['a', 'a'\]: 2 different names"),
    "a name of both": ({"feature_names": ["a", "y"]}, r"'y' is the name of a feature and of a target"),
    "an empty name": ({"feature_names": ["a", ""]}, "2 different names"),
    "names that are numbers": ({"feature_names": [1, 2]}, "2 different names"),
    "names in one string": ({"feature_names": "ab"}, "2 different names"),
    "names that are a number": ({"target_names": 7}, "1 name"),
    "coefficients of another shape": ({"true_coef": [1, 2]}, r"true_coef: .*\(1, 2\).* \(2,\)"),
    "an intercept of another shape": ({"true_intercept": [[1]]}, r"true_intercept: .*\(1,\).* \(1, 1\)"),
    "fewer rows read than there are": ({"num_read": 2}, "num_read=2: .*3"),
    "rows read in words": ({"num_read": "3"}, "num_read='3'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    given, message = REFUSED[name]
    with pytest.raises(InputError) as error:
        Table(**({"x": X, "y": Y} | given))
    assert re.search(message, str(error.value)), str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def notes_of(text: str, **how: Any) -> str:
    Path("t.csv").write_text(text)
    return "; ".join(read_csv("t.csv", "y", **how).notes)


@pytest.mark.parametrize(
    "name", ["id", "ID", "customer_id", "customerId", "zip", "Zip Code", "post_code", "Unnamed: 0"]
)
def test_a_number_that_may_be_a_name_is_said(name: str, workplace: Path) -> None:
    text = f"{name},a,y\n" + "".join(f"{i},{i * i % 7},{i % 5}\n" for i in range(20))
    assert f"'{name}' counts as a number; if it is only a name, --data.exclude '[{name}]'" in notes_of(text)
    assert notes_of(text, features=[name, "a"]) == ""  # which was said to be a feature
    assert notes_of(text, exclude=[name]) == ""
    assert "counts as" not in notes_of(text, categories=[name])


def test_numbers_that_are_none_are_no_alarm(workplace: Path) -> None:
    names = ["year", "age", "price", "x", "t", "humid", "paid", "acid", "Covid", "price_index", "width", "bid"]
    text = ",".join([*names, "y"]) + "\n" + "".join(",".join([str(i)] * 12) + f",{i % 5}\n" for i in range(20))
    assert notes_of(text) == ""


def test_a_column_that_costs_most_rows_is_named_with_the_remedy(workplace: Path) -> None:
    text = "a,b,y\n" + "".join(f"{2 * i},{i if i % 4 == 0 else ''},{i % 5}\n" for i in range(40))
    assert "dropped 30 of 40 rows for a missing cell in: 'b' 30; --data.exclude '[b]' keeps more" in notes_of(text)
    assert "exclude" not in notes_of(text.replace("a,b,y", "a,y,b"))  # without a target there is nothing to learn
    assert "exclude" not in notes_of("a,b,y\n" + "1,2,3\n4,,6\n" + "2,3,1\n")


def test_rows_that_are_measured_and_were_trained_on_are_said() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 2)), rng.normal(size=200)

    class Rows(RegressionData):
        def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
            super().__init__()
            self.rows = x, y

        def load(self) -> Table:
            return Table(*self.rows)

    assert not any("copies" in line for line in Rows(x, y).describe())
    data = Rows(np.concatenate([x, x]), np.concatenate([y, y]))
    train, test = (list(map(tuple, torch.cat(data.splits[name], 1).tolist())) for name in ("train", "test"))
    (line,) = (line for line in data.describe() if "test rows are copies" in line)
    assert line == f"{sum(row in train for row in test)} of 40 test rows are copies of training rows"
    assert not any("copies" in line for line in Rows(np.concatenate([x, x]), np.concatenate([y, y + 1])).describe())


def test_one_cell_that_outweighs_its_column_is_said() -> None:
    rng = np.random.default_rng(0)
    temp, y = rng.normal(20, 5, size=5_000), rng.normal(size=5_000)
    temp[2_346] = 1e9
    (line,) = Table(temp[:, None], y, ["temp"]).outliers()
    assert line.startswith("temp: row 2,347 is 1,000,000,000, 70.7 spreads from the mean; ")  # sqrt(5,000)
    temp[2_346] = -999
    (line,) = Table(np.c_[y, temp], y, ["a", "temp"], num_read=5_001).outliers()
    assert line.startswith("temp: row 2,347 of the complete ones is -999, ")


WORDS = ["one cell ten times too large", "two lost commas", "a target 70 spreads off", "on both sides"]


@pytest.mark.parametrize("what", WORDS)
@pytest.mark.parametrize("kind", ["csv", "parquet", "folder", "frame"])
def test_cells_beyond_a_wide_gap_are_said_with_their_lines(what: str, kind: str, train: Train, workplace: Path) -> None:
    rng = np.random.default_rng(0)
    m2, y = rng.uniform(25, 140, 300).round(1), rng.normal(-12, 6, 300).round(2).clip(-29, 5)
    wrong = dict(zip(WORDS, ({30: 675}, {30: 6750, 260: 7564}, {200: 480}, {7: -999, 9: 6750}), strict=True))[what]
    column = y if "target" in what else m2
    column[[*wrong]] = [*wrong.values()]
    holes, texts = rng.integers(0, 300, 20), np.array(["a", "b"])[rng.integers(0, 2, 300)]
    a = [None if i in holes and i not in wrong else float(i * i % 17) for i in range(300)]
    frame = pa.table({"a": a, "t": texts.tolist(), "m2": m2.tolist(), "y": y.tolist()})
    header, *rows = [
        "a,t,m2,y",
        *(f"{'' if c is None else c},{t},{m},{v}" for c, t, m, v in zip(a, texts, m2, y, strict=True)),
    ]
    if kind == "frame":
        found = Table.from_frame(frame, "y").outliers()
        places = {row: f"the frame, row {row + 1} is" for row in wrong}
    elif kind == "parquet":
        parquet.write_table(frame, "t.parquet", row_group_size=100)
        found = read_csv("t.parquet", "y", categories="all").outliers()
        places = {row: f"t.parquet, row {row + 1} is" for row in wrong}
    elif kind == "folder":
        Path("d").mkdir()
        Path("d/1.csv").write_text("\n".join([header, *rows[:200]]))
        Path("d/2.csv").write_text("\n".join([header, *rows[200:]]))
        found = read_csv("d", "y").outliers()
        places = {row: f"d/{1 + row // 200}.csv, line {row % 200 + 2} is" for row in wrong}
    else:
        rows[3] = rows[3].replace(",a,", ',"a\n\nb",').replace(",b,", ',"a\n\nb",')  # three lines, and then a blank one
        Path("t.csv").write_text("\n".join([header, *rows[:6], "", *rows[6:]]))
        flags = ["--data.path", "t.csv", "--data.target", "y", "--max_epochs", 1, "--figures", "false"]
        out = " ".join(train("fit", *flags)[1].split())
        found = [f"{name}: t.csv{rest}" for name in ("m2", "y") for rest in out.split(f"{name}: t.csv")[1:]]
        places = {row: f"t.csv, line {row + 5} is" for row in wrong}
    assert len(found) == len(wrong)
    for row, value in wrong.items():
        assert any(f": {places[row]} {value:,}, " in line for line in found), found


SOUND = {
    "normal": lambda rng, n: rng.normal(size=n),
    "uniform": lambda rng, n: rng.random(n),
    "exponential": lambda rng, n: rng.exponential(size=n),
    "lognormal": lambda rng, n: rng.lognormal(size=n),
    "counts": lambda rng, n: rng.poisson(5, n).astype(float),
    "rare counts": lambda rng, n: rng.poisson(0.01, n).astype(float),
    "geometric": lambda rng, n: rng.geometric(0.2, n).astype(float),
}


@pytest.mark.parametrize("kind", SOUND)
def test_sound_columns_have_no_outlier(kind: str) -> None:
    rng = np.random.default_rng(0)
    for n in (100, 1_000, 10_000):
        columns = torch.from_numpy(np.stack([SOUND[kind](rng, n) for _ in range(200)], 1))
        assert far_cells(columns) == far_values(columns) == []


def test_no_rows_have_no_odd_value() -> None:
    assert far_values(torch.zeros(0, 3)) == far_cells(torch.zeros(0, 3)) == []


@pytest.mark.parametrize(("value", "share"), [(-999, 0.01), (-999, 0.3), (9_999, 0.05)])
def test_a_value_of_many_rows_that_is_far_from_all_others_is_said(value: int, share: float) -> None:
    rng = np.random.default_rng(0)
    beds = rng.integers(1, 8, 5_000).astype(float)
    beds[places := rng.random(5_000) < share] = value
    (line,) = Table(np.c_[rng.normal(size=5_000), beds], rng.normal(size=5_000), ["a", "beds"]).outliers()
    assert line.startswith(f"beds: {places.sum():,} are {value}, far from all others; if that stands for a missing")


NINES = [(-999, True), (9_999, True), (-99, True), (-1_000, False), (99, False), (2_500, False)]


@pytest.mark.parametrize(("value", "is_told"), NINES)
def test_a_code_of_nines_is_said_where_the_gap_is_smaller(value: int, is_told: bool) -> None:
    rng = np.random.default_rng(0)
    price = rng.uniform(800, 2_400, 200)
    price[rng.random(200) < 0.1] = value
    lines = Table(price[:, None], rng.normal(size=200), ["price"]).outliers()
    assert bool(lines) == is_told, lines
    assert f" are {value}, far from all others" in lines[0] if lines else not is_told


def test_what_a_column_may_well_hold_is_no_outlier() -> None:
    rng, n = np.random.default_rng(0), 5_000
    one = np.arange(n) == 7  # a level of one row
    counts = rng.poisson(0.001, n) + 5.0 * one
    heavy = [rng.lognormal(0, 2, n), rng.pareto(1.5, n), rng.standard_t(3, n), rng.exponential(size=n) ** 2]
    flags = [one, ~one, one | (np.arange(n) == 8), rng.random(n) < 0.01]
    year = np.where(rng.random(n) < 0.9, 0, rng.integers(1990, 2016, n))
    table = Table(np.stack([counts, *heavy, *flags, year, np.arange(n)], 1).astype(float), rng.normal(size=n))
    assert table.outliers() == []
    assert Table([[1.0], [2], [1e9]], [1, 2, 3]).outliers() == []  # too few to know


def test_dots_that_may_part_thousands_are_said(workplace: Path) -> None:
    rng = np.random.default_rng(0)
    sales = rng.integers(100, 30_000, 300)

    def said(cells: Iterable[str]) -> bool:
        Path("t.csv").write_text("sales;y\n" + "".join(f"{cell};{i % 7}\n" for i, cell in enumerate(cells)))
        return any("if three digits after it are thousands" in note for note in read_csv("t.csv", "y").notes)

    assert said(f"{n:,}".replace(",", ".") for n in sales)  # as in a German file: 94, 4.996, 15.085
    assert said(f"{n:,}".replace(",", ".") for n in sales + 900)  # in which decimals have a comma
    for sound in (
        [*(f"{n / 1_000:.3f}" for n in sales + 900), "1.5"],
        [f"{n / 1_000:.3f}" for n in sales],  # each with its three decimals
        [f"{n / 1_000:g}" for n in sales // 100 * 100],
        [f"{n / 1_000:g}" for n in sales],
        [str(n) for n in sales],
        ["0.125", "0.500", "3", "0.250"] * 9,
        [*(f"{n}" for n in sales), "4.996", "5.123", "1.234"],  # thousands without a dot
    ):
        assert not said(sound)
    Path("t.csv").write_text("sales,y\n" + "".join(f"{n / 1_000:.3f},{n}\n" for n in sales + 900))
    assert not read_csv("t.csv", "y").notes
    Path("t.csv").write_text("sales;y\n" + "".join(f"{n:,};{n}\n" for n in [*sales, 7]))
    (note,) = read_csv("t.csv", "y", decimal=",").notes
    assert note.startswith("'sales': each comma is read as a decimal comma, as in ")
    Path("t.csv").write_text("id;sales;y\n0;94;1\n" + "".join(f"{i};{i + 1}.{996 - i};{i % 7}\n" for i in range(9)))
    (note,) = (note for note in read_csv("t.csv", "y").notes if "thousands" in note)
    assert note.startswith("'sales': each dot is read as a decimal point, as in 1.996 (t.csv, line 3); if three digits")
    assert not read_csv("t.csv", "y", exclude="sales").notes[1:]  # but for the id
    assert "thousands" not in str(read_csv("t.csv", "y", categories="sales").notes)


def test_codes_and_row_numbers_are_told_by_their_cells(workplace: Path) -> None:
    def table(name: str, cells: Sequence[object]) -> str:
        return f"{name},a,y\n" + "".join(f"{cell},{i * i % 7},{i % 5}\n" for i, cell in enumerate(cells))

    def is_said(name: str, cells: Sequence[object]) -> bool:
        return f"{name!r} counts as a number, though it " in notes_of(table(name, cells))

    zips = ["01067", "80331", "10115", "20095"] * 6
    assert "'plz' counts as a number, though it has leading zeros; if it is only a name, --data.exclude" in notes_of(
        table("plz", zips)
    )
    assert "'nr' counts as a number, though it runs as the rows do; if" in notes_of(table("nr", range(1, 31)))
    assert is_said("Lfd Nr", range(1_000, 1_030))
    for name in ("year", "Jahr", "t", "time", "date", "age_years", "day", "Week", "x"):
        assert not is_said(name, range(1990, 2020)), name
    rng = np.random.default_rng(0)
    mixed = rng.permutation(np.arange(1, 301)).tolist()
    assert "'nr' counts as a number, though it numbers the rows, in another order; if" in notes_of(table("nr", mixed))
    for name in ("year", "Rank", "rank_2020"):
        assert not is_said(name, mixed)
    for last in ("", mixed[0], 999):  # a missing one, one of them twice, and a gap
        assert not is_said("nr", [*mixed[:-1], last])
    assert not is_said("nr", [cell if cell in (1, 300) else cell + 0.5 for cell in mixed])
    assert not is_said("nr", rng.integers(1, 301, 300).tolist())
    assert not is_said("nr", range(1, 20))  # too few rows to be sure
    assert not is_said("dose", range(0, 60, 2))
    assert not is_said("count", [*range(30, 59), 58])
    assert not is_said("price", [0.5, 0.25, 0, 1e-3, "0", "00"] * 5)
    assert not is_said("month", ["01", "02", "12"] * 10)
    assert notes_of("a,y\n" + "".join(f"{i},{i % 5}\n" for i in range(30))) == ""  # the only feature
    assert notes_of(table("nr", range(30)), features=["nr", "a"]) == ""
    assert notes_of(table("plz", zips), categories=["plz"]).startswith("'plz' has the levels '01067'")


def test_dates_that_are_written_as_numbers_are_said(workplace: Path) -> None:
    months = [(year, month) for year in (1999, 2000) for month in range(1, 13)]
    for form in ("{0}{1:02}15", "{0}{1:02}", "{1:02}.{0}", "{1}.{0}"):
        for name in ("day", "when"):
            cells = [form.format(*each) for each in months]
            notes = notes_of(f"{name},a,y\n" + "".join(f"{cell},{i * i % 7},{i % 5}\n" for i, cell in enumerate(cells)))
            assert f"{name!r} counts as a number, though {float(cells[0]):.8g} and the others look like dates" in notes
    for form in ("{0}", "{0}{1:02}.5", "{0}{1:02}99", "{1}.{0}5", "{1}", "{1}{0}"):
        cells = [form.format(*each) for each in months]
        assert "dates" not in notes_of(
            "n,a,y\n" + "".join(f"{cell},{i * i % 7},{i % 5}\n" for i, cell in enumerate(cells))
        )


def test_copies_are_said_where_nothing_is_held_out(train: Train, workplace: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 2)).tolist()
    Path("t.csv").write_text("a,y\n" + "".join(f"{a},{y}\n" for a, y in rows + rows[:60]))
    flags = ["--data.path", "t.csv", "--data.target", "y", "--max_epochs", 1, "--figures", "false"]
    assert "60 rows are copies of others" in train(*flags, "--data.val_fraction", 0, "--data.test_fraction", 0)[1]
    assert "copies of others" not in train(*flags)[1]


def test_the_links_in_the_help_have_names(train: Train) -> None:
    code, out = train("fit", "--help")
    assert code == 0
    assert "num_features_of(data) --> model.init_args.num_features" in out
    assert "partial" not in out
