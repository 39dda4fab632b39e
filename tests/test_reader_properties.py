"""Properties of the reader over what hypothesis makes up; the csv module and float() are the oracle."""

import csv
import io
import math
import string
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from linreg import InputError, read_csv
from linreg.files.blocks import CSVBlocks
from linreg.files.cells import Spelling
from linreg.files.columns import choose
from linreg.files.csv_text import CSVFile
from linreg.tables.table import Table

FIXED = {"derandomize": True, "deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
NUMBERS = st.one_of(
    st.floats(1e-149, 1e149), st.floats(-1e149, -1e-149), st.sampled_from([0.0, -0.0, 0.1]), st.integers(-999, 999)
)
ROWS = st.integers(2, 4).flatmap(lambda width: st.lists(st.lists(NUMBERS, min_size=width, max_size=width), min_size=1))


def by_csv_module(rows: list[list[float]], delimiter: str) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    return text.getvalue()


def quoted(rows: list[list[float]], delimiter: str) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(rows)
    return text.getvalue()


def by_repr(rows: list[list[float]], delimiter: str) -> str:
    return "\n".join(f" {delimiter} ".join(map(repr, row)) for row in rows)


def by_savetxt(rows: list[list[float]], delimiter: str) -> str:
    text = io.StringIO()
    np.savetxt(text, np.array(rows, dtype=float), delimiter=delimiter)
    return text.getvalue()


@pytest.fixture(scope="module")
def path() -> Path:
    with TemporaryDirectory() as folder:
        yield Path(folder) / "t.csv"


@pytest.mark.parametrize("write", [by_csv_module, quoted, by_repr, by_savetxt])
@settings(max_examples=120, **FIXED)
@given(rows=ROWS, delimiter=st.sampled_from(",;\t"))
def test_what_others_write_is_read_to_the_bit(
    write: object, path: Path, rows: list[list[float]], delimiter: str
) -> None:
    names = [f"x{i}" for i in range(len(rows[0]) - 1)]
    body = write(rows, delimiter)
    path.write_text(delimiter.join([*names, "y"]) + "\n" + body, newline="")
    table = read_csv(path, "y")
    expected = np.array(rows, dtype=float)
    if write is by_savetxt:  # it writes 19 digits, so that is to the bit too
        expected = np.array([[float(f"{value:.18e}") for value in row] for row in expected])
    assert table.feature_names == names
    assert table.x.numpy().tobytes() == np.ascontiguousarray(expected[:, :-1]).tobytes()
    assert table.y.numpy().tobytes() == np.ascontiguousarray(expected[:, -1:]).tobytes()


NASTY = ["0", "1", "2", "12", "3.5", "-", "+", ".", "e", "E5", ",", ",", ";", "\t", '"', '""', "\n", "\n", "\r\n", "\r"]
NASTY += [" ", "NA", "a", "x", "\0", "é", "\ufeff", "\u00a0", "\u2028", "\x0b", "\x1a", "_", "inf", "nan", "1e400", "#"]
TAME = ["0", "1", "25", ".5", "-3", "4e2", ",", ",", ",", "\n", "\n", "\r\n", " ", "+", "1e-9", "9007199254740993"]
CELLS = st.sampled_from(
    ["1", "2.5", "-3e2", "", "NA", " 4 ", '"5"', '"6,5"', '"x\ny"', "x", "inf", "1_0", '"7"8', "1e-400"]
)
TEXTS = st.one_of(
    st.lists(st.sampled_from(NASTY), max_size=40).map("".join),
    st.lists(st.sampled_from(TAME), max_size=40).map("".join),
    st.lists(st.lists(CELLS, min_size=2, max_size=4).map(",".join), max_size=5).map("\n".join),
    st.lists(st.lists(CELLS, min_size=3, max_size=3).map(",".join), max_size=5).map("\n".join),
    st.text(string.printable, max_size=30),
)
HEADERS = st.sampled_from(
    ["a,b,y\n", "a,y\r\n", "a;b;y\n", "y\ta\n", '"a","b",y\n', "\ufeffa,b,y\n", ",a,y\n", "a,b,y,\n", ""]
)


def reference(path: Path, table: Table) -> tuple[list[list[float]], int]:
    """The complete rows of the table's columns, and the number of all rows, as the csv module and float() see them."""
    text = path.read_bytes().decode("utf-8-sig")
    first = text.split("\n")[0]
    delimiter = next((d for d in ",\t;" if d in first), ",")
    header, *rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if row]
    assert all(len(row) == len(header) for row in rows)
    columns = [[name.strip() for name in header].index(name) for name in [*table.feature_names, *table.target_names]]
    kept = []
    for row in rows:
        cells = [row[i].strip(" \t") for i in columns]
        assert all(set(cell) <= set("0123456789+-.eE") or cell in ("NA", "nan") for cell in cells)
        values = [float(cell) if cell not in ("", "NA", "nan") else math.nan for cell in cells]
        if not any(map(math.isnan, values)):
            kept.append(values)
    return kept, len(rows)


