"""What a CSV file means: either the right numbers, or a refusal that says where and why."""

import gzip
import os
import resource
import time
from decimal import Decimal
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from linreg import InputError, read_csv
from linreg.files.blocks import BLOCK, CSVBlocks
from linreg.files.cells import Spelling
from linreg.files.columns import Column
from linreg.files.csv_text import CSVFile
from linreg.tables.reader import TableReader


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
    (tmp_path / "none").mkdir()
    for path, part in (
        (tmp_path / "none", "folder"),
        (tmp_path / "fifo.csv", "regular"),
        (tmp_path / "house.csv", "mean"),
    ):
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


@cache
def plain_rows() -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(40_000, 3)) * 10.0 ** rng.integers(-30, 15, size=(40_000, 3))
    return values, [",".join(map(repr, row)) for row in values.tolist()]


def large(folder: Path, cell: str | None = None) -> tuple[Path, np.ndarray]:
    """A file of several blocks, 40,000 rows of a, b, y, and its values; ``cell`` stands in for b in row 30,000."""
    values, lines = (each.copy() for each in plain_rows())
    if cell is not None:
        first, _, last = lines[30_000].split(",")
        lines[30_000] = f"{first},{cell},{last}"
    return write(folder / "large.csv", "\n".join(["a,b,y", *lines])), values


@pytest.mark.parametrize("reader", ["arrow", "numpy", "csv"])
def test_every_reader_gives_the_same_bits(tmp_path: Path, reader: str) -> None:
    path, values = large(tmp_path)
    assert path.stat().st_size > 2 * BLOCK
    blocks = CSVBlocks(CSVFile(path), [Column(name, True) for name in "yab"])
    assert blocks.by_arrow
    blocks.by_arrow = reader == "arrow"
    if reader == "csv":
        blocks.plain.by_numpy = lambda block: None
    slow, exactly = [], blocks._exactly
    blocks._exactly = lambda stream, line: slow.append(line) or exactly(stream, line)
    np.testing.assert_array_equal(np.concatenate([values for values, _ in blocks]), values[:, [2, 0, 1]])
    assert (len(slow) > 1) == (reader == "csv")  # but for the header's, no block is left to the slow reader


@pytest.mark.parametrize("arrow", [True, False])
@pytest.mark.parametrize(
    "cell", ["x", "inf", "nan(1)", "-NaN", "1e400", "0x10", '"5"0', "1_0", "1,0", "5 0", "1,2\r3,4", "1e-400", "\u0665"]
)
def test_far_below_a_cell_is_refused_by_its_line(tmp_path: Path, cell: str, arrow: bool) -> None:
    source = TableReader(large(tmp_path, cell)[0], "y")
    blocks = CSVBlocks(source.files[0], source.columns)
    blocks.by_arrow = arrow
    with pytest.raises(InputError, match=r"large\.csv, line 30002"):
        list(blocks)


def test_far_below_a_missing_cell_is_refused_if_asked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 30002, column 'b': a missing cell"):
        read_csv(large(tmp_path, "NA")[0], "y", missing="error")


@pytest.mark.parametrize("cell", ["", "NA", " nan", " 1.5", "+2", "3.", ".5", "1E3", '"7"'])
def test_far_below_a_cell_means_what_it_means_above(tmp_path: Path, cell: str) -> None:
    path, values = large(tmp_path, cell)
    values[30_000, 1] = Spelling().number(cell.strip('"'))
    table = read_csv(path, "y")
    assert table.num_read == 40_000
    np.testing.assert_array_equal(table.x, values[~np.isnan(values).any(1), :2])


def test_quotes_and_text_columns_in_a_large_file(tmp_path: Path) -> None:
    path, values = large(tmp_path)
    lines = path.read_text().splitlines()
    notes = ["é"] * 20_000 + ['"one, quoted"'] + ["é"] * 15_000 + ['"one,\n2 lines"'] + ["NA"] * 4_998
    write(path, "\n".join(f"{line},{note}" for line, note in zip(lines, ["note", *notes], strict=True)))
    table = read_csv(path, "y")
    np.testing.assert_array_equal(table.x, values[:, :2])
    assert "'note'" in table.notes[0]
    notes[1:] = ['"one,\n2 lines"'] * (len(notes) - 1)  # so that one lies across the end of each block
    write(path, "\n".join(f"{line},{note}" for line, note in zip(lines, ["note", *notes], strict=True)))
    np.testing.assert_array_equal(read_csv(path, "y").x, values[:, :2])


