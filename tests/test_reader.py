"""What a CSV file means: either the right numbers, or a refusal that says where and why."""

import csv
import gzip
import io
import os
from pathlib import Path

import numpy as np
import pytest

from linreg import InputError, read_csv
from linreg.reader import CSVFile
from linreg.table import _choose, _read_exactly, _read_fast


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


GOOD = {
    "plain": "a,b,y\n1,2,3\n4,5,6\n",
    "no newline at the end": "a,b,y\n1,2,3\n4,5,6",
    "crlf": "a,b,y\r\n1,2,3\r\n4,5,6\r\n",
    "bom": "\ufeffa,b,y\n1,2,3\n4,5,6\n",
    "semicolons": "a;b;y\n1;2;3\n4;5;6\n",
    "tabs": "a\tb\ty\n1\t2\t3\n4\t5\t6\n",
    "spaces around": " a, b ,y\n 1, 2,3\n4 ,5 , 6\n",
    "quoted numbers": '"a","b","y"\n"1","2","3"\n4,5,6\n',
    "other spellings": "a,b,y\n+1,2.,3e0\n40e-1,5.0,.6E1\n",
    "blank lines": "a,b,y\n\n1,2,3\n\n4,5,6\n\n\n",
    "text beside": 'a,name,b,y\n1,x,2,3\n4,"p, q",5,6\n',
    "embedded newline in text": 'a,name,b,y\n1,"x\ny",2,3\n4,z,5,6\n',
    "an index without a name": ",a,b,y\n0,1,2,3\n1,4,5,6\n",
    "an empty column": "a,b,empty,y\n1,2,,3\n4,5,,6\n",
    "a trailing separator throughout": "a,b,y,\n1,2,3,\n4,5,6,\n",
    "missing cells": "a,b,y\n1,2,3\n,2,3\n1,NA,3\n1,2,nan\n4,5,6\n",
}


@pytest.mark.parametrize("name", GOOD)
def test_what_is_read_right(name: str, tmp_path: Path) -> None:
    table = read_csv(write(tmp_path / "t.csv", GOOD[name]), "y")
    assert table.feature_names == ["a", "b"]
    np.testing.assert_array_equal(table.x, [[1, 2], [4, 5]])
    np.testing.assert_array_equal(table.y, [[3], [6]])


BAD = {  # content, and what the message has to hold: the line and the column where there is one, and what was found
    "empty file": ("", ["line 1", "header"]),
    "header only": ("a,y\n", ["no row"]),
    "no header": ("1,2\n3,4\n", ["line 1", "header"]),
    "text in a number": ("a,y\n1,2\nx7,4\n", ["line 3", "'a'", "'x7'"]),
    "text in the target": ("a,y\n1,2\n3,high\n", ["line 3", "'y'", "'high'"]),
    "infinity": ("a,y\n1,2\ninf,4\n", ["line 3", "'a'", "'inf'"]),
    "beyond float64": ("a,y\n1,2\n1e400,4\n", ["line 3", "'a'", "1e400"]),
    "below what can be squared": ("a,y\n1,2\n1e-200,4\n", ["line 3", "'a'", "1e-200"]),
    "underscore": ("a,y\n1,2\n1_000,4\n", ["line 3", "'1_000'"]),
    "hexadecimal": ("a,y\n1,2\n0x10,4\n", ["line 3", "'0x10'"]),
    "arabic digits": ("a,y\n1,2\n\u0663,4\n", ["line 3", "'a'"]),
    "decimal comma": ("a;y\n1;2\n1,5;4\n", ["line 3", "'1,5'", "decimal point"]),
    "half quoted": ('a,y\n1,2\n"5"0,4\n', ["line 3"]),
    "unclosed quote": ('a,y\n1,2\n"5,4\n6,7\n', ["line"]),
    "short row": ("a,b,y\n1,2,3\n4,5\n", ["line 3", "2 cells", "3 columns"]),
    "long row": ("a,b,y\n1,2,3\n4,5,6,7\n", ["line 3", "4 cells"]),
    "a trailing separator in rows only": ("a,y\n1,2,\n3,4,\n", ["line 2", "3 cells"]),
    "same name twice": ("a,a,y\n1,2,3\n", ["line 1", "a"]),
    "latin-1": ("a,y\n1,2\n\u00e9,4\n".encode("latin-1"), ["line 3", "UTF-8"]),
    "utf-16": ("a,y\n1,2\n".encode("utf-16"), ["line 1", "UTF-8"]),
    "nul": (b"a,y\n1,2\n3\0,4\n", ["line 3", "NUL"]),
    "lone carriage returns": (b"a,y\r1,2\r3,4\r", ["line 1", "carriage return"]),
    "truncated gzip": (gzip.compress(b"a,y\n" + b"1,2\n" * 9_999)[:-9], ["cannot be read"]),
    "only text": ("a,y\nu,1\nv,2\n", ["no column of numbers", "'a'"]),
    "nothing but missing": ("a,b,y\n1,,3\n,2,3\n", ["no complete row", "'a' 1", "'b' 1"]),
    "another target": ("a,yy\n1,2\n", ["no column 'y'", "did you mean 'yy'"]),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_refused(name: str, tmp_path: Path) -> None:
    content, parts = BAD[name]
    path = write(tmp_path / "t.csv", content)
    with pytest.raises(InputError) as error:
        read_csv(path, "y")
    for part in [str(path), *parts]:
        assert part in str(error.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "houses.csv").symlink_to(tmp_path / "gone.csv")
    os.mkfifo(tmp_path / "fifo.csv")
    for path, part in ((tmp_path, "folder"), (tmp_path / "fifo.csv", "regular"), (tmp_path / "house.csv", "mean")):
        with pytest.raises(InputError, match=part):
            read_csv(path, "y")


def test_columns_as_chosen(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "a,b,c,y\n1,2,x,3\n4,5,z,6\n")
    table = read_csv(path, ["y", "a"], ["b"])
    assert (table.feature_names, table.target_names) == (["b"], ["y", "a"])
    np.testing.assert_array_equal(table.y, [[3, 1], [6, 4]])
    for target, features, part in (
        ("y", ["y"], "among the features"),
        ("y", ["a", "a"], "different columns"),
        ([], None, "different columns"),
        ("y", ["c"], "'x' is not a number"),
    ):
        with pytest.raises(InputError, match=part):
            read_csv(path, target, features)


def test_missing_cells_are_counted_or_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", GOOD["missing cells"])
    table = read_csv(path, "y")
    assert (table.num_read, len(table.x)) == (5, 2)
    assert "dropped 3 of 5 rows" in table.notes[0]
    with pytest.raises(InputError, match="line 3, column 'a'"):
        read_csv(path, "y", missing="error")


def test_gzip(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv.gz", gzip.compress(GOOD["text beside"].encode()))
    np.testing.assert_array_equal(read_csv(path, "y").x, [[1, 2], [4, 5]])


def test_the_fast_reader_agrees_with_the_exact_one_to_the_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2_000, 3)) * 10.0 ** rng.integers(-30, 15, size=(2_000, 3))
    text = io.StringIO()
    csv.writer(text).writerows([["a", "b", "y"], *values.tolist()])
    file = CSVFile(write(tmp_path / "t.csv", text.getvalue()))
    columns = _choose(file, ["y"], None)
    fast, exact = _read_fast(file, columns), _read_exactly(file, columns, "drop")
    assert fast is not None
    np.testing.assert_array_equal(fast, exact)
    np.testing.assert_array_equal(exact, values[:, [2, 0, 1]])