@settings(max_examples=800, **FIXED)
@given(header=HEADERS, text=TEXTS)
@example("a,b,y\n", "1,2,3\n4,5,6\n\n")
@example("a,y\r\n", "1,2\r\n\r\n 3 , 4")
def test_any_text_is_read_as_the_csv_module_reads_it_or_refused(path: Path, header: str, text: str) -> None:
    path.write_bytes((header + text).encode())
    try:
        table = read_csv(path, "y")
    except InputError:
        return
    expected, num_rows = reference(path, table)
    assert [[*x, *y] for x, y in zip(table.x.tolist(), table.y.tolist(), strict=True)] == expected
    assert table.num_read == num_rows


OPTIONS = st.sampled_from([{}, {}, {"decimal": ","}, {"missing_values": ["x", 1, "3,5"]}])


@pytest.mark.slow
@settings(max_examples=900, **FIXED)
@given(
    header=HEADERS,
    text=st.lists(st.sampled_from(TAME), min_size=3, max_size=40).map("".join) | TEXTS,
    options=OPTIONS,
    categories=st.sampled_from([None, None, "all", ["a"]]),
)
@example("a,b,y\n", "1,2,3\n\n4,5,6", {}, None)
@example("a,b,y\n", "1,2,9007199254740993", {}, None)
@example("a,b,y\n", "1,2,3e-400", {}, None)
@example("a;b;y\n", "1,5;2;3\n x;5,;,6", {"decimal": ","}, ["a"])
@example("a;b;y\n", "1,5;2;3.5", {"decimal": ","}, None)
@example("a,b,y\n", "x,1,3\n4,5,6\nx,x,7\n", {"missing_values": ["x", 1]}, ["a"])
def test_the_fast_reader_agrees_with_the_exact_one(
    path: Path, header: str, text: str, options: dict[str, Any], categories: Any
) -> None:
    path.write_bytes((header + text).encode())
    body, fast = path.read_bytes().partition(b"\n")[2], []
    try:
        file = CSVFile(path, Spelling(**options))
        for reader in ("by_arrow", "by_numpy"):
            blocks = CSVBlocks(file, choose(file, ["y"], categories=categories))
            found = getattr(blocks.plain, reader)(body)
            if found is not None and blocks._fill_in_levels(*found):
                fast.append((found[0], [column.levels for column in blocks.columns]))
    except InputError:
        return
    if not fast:
        return
    # Raises for what a fast reader should have left to it.
    columns = choose(file, ["y"], categories=categories)
    parts = [values for values, _ in CSVBlocks(file, columns)._exactly(io.BytesIO(body), 2)]
    exact = np.concatenate([np.empty((0, len(columns))), *parts])
    assert all(column.text is None for column in columns)
    for values, levels in fast:
        assert np.array_equal(values, exact, equal_nan=True)
        assert levels == [column.levels for column in columns]