def test_a_folder_a_pattern_and_parquet_hold_the_same_rows(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(30, 3))
    (tmp_path / "all").mkdir()
    for i, part in enumerate((rows[:10], rows[10:])):
        write(tmp_path / f"all/part-{i}.csv", "a,b,y\n" + "".join(f"{a!r},{b!r},{y!r}\n" for a, b, y in part.tolist()))
    parquet.write_table(pa.table(dict(zip("yab", rows.T[[2, 0, 1]], strict=True))), tmp_path / "t.parquet")
    for path in ("all", "all/part-*.csv", "t.parquet"):
        table = read_csv(tmp_path / path, "y")
        assert sorted(table.feature_names) == ["a", "b"]
        np.testing.assert_array_equal(table.x, rows[:, :2])
    write(tmp_path / "all/part-2.csv", "a,c,y\n1,2,3\n")
    with pytest.raises(InputError, match=r"part-2.csv: other columns .* 'b', 'c'"):
        read_csv(tmp_path / "all", "y")
    with pytest.raises(InputError, match="no file has such a name"):
        read_csv(tmp_path / "none-*.csv", "y")


def test_a_parquet_file_is_not_held_while_it_is_read(tmp_path: Path) -> None:
    column = np.random.default_rng(0).normal(size=400_000)
    parquet.write_table(pa.table({"a": column, "y": column}), tmp_path / "t.parquet", row_group_size=20_000)
    before, held = pa.total_allocated_bytes(), []
    for block in TableReader(tmp_path / "t.parquet", "y").blocks():
        held.append((pa.total_allocated_bytes() - before) / column.nbytes)
        assert len(block)
    assert max(held) < 1, held  # in columns, of which there are two, and both stay where pyarrow reads ahead


def test_parquet_cells_that_are_no_numbers(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    columns = {"a": [1, 2, None], "b": [1.5, np.nan, 3.5], "s": ["u", "v", "w"], "y": [1.0, 2.0, 3.0]}
    parquet.write_table(pa.table(columns), path)
    table = read_csv(path, "y")
    assert (table.num_read, table.feature_names, table.x.tolist()) == (3, ["a", "b"], [[1, 1.5]])
    assert "'s' (text: string)" in table.notes[0]
    parquet.write_table(pa.table(columns | {"b": [1.0, np.inf, 2.0]}), path)
    with pytest.raises(InputError, match=r"t\.parquet, row 2, column 'b': inf is too large"):
        read_csv(path, "y")
    with pytest.raises(InputError, match=r"column 's': a column of numbers is expected, not of string"):
        read_csv(path, "s")
    write(path, "a,y\n1,2\n")
    with pytest.raises(InputError, match="no Parquet file"):
        read_csv(path, "y")


def test_a_column_of_text_may_hold_numbers_but_not_be_one(tmp_path: Path) -> None:
    """As the drives of cars: f, r and 4; and not as a column of numbers below a line of units."""
    path, values = large(tmp_path)
    lines = path.read_text().splitlines()
    drives = ["f", "4", "r", "4"] * 10_000
    write(path, "\n".join(f"{line},{cell}" for line, cell in zip(lines, ["drive", *drives], strict=True)))
    table = read_csv(path, "y")
    np.testing.assert_array_equal(table.x, values[:, :2])
    assert "left out 'drive' (text: 'f' in line 2)" in table.notes[0]
    numbers = ["km", *map(str, range(39_999))]
    write(path, "\n".join(f"{line},{cell}" for line, cell in zip(lines, ["way", *numbers], strict=True)))
    with pytest.raises(InputError, match=r"line 2, column 'way': 'km' is text in a column of numbers"):
        read_csv(path, "y")


ENDLESS = {  # what follows 30,000 rows, once and again and again, and what is said of it
    "NULs": (b"", b"\0", ["line 30002, column 'a'", "NUL"]),
    "NULs in a line": (b"1,2", b"\0", ["line 30002, column 'b'", "NUL"]),
    "NULs in quotes": (b'1,"', b"\0", ["line 30002, column 'b'", "NUL"]),
    "spaces": (b"", b" ", ["line 30002", "no line end"]),
    "quotes": (b"", b'"', ["line 30002", "no line end"]),
    "digits": (b"1,", b"3", ["line 30002", "no line end"]),
    "separators": (b"", b",", ["line 30002", "no line end"]),
    "accents": (b"", "é".encode(), ["line 30002", "no line end"]),
    "carriage returns": (b"", b"\r", ["line 30002", "carriage return"]),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ENDLESS)
def test_a_line_without_an_end(name: str, packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("linreg.files.csv_text.LONGEST", 1 << 21)
    monkeypatch.setattr("linreg.files.blocks.LONGEST", 1 << 21)
    start, endless, parts = ENDLESS[name]
    content = b"a,b,y\n" + b"1,2,3\n" * 30_000 + start + endless * (1 << 22)
    path = write(tmp_path / "t.csv", gzip.compress(content, 1) if packed else content)
    with pytest.raises(InputError) as error:
        read_csv(path, "y")
    assert all(part in str(error.value) for part in parts), str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("before", [b"", b"a", b"a,b,y\n" + b"1,2,3\n" * 30_000, b"a," * 3_000 + b"y"])
def test_what_a_power_cut_leaves(before: bytes, tmp_path: Path) -> None:
    """Gigabytes of NULs, refused within a second and in little memory."""
    path = write(tmp_path / "t.csv", before)
    os.truncate(path, 5 << 30)
    start = time.perf_counter()
    with pytest.raises(InputError, match=r"line (1|30002).* holds a NUL byte"):
        read_csv(path, "y")
    assert time.perf_counter() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 3 << 20  # kB


def test_what_a_power_cut_leaves_of_a_gzip(tmp_path: Path) -> None:
    """Python's gzip skips NULs after the data, a byte at a time."""
    path = write(tmp_path / "t.csv.gz", gzip.compress(b"a,y\n1,2\n3,4\n") + b"\0" * 10_000)
    assert len(read_csv(path, "y").x) == 2
    os.truncate(path, 5 << 30)
    start = time.perf_counter()
    with pytest.raises(InputError, match=r"t\.csv\.gz: .* NUL"):
        read_csv(path, "y")
    assert time.perf_counter() - start < 5


def test_a_line_as_long_as_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("linreg.files.csv_text.LONGEST", 1 << 21)
    monkeypatch.setattr("linreg.files.blocks.LONGEST", 1 << 21)
    names, usual = ",".join([*(f"x{i}" for i in range(31)), "y"]), ",".join(["1"] * 32)
    for length in (1 << 21, (1 << 21) + 1):  # with its line end
        line = ",".join(["1".ljust(65_000)] * 31)
        line += ",1".ljust(length - 1 - len(line))
        path = write(tmp_path / "t.csv", "\n".join([names, *[usual] * 5_000, line, *[usual] * 5_000, ""]))
        if length == 1 << 21:
            assert len(read_csv(path, "y").x) == 10_001
        else:
            with pytest.raises(InputError, match=r"line 5002: no line end in 2,097,152 characters"):
                read_csv(path, "y")


def test_parquet_that_databases_write(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    price = pa.array([Decimal("1.25"), Decimal("-2.50"), None], pa.decimal128(9, 2))
    parquet.write_table(pa.table({"a": price, "y": [1.0, 2.0, 3.0]}), path)
    assert read_csv(path, "y").x.tolist() == [[1.25], [-2.5]]
    parquet.write_table(pa.table([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], names=["a", "a", "y"]), path)
    with pytest.raises(InputError, match=r"t\.parquet: each column needs its own name, twice there: 'a'"):
        read_csv(path, "y")


@pytest.mark.parametrize("compression", ["snappy", "none"])
def test_a_damaged_parquet_file_is_none(compression: str, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table = pa.table({"a": np.arange(100_000) % 13 * 1.5, "y": np.arange(100_000) % 11 * 1.0})
    parquet.write_table(table, path, compression=compression, use_dictionary=False, write_page_checksum=True)
    content = bytearray(path.read_bytes())
    at = len(content) // 3
    content[at : at + 8] = np.float64(1.5).tobytes()  # a number as any other
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"t\.parquet: damaged"):
        read_csv(path, "y")
