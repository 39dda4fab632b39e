"""Nasty CSV files, made in code: each with the numbers that it holds, or with what a refusal has to name."""

import gzip
import io
import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from linreg import InputError, read_csv

Content = str | bytes | Callable[[], bytes]
Rows = list[list[float]]


@dataclass
class Case:
    """A file and what has to come of it: ``x`` and ``y``, or a refusal that names ``line``, ``column``, ``found``."""

    content: Content | None = None
    x: Rows | None = None
    y: list[float] | None = None
    features: list[str] | None = None  # the names expected
    line: int | None = None
    column: str | None = None
    found: tuple[str, ...] = ()
    note: str = ""
    target: Any = "y"
    chosen: Any = None  # the features asked for
    missing: Any = "drop"
    how: dict[str, Any] = field(default_factory=dict)  # categories, exclude, decimal, missing_values
    file: str = "t.csv"
    make: Callable[[Path], Any] | None = None  # puts something else than a file in a folder, returns its path

    def path(self, folder: Path) -> Any:
        if self.make:
            return self.make(folder)
        content = self.content() if callable(self.content) else self.content
        path = folder / self.file
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path


def judge(case: Case, folder: Path) -> str:
    """Empty if the reader did as expected; otherwise what it did, its first word says how bad that is."""
    path = case.path(folder)
    try:
        table = read_csv(path, case.target, case.chosen, case.missing, **case.how)
    except InputError as error:
        return judge_message(case, path, str(error))
    except Exception as error:
        return f"traceback: {error!r}"
    if case.x is None:
        return f"silent: read {table.feature_names} {table.x[:3].tolist()} -> {table.y[:3].tolist()}"
    if table.x.tolist() != case.x or table.y.tolist() != [[value] for value in case.y]:
        return f"silent: read {table.feature_names} {table.x[:3].tolist()} -> {table.y[:3].tolist()}"
    if case.features and table.feature_names != case.features:
        return f"silent: features {table.feature_names}"
    return "" if case.note in "; ".join(table.notes) else f"silent: notes {table.notes}"


def judge_message(case: Case, path: Any, message: str) -> str:
    if case.x is not None:
        return f"refused: {message}"
    parts = [str(path) or "path", *case.found]
    parts += [f"line {case.line}"] * (case.line is not None) + [f"{case.column!r}"] * (case.column is not None)
    lacking = [part for part in parts if part not in message]
    return f"placeless: {message} LACKS {lacking}" if lacking or "\n" in message or len(message) > 2_000 else ""


CASES: dict[str, Case] = {}


def good(name: str, content: Content, x: Rows | None = None, y: list[float] | None = None, **more: Any) -> None:
    """A case that is read; unless told otherwise the columns a, b and y with 1, 2, 3 and 4, 5, 6."""
    if x is None:
        more = {"features": ["a", "b"]} | more
    assert name not in CASES, name
    CASES[name] = Case(content, x=x or [[1, 2], [4, 5]], y=y or [3, 6], **more)


def bad(
    name: str, content: Content, line: int | None = None, column: str | None = None, *found: str, **more: Any
) -> None:
    assert name not in CASES, name
    CASES[name] = Case(content, line=line, column=column, found=found, **more)


# -- one cell, amid numbers and as the first of its column ------------------------------------------------------------
# ruff: noqa: RUF001  (characters that look like others are what it is about)
CELLS = """1_000 0x10 0x1p3 1d5 1D-5 1e e5 1e+ + - . +. --5 +-5 5- 1-2 1+2 1e5.5 1.2.3 1..2 5%
$5 €5 5€ (5) 1/2 5! 5a a5 x7 inf Inf -inf +inf Infinity -Infinity INF 1.#INF 1.#QNAN 1e400 -1e400 1e200 1e-200 5e-324
1e-400 True false yes None none na NAN -nan #DIV/0! #REF! ? * ... 2020-01-01 12:30 12:30:05 1+2j 1j 3i 1e5f
1L 1f ٣ ５ ² ½ Ⅷ ５.０ −5 –5 1٫5 九 9007199254740993 -9007199254740993 9007199254740993.0 9007199254740993.
123456789012345678901 1'000 1.000.000 =1 =A1+1 @5
O 1O l NaN() nan(1) <NA> NULL! missing unknown 'NA' \\N 1&2 5\u200b \ufeff5 5\u00a0 \u00a05 1\u00a0000 1\u202f000
5\u2028 5\x0b 5\x0c 5\x85 5\x1c 5\x1f \x1b5 5\x7f 5\x1a""".replace("\n", " ").split(" ")

for cell in CELLS:
    bad(f"amid numbers: {cell!a}", f"a,b,y\n1,2,3\n4,{cell},6\n7,8,9\n", 3, "b", repr(cell))
for cell in ["1 000", "5 0", "+ 5", "- 5", "1e 5", "1 e5", "5\t0"]:
    bad(f"spaces inside: {cell!r}", f"a,b,y\n1,2,3\n4,{cell},6\n", 3, "b", repr(cell))
    bad(f"spaces inside, tabs between: {cell!r}", f"a\tb\ty\n1\t2\t3\n4\t{cell!s}\t6\n", 3)
for cell in ["1_000", "0x10", "1d5", "5%", "$5", "inf", "-Infinity", "1e400", "1e-400", "٣", "５", "−5", "1e200", "€5"]:
    bad(f"a whole column of {cell!a}", f"a,b,y\n1,{cell},3\n4,{cell},6\n", 2, "b", repr(cell))
    bad(f"at the top of its column: {cell!a}", f"a,b,y\n1,{cell},3\n4,5,6\n", 2, "b", repr(cell))
for cell in ["1,5", "1,234", "1,234.5", "-1,5", "1.234,5", "1,234,567"]:
    bad(f"a quoted comma: {cell}", f'a,b,y\n1,2,3\n4,"{cell}",6\n', 3, "b", repr(cell))
    bad(f"a whole column of quoted commas: {cell}", f'a,b,y\n1,"{cell}",3\n4,"{cell}",6\n', 2, "b", repr(cell))
    bad(f"semicolons and a comma: {cell}", f"a;b;y\n1;{cell};3\n4;{cell};6\n", 2, "b", repr(cell))
SPELLED = {
    "+5": 5,
    "5.": 5,
    ".5": 0.5,
    "-.5": -0.5,
    "1.e5": 1e5,
    "1e5": 1e5,
    "1E+05": 1e5,
    "1e-05": 1e-5,
    "007": 7,
    "-0": 0,
    "0e9": 0,
    "0.000": 0,
    " 5": 5,
    "5 ": 5,
    "\t5": 5,
    " 5\t ": 5,
    "1e149": 1e149,
    "-1e-149": -1e-149,
    "3.5e38": 3.5e38,
    "9007199254740992": 2.0**53,
    "9007199254740994": 2.0**53 + 2,
    "9007199254740994.0": 2.0**53 + 2,
    "0.1": 0.1,
    "1.7976931348623157": 1.7976931348623157,
    "0.30000000000000004": 0.1 + 0.2,
    "3.141592653589793238462643383279": 3.141592653589793,
    "1e23": 1e23,
    "0.1000000000000000055511151231257827": 0.1,
    "00000000000000000000000000000000000001": 1,
    "2.5e+15": 2.5e15,
}
for cell, value in SPELLED.items():
    good(f"a plain {cell!r}", f"a,b,y\n1,2,3\n4,{cell},6\n", [[1, 2], [4, value]])
    good(f"a quoted {cell!r}", f'a,b,y\n1,2,3\n4,"{cell}",6\n', [[1, 2], [4, value]])
for cell in ["", " ", "\t", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", " NA ", '""', '"NA"', '" "']:
    good(f"missing: {cell!r}", f"a,b,y\n1,2,3\n7,{cell},9\n4,5,6\n", note="dropped 1 of 3 rows")
    bad(f"missing is 'error': {cell!r}", f"a,b,y\n1,2,3\n7,{cell},9\n4,5,6\n", 3, "b", "missing", missing="error")

# -- the header -------------------------------------------------------------------------------------------------------
bad("empty file", "", 1, None, "header")
bad("a BOM only", "\ufeff", 1, None, "header")
bad("a newline only", "\n", 1, None, "header")
bad("blank lines only", "\n\n\n", 1, None, "header")
bad("a blank line first", "\na,b,y\n1,2,3\n", 1, None, "header")
bad("header only", "a,b,y\n", 2, None, "no row")
bad("header only, no newline", "a,b,y", 2, None, "no row")
bad("header and blank lines", "a,b,y\n\n\n", 2, None, "no row")
bad("no header", "1,2,3\n4,5,6\n", 1, None, "only numbers")
bad("no header, with text", "1,x,3\n4,u,6\n", 1, None, "no column 'y'", "x")
bad("no header, with missing", "1,NA,3\n4,5,6\n", 1, None, "no column 'y'")
bad("a header of separators", ",,\n1,2,3\n", 1, None, "names")
bad("a header of quotes", '"","",""\n1,2,3\n', 1, None, "names")
bad("a header of tabs", "\t\t\n1\t2\t3\n", 1, None, "header")
bad("no such target", "a,b,z\n1,2,3\n", 1, None, "'y'", "a, b, z")
bad("a misspelt target", "a,pricee\n1,2\n", 1, None, "did you mean 'pricee'", target="price")
bad("another case", "a,Price\n1,2\n", 1, None, "did you mean 'Price'", target="price")
bad("another case of one letter", "a,Y\n1,2\n", 1, None, "did you mean 'Y'")
bad("a misspelt feature", "alpha,y\n1,2\n", 1, None, "did you mean 'alpha'", chosen=["alhpa"])
bad("an underscore for a space", "house price,b\n1,2\n", 1, None, "did you mean 'house price'", target="house_price")
bad("the target among the features", "a,y\n1,2\n", None, None, "among the features", chosen=["a", "y"])
bad("the target among the features, other form", "a,\u00e9\n1,2\n", None, None, "among", target="é", chosen=["e\u0301"])
bad("a feature twice", "a,y\n1,2\n", None, None, "different columns", chosen=["a", "a"])
bad("a target twice", "a,y\n1,2\n", None, None, "different columns", target=["y", "y"])
for label, target in (("none", None), ("a number", 5), ("a list with a number", ["y", 5]), ("empty list", [])):
    bad(
        f"a target that is {label}",
        "a,y\n1,2\n",
        None,
        None,
        "--data.target" if target is None else f"target={target!r}",
        target=target,
    )
bad("an empty target", ",y\n1,2\n", 1, None, "''", target="")
bad("features that are a number", "a,y\n1,2\n", None, None, "features=7", chosen=7)
bad("no features", "a,y\n1,2\n", None, None, "features=[]", chosen=[])
bad("features in one string", "a,b,y\n1,2,3\n", 1, None, "'ab'", chosen="ab")
bad("missing misspelt", "a,y\n1,2\n", None, None, "missing='dorp'", missing="dorp")
bad("a name twice", "a,a,y\n1,2,3\n", 1, "a")
bad("the target's name twice", "y,a,y\n1,2,3\n", 1, "y")
bad("a name twice but for spaces", "a, a ,y\n1,2,3\n", 1, "a")
bad("a name twice in two Unicode forms", "\u00e9,e\u0301,y\n1,2,3\n", 1, "\u00e9")
bad("a second BOM", "\ufeff\ufeffa,b,y\n1,2,3\n", 1, None, "byte-order mark")
bad("a BOM, a blank line", "\ufeff\na,b,y\n1,2,3\n", 1, None, "header")
good("a BOM before a quote", '\ufeff"a",b,y\n1,2,3\n4,5,6\n')
good("a target of another Unicode form", "a,b,e\u0301\n1,2,3\n4,5,6\n", target="\u00e9")
good("features of another Unicode form", "e\u0301,b,y\n1,2,3\n4,5,6\n", [[1], [4]], chosen=["\u00e9"])
good("names with spaces", " a ,\tb, y\n1,2,3\n4,5,6\n")
good("names with spaces inside", "a b,c  d,y\n1,2,3\n4,5,6\n", features=["a b", "c  d"])
good("names with a non-breaking space around", "\u00a0a,b\u00a0,y\n1,2,3\n4,5,6\n")
good("a comma in a name", '"a, m",b,y\n1,2,3\n4,5,6\n', features=["a, m", "b"])
good("a quote in a name", '"a ""m""",b,y\n1,2,3\n4,5,6\n', features=['a "m"', "b"])
good("a quote inside a bare name", 'a 5",b,y\n1,2,3\n4,5,6\n', features=['a 5"', "b"])
good("a newline in a name", '"a\nm",b,y\n1,2,3\n4,5,6\n', features=["a\nm", "b"])
good("names in other scripts", "面积,ø,y\n1,2,3\n4,5,6\n", features=["面积", "ø"])
good("names that are numbers", "2019,2020,y\n1,2,3\n4,5,6\n", features=["2019", "2020"])
good("names that are missing markers", "NA,null,y\n1,2,3\n4,5,6\n", features=["NA", "null"])
good("names like formulas", "=a,@b,y\n1,2,3\n4,5,6\n", features=["=a", "@b"])
good("names that differ in case", "a,A,y\n1,2,3\n4,5,6\n", features=["a", "A"])
good("an emoji in a name", "a😀,b,y\n1,2,3\n4,5,6\n", features=["a😀", "b"])
bad("a newline in a name, then a bad row", '"a\nm",b,y\n1,2,3\n4,x,6\n', 4, "b", "'x'")
bad("names in single quotes", "'a','y'\n1,2\n", 1, None, "no column 'y'")
bad("an unclosed quote in the header", '"a,b,y\n1,2,3\n', 1, None, "quote")
bad("a half-quoted name", '"a"b,y\n1,2\n', 1, None, "quote")
bad("a comment first", "# made by me\na,b,y\n1,2,3\n", 1, None, "no column 'y'", "made by me", "a comment")
bad("a comment with commas first", "# a,b,y\na,b,y\n1,2,3\n", 2, "y", "'y'")
bad("sep= first", "sep=;\na;b;y\n1;2;3\n", 1, None, "no column 'y'", "sep=")
bad("a title first", "My table\n\na,b,y\n1,2,3\n", 1, None, "no column 'y'", "My table")
bad("two header lines", "a,b,y\na,b,y\n1,2,3\n", 2, "y", "'y'")
bad("two header lines, the target's second empty", "a,b,y\nu,v,\n1,2,3\n4,5,6\n", 2, "a", "'u'")
bad("units below the header", "a,b,y\nm,kg,s\n1,2,3\n", 2, "y", "'s'")
bad("units of one column", "a,b,y\nm,,\n1,2,3\n4,5,6\n", 2, "a", "'m'")
bad("the header again", "a,b,y\n1,2,3\na,b,y\n4,5,6\n", 3, None, "'y'")
bad("a BOM in the middle", "a,b,y\n1,2,3\n\ufeff4,5,6\n", 3, "a", "\\ufeff4")
bad("a BOM and the header in the middle", "\ufeffa,b,y\n1,2,3\n\ufeffa,b,y\n4,5,6\n", 3)
WIDE = [f"c{i}" for i in range(9_999)]


def wide(names: list[str], *rows: list[str]) -> bytes:
    return "".join(",".join(row) + "\n" for row in (names, *rows)).encode()


ONES = ["1"] * 10_000
good("10,000 columns", lambda: wide([*WIDE, "y"], ONES), [[1.0] * 9_999], [1], features=WIDE)
text_in_one = [*ONES[:5_000], "x", *ONES[5_001:]]
bad("10,000 columns, one of them text", lambda: wide([*WIDE, "y"], ONES, ONES, text_in_one), 4, "c5000", "'x'")
bad("10,000 names, one twice", lambda: wide([*WIDE, "c7", "y"]), 1, "c7")
bad("10,000 names, none is right", lambda: wide(WIDE), 1, None, "'y'")

# -- delimiters -------------------------------------------------------------------------------------------------------
good("semicolons", "a;b;y\n1;2;3\n4;5;6\n")
good("tabs", "a\tb\ty\n1\t2\t3\n4\t5\t6\n")
good("semicolons, a quoted comma in a name", '"a,m";b;y\n1;2;3\n4;5;6\n', features=["a,m", "b"])
good("semicolons and text with commas", "a;t;b;y\n1;p, q;2;3\n4;r;5;6\n")
good("commas and names with semicolons", "a;m,b,y\n1,2,3\n4,5,6\n", features=["a;m", "b"])
bad("bars", "a|b|y\n1|2|3\n", 1, None, "no column 'y'", "a|b|y", "comma, a tab or a semicolon")
bad("spaces", "a b y\n1 2 3\n", 1, None, "no column 'y'", "comma, a tab or a semicolon")
bad("bars, then numbers with commas", "a|b|y\n1,5|2,5|3,5\n", 1, None, "no column 'y'")
bad("tabs, and commas in a name", "a (m,s)\tb\ty\n1\t2\t3\n", 1, None, "no column 'y'")
bad("a header with commas, rows with semicolons", "a,b,y\n1;2;3\n", 2, None, "1 cell ", "3 columns")
bad("a header with semicolons, rows with commas", "a;b;y\n1,2,3\n", 2, None, "1 cell ", "3 columns")
bad("semicolons from the second row on", "a,b,y\n1,2,3\n4;5;6\n", 3, None, "1 cell ")
bad("decimal commas between commas", "a,b,y\n1,5,2,5,3,5\n", 2, None, "6 cells", "3 columns")
bad("thousands separators between commas", "a,b,y\n1,2,3\n1,000,2,3\n", 3, None, "4 cells")

# -- quotes -----------------------------------------------------------------------------------------------------------
good("all quoted", '"a","b","y"\n"1","2","3"\n"4","5","6"\n')
good("text with separators, quotes and newlines", 'a,t,b,y\n1,"p, ""q""\nr",2,3\n4,"",5,6\n', note="'t'")
good("a quoted CRLF in text", 'a,t,b,y\r\n1,"p\r\nq",2,3\r\n4,r,5,6\r\n')
good("an inch mark in text", 'a,t,b,y\n1,5" pipe,2,3\n4,6",5,6\n')
good("spaces inside quotes", 'a,b,y\n1," 2 ",3\n4,5," 6"\n')
bad("half a quoted number", 'a,b,y\n1,2,3\n4,"5"0,6\n', 3, "b", '"5"0', "quote")
bad("half a quoted number, first", 'a,b,y\n1,2,3\n"4"0,5,6\n', 3, "a", '"4"0')
bad("a number before a quote", 'a,b,y\n1,2,3\n4,5"0",6\n', 3, "b", '5"0"')
bad("a quote at the end", 'a,b,y\n1,2,3\n4,5",6\n', 3, "b", '5"')
bad("a quote at the front", 'a,b,y\n1,2,3\n4,"5,6\n7,8,9\n', 3, "b", '"5,6', "closed")
bad("a space before a quote", 'a,b,y\n1,2,3\n4, "5",6\n', 3, "b", '"5"')
bad("a space after a quote", 'a,b,y\n1,2,3\n4,"5" ,6\n', 3, "b", '"5"')
bad("doubled quotes around", 'a,b,y\n1,2,3\n4,""5"",6\n', 3, "b", '""5""')
bad("tripled quotes around", 'a,b,y\n1,2,3\n4,"""5""",6\n', 3, "b", '"5"')
bad("single quotes around", "a,b,y\n1,2,3\n4,'5',6\n", 3, "b", "'5'")
bad("backslash quotes", 'a,b,y\n1,2,3\n4,\\"5\\",6\n', 3, "b")
bad("backslash in quoted text", 'a,t,y\n1,"p \\" q",3\n', 2, "t", "quote")
bad("typographic quotes", "a,b,y\n1,2,3\n4,“5”,6\n", 3, "b", "“5”")
bad("a newline in a quoted number", 'a,b,y\n1,2,3\n4,"5\n",6\n', 3, "b", "'5\\n'")
bad("a bad cell after a quoted newline", 'a,t,b,y\n1,"p\nq\nr",2,3\n4,s,x,6\n', 5, "b", "'x'")
bad("a short row after a quoted newline", 'a,t,b,y\n1,"p\nq",2,3\n4,s\n', 4, "b", "2 cells")
bad("a bad quote after a quoted newline in its row", 'a,t,b,y\n1,"p\nq","2"0,3\n', 3, "b", '"2"0')
bad("an unclosed quote in text, last row", 'a,t,b,y\n1,p,2,3\n4,"q,5,6\n', 3, "t", "closed")
bad(
    "an unclosed quote in text, far from the end",
    lambda: b'a,t,y\n1,p,2\n3,"q,4\n' + b"5,r,6\n" * 50_000,
    3,
    "t",
    "quote",
)
bad("a quote at the very end", 'a,b,y\n1,2,3\n4,5,6"\n', 3, "y", '6"')
bad("only a quote", '"', 1, None, "quote")
bad("a quote instead of a row", 'a,b,y\n1,2,3\n"\n', 3, "a", "quote")

# -- widths -----------------------------------------------------------------------------------------------------------
bad("a short first row", "a,b,y\n1,2\n4,5,6\n", 2, "y", "2 cells", "3 columns")
bad("a short row in the middle", "a,b,y\n1,2,3\n4,5\n7,8,9\n", 3, "y", "2 cells")
bad("a short last row", "a,b,y\n1,2,3\n4,5\n", 3, "y", "2 cells")
bad("a last row cut off in its first cell", "a,b,y\n1,2,3\n4", 3, "b", "1 cell ")
bad("a last row cut off in an exponent", "a,b,y\n1,2,3\n4,5,6e", 3, "y", "'6e'")
bad("a last row cut off after a sign", "a,b,y\n1,2,3\n4,5,-", 3, "y", "'-'")
bad("a last row cut off in a quote", 'a,b,y\n1,2,3\n4,5,"6', 3, "y", "closed")
bad("all rows short", "a,b,y\n1,2\n4,5\n", 2, "y", "2 cells")
bad("a long first row", "a,b,y\n1,2,3,4\n4,5,6\n", 2, None, "4 cells")
bad("a long row in the middle", "a,b,y\n1,2,3\n4,5,6,7\n7,8,9\n", 3, None, "4 cells")
bad("a long last row", "a,b,y\n1,2,3\n4,5,6,7\n", 3, None, "4 cells")
bad("all rows long", "a,b,y\n1,2,3,4\n5,6,7,8\n", 2, None, "4 cells")
bad("a separator at the end of rows", "a,b,y\n1,2,3,\n4,5,6,\n", 2, None, "4 cells")
bad("a separator at the end of one row", "a,b,y\n1,2,3\n4,5,6,\n", 3, None, "4 cells")
bad("a separator at the end of the header", "a,b,y,\n1,2,3\n4,5,6\n", 2, None, "3 cells", "4 columns")
bad("a semicolon at the end of rows", "a;b;y\n1;2;3;\n4;5;6;\n", 2, None, "4 cells")
bad("a tab at the end of rows", "a\tb\ty\n1\t2\t3\t\n", 2, None, "4 cells")
good("a separator at every end", "a,b,y,\n1,2,3,\n4,5,6,\n", note="no name")
good("a semicolon at every end", "a;b;y;\n1;2;3;\n4;5;6;\n")
good("an index without a name", ",a,b,y\n0,1,2,3\n1,4,5,6\n", note="no name")
good("two columns without names", ",a,,b,y\n0,1,p,2,3\n1,4,q,5,6\n", note="column 3 (no name)")
bad("R's row names", 'a,b,y\n"1",1,2,3\n"2",4,5,6\n', 2, None, "4 cells")
good("blank lines at the start", "a,b,y\n\n\n1,2,3\n4,5,6\n")
good("blank lines in the middle", "a,b,y\n1,2,3\n\n\n4,5,6\n")
good("blank lines at the end", "a,b,y\n1,2,3\n4,5,6\n\n\n\n")
good("a blank CRLF line at the end", "a,b,y\r\n1,2,3\r\n4,5,6\r\n\r\n")
bad("a bad cell after blank lines", "a,b,y\n\n1,2,3\n\n\n4,x,6\n", 6, "b", "'x'")
bad("a line of spaces", "a,b,y\n1,2,3\n   \n4,5,6\n", 3, None, "1 cell ")
bad("a line of a tab", "a,b,y\n1,2,3\n\t\n4,5,6\n", 3, None, "1 cell ")
bad("spaces at the end", "a,b,y\n1,2,3\n4,5,6\n  ", 4, None, "1 cell ")
good("a line of separators", "a,b,y\n1,2,3\n,,\n4,5,6\n", note="dropped 1 of 3 rows")
good("lines of separators at the end", "a;b;y\n1;2;3\n4;5;6\n;;\n;;\n", note="dropped 2 of 4 rows")
bad("a line of too many separators", "a,b,y\n1,2,3\n,,,\n", 3, None, "4 cells")
bad("one column", "y\n1\n2\n", None, None, "no column of numbers besides the target")
bad("one column with a blank line", "y\n1\n\n2\n", 3, "y", "blank")
bad("a comment in the middle", "a,b,y\n1,2,3\n# note\n4,5,6\n", 3, None, "1 cell ")
bad("a comment with commas in the middle", "a,b,y\n1,2,3\n# n,o,te\n", 3, "y", "'te'")
bad("a total at the end", "a,b,y\n1,2,3\nTotal,2,3\n", 3, "a", "'Total'")
bad("a total over the target", "a,b,y\n1,2,3\n1,2,sum: 3\n", 3, "y", "'sum: 3'")
bad("a footer", "a,b,y\n1,2,3\n(1 row)\n", 3, None, "1 cell ")
bad("two tables", "a,b,y\n1,2,3\n\nc,d\n1,2\n", 5 - 1, None, "2 cells")

# -- line ends and bytes ----------------------------------------------------------------------------------------------
good("CRLF", "a,b,y\r\n1,2,3\r\n4,5,6\r\n")
good("mixed line ends", "a,b,y\r\n1,2,3\n4,5,6\r\n")
good("no newline at the end", "a,b,y\n1,2,3\n4,5,6")
good("a BOM", "\ufeffa,b,y\n1,2,3\n4,5,6\n")
bad("lone CRs", "a,b,y\r1,2,3\r4,5,6\r", 1, None, "carriage return")
bad("a lone CR in a row", "a,b,y\n1,2,3\r4,5,6\n", 2, "y", "carriage return")
bad("a lone CR inside a cell", "a,b,y\n1,2\r,3\n", 2, "b", "carriage return")
bad("CR CR LF", "a,b,y\r\r\n1,2,3\r\r\n", 1, None, "carriage return")
bad("CR CR LF in a row", "a,b,y\n1,2,3\r\r\n4,5,6\n", 2, "y", "carriage return")
bad("a lone CR in quoted text", 'a,t,y\n1,"p\rq",3\n', 2, None, "carriage return")
bad("a CR at the very end", "a,b,y\n1,2,3\n4,5,6\r", 3, "y", "carriage return")
for code, label in (
    (0x0B, "vertical tab"),
    (0x0C, "form feed"),
    (0x85, "NEL"),
    (0x2028, "line separator"),
    (0x1C, "FS"),
):
    bad(f"a {label} for a newline", f"a,b,y\n1,2,3\n4,5,6{chr(code)}7,8,9\n", 3, None, "5 cells")
    good(f"a {label} in text", f"a,t,b,y\n1,p{chr(code)}q,2,3\n4,r,5,6\n")
    bad(f"a {label} in text, then a bad cell", f"a,t,b,y\n1,p{chr(code)}q,2,3\n4,r,x,6\n", 3, "b", "'x'")
    bad(f"a {label} as last line", f"a,b,y\n1,2,3\n{chr(code)}\n", 3, None, "1 cell ")
bad("Ctrl-Z at the end", "a,b,y\n1,2,3\n\x1a", 3, None, "1 cell ")
bad("Latin-1 in a cell", "a,b,y\n1,2,3\n4,5é,6\n".encode("latin-1"), 3, "b", "0xe9", "UTF-8")
bad("Latin-1 in the header", "a,größe,y\n1,2,3\n".encode("latin-1"), 1, None, "0xf6", "UTF-8")
bad("Latin-1 in text", "a,t,y\n1,p,3\n4,é,6\n".encode("latin-1"), 3, "t", "0xe9")
bad("Latin-1 in quoted text", 'a,t,y\n1,"p, é",3\n'.encode("latin-1"), 2, "t", "0xe9")
bad("Latin-1 in a quoted second line", 'a,t,y\n1,"p\n, é",3\n'.encode("latin-1"), 3, "t", "0xe9")
bad("a NUL after an inch mark", 'a,t,y\n1,5",2\n3,6,\x004\n', 3, "y", "NUL")
bad("a NUL at the front", "a,t,y\n1,5,2\n\x003,6,4\n", 3, "a", "NUL")
bad("Windows-1252 euro", b"a,t,y\n1,p,3\n4,\x80,6\n", 3, "t", "0x80")
bad("half a character at the end", b"a,t,y\n1,p,3\n4,5,6\xc3", 3, "y", "0xc3")
bad("an overlong NUL", b"a,t,y\n1,\xc0\x80,3\n", 2, "t", "0xc0")
bad("a surrogate", b"a,t,y\n1,\xed\xa0\x80,3\n", 2, "t", "0xed")
bad("UTF-16 LE with BOM", b"\xff\xfe" + "a,b,y\n1,2,3\n".encode("utf-16-le"), 1, None, "UTF-8")
bad("UTF-16 BE with BOM", b"\xfe\xff" + "a,b,y\n1,2,3\n".encode("utf-16-be"), 1, None, "UTF-8")
bad("UTF-16 LE", "a,b,y\n1,2,3\n".encode("utf-16-le"), 1, None, "NUL")
bad("UTF-16 BE", "a,b,y\n1,2,3\n".encode("utf-16-be"), 1, None, "NUL")
bad("UTF-32", "a,b,y\n1,2,3\n".encode("utf-32"), 1, None, "UTF-8")
bad("a NUL in a cell", b"a,b,y\n1,2,3\n4,5\0,6\n", 3, "b", "NUL")
bad("NULs at the end", b"a,b,y\n1,2,3\n4,5,6\n" + bytes(100), 4, None, "NUL")
bad("NULs only", bytes(10_000), 1, None, "NUL")
bad("a NUL far down", b"a,b,y\n" + b"1,2,3\n" * 2_000 + b"4,5,\x006\n", 2_002, "y", "NUL")
bad("a long line of binary", bytes(range(1, 256)) * 400, 1)
bad("a cell of 200,000 digits", b"a,b,y\n1,2,3\n4," + b"5" * 200_000 + b",6\n", 3, "b")
bad("a cell of 20,000 zeros after 1", b"a,b,y\n1,2,3\n4,1" + b"0" * 20_000 + b",6\n", 3, "b")
good("a cell of 20,000 leading zeros", b"a,b,y\n1,2,3\n4," + b"0" * 20_000 + b"5,6\n")
bad("20,000 leading zeros and too many digits", b"a,b,y\n1,2,3\n4," + b"0" * 20_000 + b"9007199254740993,6\n", 3, "b")
good("a text of 100,000 characters", b"a,t,b,y\n1,p,2,3\n4," + b"q" * 100_000 + b",5,6\n")
bad("a text of 200,000 characters", b"a,t,b,y\n1,p,2,3\n4," + b"q" * 200_000 + b",5,6\n", 3, "t", "131")
bad("HTML", "<!DOCTYPE html>\n<html><body>Not found, sorry</body></html>\n", 1, None, "no column 'y'")
bad("a name of several lines and none fits", '"a\nm\x1b[31m",b\n1,2\n', 1, None, "no column 'y'", "'a\\nm\\x1b")
bad(
    "a header of 100,000 characters",
    "x" * 50_000 + "," + "z" * 50_000 + "\n1,2\n",
    1,
    None,
    "no column 'y'",
    "xxx, zzz",
)
bad("JSON", '[{"a": 1, "y": 2}, {"a": 3, "y": 4}]\n', 1)
bad("JSON lines", '{"a": 1, "y": 2}\n{"a": 3, "y": 4}\n', 1)
bad(
    "a Git LFS pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 1\n", 1, None, "no column 'y'"
)
bad("a Parquet file", b"PAR1\x15\x04\x15\x00\x00,y\n" + bytes(50), None, None, "end in .parquet")
bad("bzip2", b"BZh91AY&SY" + bytes(range(256)), None, None, "bzip2")
bad("xz", b"\xfd7zXZ\x00\x00" + bytes(range(256)), None, None, "xz")
bad("zstd", b"\x28\xb5\x2f\xfd" + bytes(range(256)), None, None, "zstd")
bad("an old Excel workbook", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512), None, None, "Excel")
bad("a PDF", b"%PDF-1.7\n" + bytes(range(256)), None, None, "PDF")


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("t.csv", "a,b,y\n1,2,3\n")
    return stream.getvalue()


bad("a zip archive", zipped, None, None, "zip", file="t.zip")
bad("a zip archive named .csv", zipped, None, None, "zip")

# -- gzip -------------------------------------------------------------------------------------------------------------
PLAIN, MIXED = b"a,b,y\n1,2,3\n4,5,6\n", b"a,t,b,y\n1,p,2,3\n4,q,5,6\n"
MANY = b"a,b,y\n" + b"".join(b"%d,%d,%d\n" % (i, i * i % 97, i % 13) for i in range(5_000))
good("gzip", gzip.compress(PLAIN), file="t.csv.gz")
good("gzip without .gz", gzip.compress(MIXED))
good(".gz without gzip", PLAIN, file="t.csv.gz")
good("gzip members", gzip.compress(PLAIN[:9]) + gzip.compress(PLAIN[9:]), file="t.csv.gz")
good("gzip with a BOM", gzip.compress(b"\xef\xbb\xbf" + PLAIN), file="t.csv.gz")
good("gzip padded with zeros", gzip.compress(PLAIN) + bytes(99), file="t.csv.gz")
bad("an empty gzip", gzip.compress(b""), 1, None, "header", file="t.csv.gz")
bad("gzip, a bad cell", gzip.compress(b"a,b,y\n1,2,3\n4,x,6\n"), 3, "b", "'x'", file="t.csv.gz")
bad("gzip, Latin-1", gzip.compress(b"a,t,y\n1,p,3\n4,\xe9,6\n"), 3, "t", "0xe9", file="t.csv.gz")
bad("gzip in gzip", gzip.compress(gzip.compress(PLAIN)), 1, file="t.csv.gz")
for part in (3, 12, 30, 1_000, 5_000):
    bad(f"gzip cut after {part} bytes", gzip.compress(MANY)[:part], None, None, "gzip", file="t.csv.gz")
bad("gzip without its checksum", gzip.compress(MANY)[:-8], None, None, "gzip", file="t.csv.gz")
bad("gzip without its size", gzip.compress(MANY)[:-4], None, None, "gzip", file="t.csv.gz")
bad("gzip with garbage behind", gzip.compress(MANY) + b"garbage", None, None, "gzip", file="t.csv.gz")
bad("gzip with a wrong checksum", gzip.compress(MANY)[:-8] + b"12345678", None, None, "gzip", file="t.csv.gz")
bad(
    "gzip with a byte changed early",
    gzip.compress(MANY)[:40] + b"\xff" + gzip.compress(MANY)[41:],
    None,
    None,
    file="t.csv.gz",
)
bad("gzip with garbage inside", gzip.compress(MANY)[:6_000] + b"\xff" * 500, None, None, "gzip", file="t.csv.gz")
broken = zlib.compressobj(wbits=31)  # after a good half comes a block of a type that does not exist
broken = broken.compress(MANY) + broken.flush(zlib.Z_FULL_FLUSH) + b"\xff" * 9
bad("gzip, plain numbers and a block that is none", broken, None, None, "gzip", file="t.csv.gz")
bad("gzip, mixed, with garbage inside", gzip.compress(MIXED)[:14] + b"\xff" * 500, None, None, "gzip", file="t.csv.gz")
bad("Latin-1 in a cut gzip", gzip.compress(MANY + b"\xe9,1,2\n" + MANY)[:-30], 5_002, "a", "0xe9", file="t.csv.gz")


# -- not a file -------------------------------------------------------------------------------------------------------
def fifo(folder: Path) -> Path:
    os.mkfifo(folder / "t.csv")
    return folder / "t.csv"


def link(to: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "t.csv").symlink_to(to)
        return folder / "t.csv"

    return make


def below_a_file(folder: Path) -> Path:
    (folder / "t").write_text("a,y\n1,2\n")
    return folder / "t" / "t.csv"


def misspelt(folder: Path) -> Path:
    (folder / "houses.csv").write_text("a,y\n1,2\n")
    return folder / "house.csv"


def unreadable(folder: Path) -> Path:
    (folder / "t.csv").write_text("a,y\n1,2\n")
    (folder / "t.csv").chmod(0)
    return folder / "t.csv"


def linked(folder: Path) -> Path:
    (folder / "real.csv").write_bytes(PLAIN)
    (folder / "t.csv").symlink_to("real.csv")
    return folder / "t.csv"


bad("a folder", None, None, None, "folder", make=lambda folder: folder)
bad("a FIFO", None, None, None, "not a regular file", make=fifo)
bad("/dev/null", None, None, None, "not a regular file", make=lambda _: "/dev/null")
bad("/dev/zero", None, None, None, "not a regular file", make=lambda _: "/dev/zero")
bad("a link to /dev/zero", None, None, None, "not a regular file", make=link("/dev/zero"))
bad("a dangling link", None, None, None, "link to nothing", make=link("gone.csv"))
bad("a link to itself", None, None, None, "cannot be read", make=link("t.csv"))
bad("below a file", None, None, None, "cannot be read", make=below_a_file)
bad("no such file", None, None, None, "did you mean 'houses.csv'", make=misspelt)
bad("no such folder", None, None, None, "no such file", make=lambda folder: folder / "x" / "t.csv")
bad("a name that is too long", None, None, None, "cannot be read", make=lambda folder: folder / ("x" * 300 + ".csv"))
bad("an empty path", None, None, None, "path=''", make=lambda _: "")
bad("a blank path", None, None, None, "path=' '", make=lambda _: " ")
bad("no path", None, None, None, "path=None", make=lambda _: None)
bad("a number as path", None, None, None, "path=7", make=lambda _: 7)
bad("a path in bytes", None, None, None, "path=b't.csv'", make=lambda _: b"t.csv")
bad("a home that nobody expanded", None, None, None, "no such file", "~ is", make=lambda _: "~/no such file.csv")
bad("an address", None, None, None, "download", make=lambda _: "https://example.com/t.csv")
if os.getuid():
    bad("no permission", None, None, None, "cannot be read", "ermission", make=unreadable)
good("a link", None, make=linked)

# -- columns ----------------------------------------------------------------------------------------------------------
good("text beside numbers", MIXED, note="left out 't' (text: 'p' in line 2)")
good("dates beside numbers", "when,a,b,y\n2020-01-01,1,2,3\n2020-01-02,4,5,6\n", note="'when'")
good("booleans beside numbers", "ok,a,b,y\nTrue,1,2,3\nFalse,4,5,6\n", note="'ok'")
good("versions and addresses beside numbers", "v,ip,a,b,y\n1.2.3,10.0.0.1,1,2,3\n1.3.0,10.0.0.2,4,5,6\n", note="'ip'")
good("an empty column", "a,e,b,y\n1,,2,3\n4,,5,6\n", note="left out 'e' (no number in it)")
good("a column of NA", "a,e,b,y\n1,NA,2,3\n4,NA,5,6\n", note="'e'")
good("text with missing cells", "a,t,b,y\n1,,2,3\n4,q,5,6\n", note="'t'")
good("text with a missing first cell, missing is 'error'", "a,t,b,y\n1,,2,3\n4,q,5,6\n", missing="error")
good("an empty column, missing is 'error'", "a,e,b,y\n1,,2,3\n4,,5,6\n", missing="error", note="'e'")
bad("a missing first cell, missing is 'error'", "a,b,y\n1,,3\n4,5,6\n", 2, "b", "missing", missing="error")
good("a text column that was not chosen", "a,t,b,y\n1,7,2,3\n4,q,5,6\n", chosen=["a", "b"])
good("bad cells in a column that was not chosen", "a,t,b,y\n1,inf,2,3\n4,1e400,5,6\n", chosen=["a", "b"])
good("columns in the order chosen", "a,b,y\n1,2,3\n4,5,6\n", [[2, 1], [5, 4]], chosen=["b", "a"], features=["b", "a"])
bad("text that was chosen", MIXED, 2, "t", "'p'", chosen=["t"])
bad("text in the target", "a,b,y\n1,2,high\n4,5,low\n", 2, "y", "'high'")
bad("numbers that turn to text", "a,t,b,y\n1,7,2,3\n4,q,5,6\n", 3, "t", "'q'", "--data.features")
bad("text that turns to numbers", "a,t,b,y\n1,unknown,2,3\n4,7,5,6\n", 2, "t", "'unknown'", "--data.features")
bad("text that turns to almost a number", "a,t,b,y\n1,p,2,3\n4,1e999,5,6\n", 2, "t", "'p'")
good("text with a percentage", "a,t,b,y\n1,p,2,3\n4,5%,5,6\n", [[1, 2], [4, 5]], [3, 6])
good("text among numbers", "a,t,y\n1,p,3\n4,4,6\n7,q,9\n8,5,1\n", [[1], [4], [7], [8]], [3, 6, 9, 1])
bad("missing, then text, then a number", "a,t,b,y\n1,,2,3\n4,q,5,6\n7,8,9,9\n", 3, "t", "'q'")
bad("nothing but text", "a,b,y\nu,v,1\nw,x,2\n", 2, "a", "'u'", "no column of numbers")
bad("a chosen column without a number", "a,b,y\n1,,3\n4,,6\n", 2, "b", "no number", chosen=["a", "b"])
bad("a target without a number", "a,b,y\n1,2,\n4,5,NA\n", 2, "y", "no number")
bad("no complete row", "a,b,y\n1,,3\n,5,6\n", 2, None, "no complete row", "'a' 1", "'b' 1")
good("one row", "a,b,y\n1,2,3\n", [[1, 2]], [3])
good("more features than rows", "a,b,c,d,y\n1,2,3,4,5\n", [[1, 2, 3, 4]], [5])
good("constant columns", "a,b,y\n0.1,2,3\n0.1,5,6\n", [[0.1, 2], [0.1, 5]])
good("two of the same columns", "a,b,y\n1,1,3\n4,4,6\n", [[1, 1], [4, 4]])
good("years", "a,b,y\n1990,2,3\n2010,5,6\n", [[1990, 2], [2010, 5]])
good(
    "Unix times in s and ms",
    "a,b,y\n1700000000,1700000000123,3\n1700000001,1700000000124,6\n",
    [[1700000000, 1700000000123], [1700000001, 1700000000124]],
)
bad("Unix times in ns", "a,b,y\n1,1700000000123456789,3\n4,1700000000123456790,6\n", 2, "b", "1700000000123456789")
good("mixed magnitudes", "a,b,y\n1e-140,1e140,3\n2e-140,3e140,6\n", [[1e-140, 1e140], [2e-140, 3e140]])
bad("1e-300", "a,b,y\n1e-300,2,3\n2e-300,5,6\n", 2, "a", "1e-300")
bad("identifiers of 18 digits", "id,a,y\n123456789012345678,1,3\n123456789012345679,4,6\n", 2, "id", "identifier")
good(
    "identifiers of 18 digits that were not chosen",
    "id,a,b,y\n123456789012345677,1,2,3\n123456789012345679,4,5,6\n",
    chosen=["a", "b"],
)
good("several targets", "a,b,y\n1,2,3\n4,5,6\n", target=["y"])


# -- far below --------------------------------------------------------------------------------------------------------
def far(
    *, row: int, line: str, rows: int = 30_000, start: str = "a,b,y\n", usual: str = "1,2,3\n"
) -> Callable[[], bytes]:
    """Many plain rows with one that is not, in the line ``row``."""
    return lambda: (start + usual * (row - 2) + line + "\n" + usual * (rows - row)).encode()


def at_border(offset: int, line: str) -> tuple[Callable[[], bytes], int]:
    """Rows of 4 KiB, so that the second block ends near one line; that line, or one beside it, is another."""
    fill = ",1.000000000000000000" * 200
    head = "a,b,y" + "".join(f",c{i}" for i in range(200)) + "\n"
    row = ((1 << 16) + (1 << 20)) // len("1,2,3" + fill + "\n") + 2 + offset
    return far(row=row, line=line + fill, rows=1_200, start=head, usual="1,2,3" + fill + "\n"), row


for label, line, column, found in (
    ("an infinity", "4,inf,6", "b", "'inf'"),
    ("text", "4,x,6", "b", "'x'"),
    ("a short row", "4,5", "y", "2 cells"),
    ("a long row", "4,5,6,7", None, "4 cells"),
    ("a bad quote", '4,"5"0,6', "b", '"5"0'),
    ("1e999", "4,1e999,6", "b", "1e999"),
    ("too many digits", "4,9007199254740993,6", "b", "9007199254740993"),
    ("a tiny number", "4,1e-200,6", "b", "1e-200"),
    ("an open quote", '4,"5,6', "b", "closed"),
    ("a decimal comma", "4,5,5,6", None, "4 cells"),
    ("a NUL", "4,5\0,6", "b", "NUL"),
    ("a lone CR", "4,5\r,6", "b", "carriage return"),
    ("an accent", "4,é,6", "b", "'é'"),
    ("spaces", "  ", None, "1 cell "),
):
    bad(f"{label} in line 29,000", far(row=29_000, line=line), 29_000, column, found)
bad("an infinity in line 70,000", far(row=70_000, line="4,inf,6", rows=70_001), 70_000, "b", "'inf'")
bad("a short row as the last of 30,000", far(row=30_000, line="4,5"), 30_000, "y", "2 cells")
bad(
    "far down after a quoted newline",
    far(row=29_000, line="4,x,6", start='a,b,y\n1,"2",3\n"1","2","3"\n'),
    29_002,
    "b",
    "'x'",
)
good("a quote far down", far(row=20_000, line='4,"5",6', rows=20_000), [[1, 2]] * 19_998 + [[4, 5]], [3] * 19_998 + [6])
good(
    "NA far down",
    far(row=20_000, line="4,NA,6", rows=20_001),
    [[1, 2]] * 19_999,
    [3] * 19_999,
    note="dropped 1 of 20000",
)
good("a blank line far down", far(row=20_000, line="", rows=20_001), [[1, 2]] * 19_999, [3] * 19_999)
good(
    "a column that begins after 20,000 rows",
    lambda: b"a,b,y\n" + b"1,,3\n" * 20_000 + b"1,2,3\n4,5,6\n",
    note="20000 of 20002",
)
for offset in (-1, 0, 1):
    for label, line, column, found in (
        ("text", "4,x,6", "b", "'x'"),
        ("infinity", "4,inf,6", "b", "'inf'"),
        ("a short row", "4,5", None, "202 cells"),
        ("é", "4,é,6", "b", "'é'"),
    ):
        content, row = at_border(offset, line)
        bad(f"{label} at a block's border {offset:+}", content, row, column, found, chosen=["a", "b"])
    content, row = at_border(offset, '4,"5",6')
    good(
        f"a quote at a block's border {offset:+}",
        content,
        [[1, 2]] * (row - 2) + [[4, 5]] + [[1, 2]] * (1_200 - row),
        [3] * (row - 2) + [6] + [3] * (1_200 - row),
        chosen=["a", "b"],
    )


# -- decimal commas ---------------------------------------------------------------------------------------------------
COMMA = {"decimal": ","}
for cell, value in {
    "1,5": 1.5,
    "-1,5": -1.5,
    ",5": 0.5,
    "5,": 5,
    "1,5e3": 1500,
    "1,5E-03": 0.0015,
    "-0,0": 0,
    ",00": 0,
    "7": 7,
    " 0,25 ": 0.25,
}.items():
    good(f"a decimal comma: {cell!r}", f"a;b;y\n1;2;3\n4;{cell};6\n", [[1, 2], [4, value]], how=COMMA)
    good(f"a quoted decimal comma: {cell!r}", f'a,b,y\n1,2,3\n4,"{cell}",6\n', [[1, 2], [4, value]], how=COMMA)
for cell in [
    "1.5",
    "1.234,5",
    "1.234.567,8",
    "1,234,567",
    "1 234,5",
    "1'234,5",
    "1,2,3",
    "1,5,",
    "1.",
    ".5",
    "1e2.5",
    "inf",
]:
    bad(f"with a decimal comma: {cell}", f"a;b;y\n1;2;3\n4;{cell};6\n", 3, "b", repr(cell), how=COMMA)
    if cell not in ("1,2,3", "1,5,", "1e2.5"):  # a column of which is text
        bad(f"with a decimal comma, all {cell}", f"a;b;y\n1;{cell};3\n4;{cell};6\n", 2, "b", repr(cell), how=COMMA)
good("decimal commas between tabs", "a\tb\ty\n1,5\t2\t3,5\n4\t5,5\t6\n", [[1.5, 2], [4, 5.5]], [3.5, 6], how=COMMA)
good(
    "decimal commas, and one in a name",
    "a, m;b;y\n1;2;3\n4;5,5;6\n",
    [[1, 2], [4, 5.5]],
    features=["a, m", "b"],
    how=COMMA,
)
good("decimal commas beside dates", "d;a;b;y\n31.12.2020;1;2;3\n1.1.2021;4;5;6\n", note="'d'", how=COMMA)
good("decimal commas, missing cells", "a;b;y\n1;;3\n4;NA;6\n4;5,5;6\n", [[4, 5.5]], [6], note="dropped 2", how=COMMA)
bad("decimal commas between commas, as told", "a,b,y\n1,5,2,5,3,5\n", 2, None, "6 cells", how=COMMA)
bad("thousands points", "a;b;y\n1;2;3\n4;2.612,28;6\n", 3, "b", "'2.612,28'", "write 2612,28", how=COMMA)
for cell in ("8.316.224", "-8,316,224", "8'316'224"):  # which of the signs is the decimal one is no question then
    for how in ({}, COMMA):
        plain = cell.translate(dict.fromkeys(map(ord, ",.'")))
        parts = "b", f"has thousands separators: write {plain}, and take them out"
        bad(f"thousands twice: {cell}{how or ''}", f"a;b;y\n1;2;3\n4;{cell};6\n", 3, *parts, how=how)
bad("thousands commas", "a;b;y\n1;2;3\n4;2,612.28;6\n", 3, "b", "write 2612.28")
bad(
    "a point, or thousands",
    "a;b;y\n1;2;3\n4;2.612;6\n",
    3,
    "b",
    "decimal comma only",
    "--data.decimal . if all are decimal points",
    how=COMMA,
)
bad("decimal commas that nobody told of", "a;b;y\n1;2;3\n4;5,5;6\n", 3, "b", "'5,5'", "--data.decimal ,")
FAR = {"start": "a;b;y\n", "usual": "1,25;2;3,5\n", "rows": 200_000}
for label, line, column, found in (
    ("a decimal point", "1.25;2;3,5", "a", "'1.25'"),
    ("a thousands separator", "1.250,5;2;3,5", "a", "'1.250,5'"),
    ("a short row", "1,25;2", "y", "2 cells"),
    ("a decimal comma too many", "1,25;2;3,5,5", "y", "'3,5,5'"),
):
    for row in (9_000, 150_000):  # as numpy and as pyarrow, if there is one, see it
        bad(f"{label} in line {row}, decimal commas", far(row=row, line=line, **FAR), row, column, found, how=COMMA)
good(
    "decimal commas far down",
    far(row=20_000, line="0,5;,5;-1,5e1", rows=20_000, start="a;b;y\n", usual="1,25;2;3,5\n"),
    [[1.25, 2]] * 19_998 + [[0.5, 0.5]],
    [3.5] * 19_998 + [-15],
    how=COMMA,
)

# -- missing values of one's own --------------------------------------------------------------------------------------
MARKS = {"missing_values": ["?", "-", "k. A.", -999, "1e20"]}
for cell in [
    "?",
    " ? ",
    "-",
    "k. A.",
    '"?"',
    "-999",
    "-999.0",
    "-9.99e2",
    '"-999"',
    "1e20",
    "100000000000000000000",
    "NA",
    "",
]:
    good(
        f"a missing value of one's own: {cell!r}",
        f"a,b,y\n1,2,3\n7,{cell},9\n4,5,6\n",
        note="dropped 1 of 3",
        how=MARKS,
    )
    good(
        f"first, a missing value of one's own: {cell!r}",
        f"a,b,y\n7,{cell},9\n1,2,3\n4,5,6\n",
        note="dropped 1",
        how=MARKS,
    )
    bad(f"refused, {cell!r}", f"a,b,y\n1,2,3\n7,{cell},9\n", 3, "b", "missing", missing="error", how=MARKS)
for cell in ["??", "--", "999", "-9990", "+999", "*", "k.A."]:
    if cell.lstrip("+-").isdigit():
        good(f"almost a missing value: {cell}", f"a,b,y\n1,2,3\n4,{cell},6\n", [[1, 2], [4, float(cell)]], how=MARKS)
    else:
        bad(f"almost a missing value: {cell}", f"a,b,y\n1,2,3\n7,{cell},9\n", 3, "b", repr(cell), how=MARKS)
good("a missing value in the target", "a,b,y\n1,2,3\n7,8,?\n4,5,6\n", note="'y' 1", how=MARKS)
good("nothing but missing values", "a,t,b,y\n1,?,2,3\n4,-999,5,6\n", note="'t' (no number in it)", how=MARKS)
good("one marker as a text", "a,b,y\n1,2,3\n7,?,9\n4,5,6\n", note="dropped 1", how={"missing_values": "?"})
good(
    "-999,5 is missing", "a;b;y\n1;2;3\n7;-999,50;9\n4;5;6\n", note="dropped 1", how={"missing_values": -999.5, **COMMA}
)
for label, line in (("?", "1,?,3"), ("-999", "1,-999,3"), ("-999.0", "1,-999.0,3")):
    content = far(row=9_000, line=line, rows=10_000)
    good(f"{label} in line 9,000", content, [[1, 2]] * 9_998, [3] * 9_998, note="dropped 1 of 9999", how=MARKS)
    for row in (9_000, 250_000):
        content = far(row=row, line=line, rows=300_000)
        bad(f"{label} in line {row}, refused", content, row, "b", "missing", missing="error", how=MARKS)

# -- units, and what else stands beside a number ----------------------------------------------------------------------
for cell in (
    "$5",
    "12 %",
    "12%",
    '"$1,200"',
    "5 \u20ac",
    "1 000",
    "2\u00a0000",
    "\u00a05",
    "2\u202f000",
    "5\x0b",
    '"5\n"',
    "5\x85",
):
    for row in (2, 9_000):
        content = far(row=row, line=f"1,{cell},3")
        bad(f"a unit: {cell!r} in line {row}", content, row, "b", "has a unit or a space")
for cell in (
    "2\u200b",
    "\u201c2\u201d",
    "'2'",
    "1/2",
    "0b11",
    "\u00bd",
    "1.#QNAN",
    "nan(1)",
    "1,00,000",
    "5-",
    "(5)",
    "1e+",
    "++5",
):
    content = far(row=9_000, line=f'1,"{cell}",3')
    bad(f"no number: {cell!r}", content, 9_000, "b", "is not a number")
bad("a byte-order mark between rows", "a,b,y\n1,2,3\n\ufeff4,5,6\n", 3, "a", "is not a number")
bad("a Ctrl-Z at the end", "a,b,y\n1,2,3\n4,5,6\n\x1a", 4, None, "1 cell where the header has 3")
bad("a sum below", "a,b,y\n1,2,3\n4,5,6\nTotal,7,9\n", 4, "a", "'Total' is not a number")
bad("a line that says sep=", "sep=;\na;b;y\n1;2;3\n", 1, None, "Excel's sep=", "take the lines")
bad("two byte-order marks", "\ufeff\ufeffa,b,y\n1,2,3\n", 1, "\ufeffa", "byte-order mark")
bad("the header again, far below", far(row=9_000, line="a,b,y"), 9_000, "y", "'y' is not a number")

# -- columns to leave out ---------------------------------------------------------------------------------------------
IDS = "id,a,t,b,y\n123456789012345678,1,7,2,3\n123456789012345679,4,q,5,6\n"
good("identifiers that are left out", IDS, how={"exclude": ["id", "t"]})
good("one column that is left out", "id,a,b,y\nx,1,2,3\n7,4,5,6\n", how={"exclude": "id"})
bad("a misspelt column to leave out", IDS, 1, None, "did you mean 'id'", how={"exclude": ["idd"]})
bad("the target to leave out", IDS, None, None, "'y' is the target", how={"exclude": ["y"]})
bad("a feature to leave out", IDS, None, None, "'a' is to be left out", chosen=["a"], how={"exclude": ["a"]})
bad("all to leave out", "a,y\n1,2\n", None, None, "no column of numbers", how={"exclude": ["a"]})
bad("a column to leave out, twice", IDS, None, None, "different columns", how={"exclude": ["id", "id"]})
bad("a number to leave out", IDS, None, None, "exclude=7", how={"exclude": 7})

# -- columns of text that are features --------------------------------------------------------------------------------
ALL, QR = {"categories": "all"}, [[1, 0], [4, 1]]
good("text as a feature", "a,t,y\n1,p,3\n4,q,6\n", QR, features=["a", "t=q"], how=ALL)
good("text as a feature, spaces around", "a,t,y\n1, p ,3\n4,\tq,6\n", QR, features=["a", "t=q"], how=ALL)
good("text in two Unicode forms", "a,t,y\n1,a,3\n4,\u00e9,6\n5,e\u0301,6\n", [*QR, [5, 1]], [3, 6, 6], how=ALL)
good("text that differs in case", "a,t,y\n1,P,3\n4,p,6\n", QR, features=["a", "t=p"], how=ALL)
good("text over lines and with quotes", 'a,t,y\n1,"p\nr",3\n4,"q ""s""",6\n', QR, features=["a", 't=q "s"'], how=ALL)
good("text and a missing cell", "a,t,y\n1,p,3\n2,,9\n2,NA,9\n4,q,6\n", QR, note="dropped 2 of 4", how=ALL)
good("text, then numbers", "a,t,y\n1,f,3\n4,4,6\n4,r,6\n", [[1, 1, 0], [4, 0, 0], [4, 0, 1]], [3, 6, 6], how=ALL)
good("numbers as text", "a,t,y\n1,9,3\n4,10,6\n", QR, features=["a", "t=10"], how={"categories": ["t"]})
good("numbers as text to the digit", "a,t,y\n1,01,3\n4,1,6\n", QR, features=["a", "t=1"], how={"categories": ["t"]})
good("text with a level that is missing", "a,t,y\n1,p,3\n2,?,9\n4,q,6\n", QR, note="'t' 1", how=ALL | MARKS)
good("text of decimal commas", "a;t;y\n1;1,5;3\n4;p;6\n", QR, features=["a", "t=p"], how={"categories": "t", **COMMA})
good("truth as text", "a,t,y\n1,false,3\n4,true,6\n", QR, features=["a", "t=true"], how=ALL)
good("text that is always the same", "a,t,b,y\n1,p,2,3\n4,p,5,6\n", note="'t' (always 'p')", how=ALL)
bad("text as the target, and a category", MIXED, None, None, "'t'", "classifier", target="t", how={"categories": ["t"]})
bad("text as the target", MIXED, 2, "t", "'p'", "classifier", target="t")
bad("text below numbers", "a,t,y\n1,7,3\n4,q,6\n", 3, "t", "'q'", "--data.categories", how=ALL)
bad("units below the header, and all text is taken", "a,b,y\nm,1,1\n1,2,2\n3,4,3\n", 2, "a", "'m' is text", how=ALL)
bad("a missing text, refused", "a,t,y\n1,p,3\n4,,6\n", 3, "t", "missing", missing="error", how=ALL)
bad("a missing first text, refused", "a,t,y\n1,,3\n4,p,6\n", 2, "t", "missing", missing="error", how=ALL)
bad(
    "text of too many levels",
    lambda: b"a,t,y\n" + b"".join(b"%d,n%d,3\n" % (i, i) for i in range(50_000)),
    1_002,
    "t",
    "1,000",
    "--data.exclude '[t]'",
    how=ALL,
)
bad("a level that is not known", MIXED, 3, "t", "'q' is none", how={"categories": {"t": ["p", "r"]}})
for row in (9_000, 250_000):  # once as the exact reader sees it, once as pyarrow does
    content = far(row=row, line="4,q,6", rows=300_000, start="a,t,y\n", usual="1,p,3\n2,r,4\n"[:6])
    bad(f"a level that is not known in line {row}", content, row, "t", "'q'", how={"categories": {"t": ["p", "r"]}})
    bad(
        f"a missing text in line {row}",
        far(row=row, line="4,NA,6", rows=300_000, start="a,t,y\n", usual="1,p,3\n"),
        row,
        "t",
        "missing",
        missing="error",
        how={"categories": {"t": ["p", "r"]}},
    )

# -- to predict, with a model of the columns a and b -------------------------------------------------------------------
NAN = float("nan")
TO_PREDICT: dict[str, Case] = {}
for name, content, x in (
    ("as trained", "a,b,y\n1,2,3\n4,5,6\n", [[1, 2], [4, 5]]),
    ("without the target", "a,b\n1,2\n4,5\n", [[1, 2], [4, 5]]),
    ("in another order", "y,b,a\n3,2,1\n6,5,4\n", [[1, 2], [4, 5]]),
    ("with more columns", "t,a,u,b\np,1,7,2\nq,4,inf,5\n", [[1, 2], [4, 5]]),
    ("text in the target", "a,b,y\n1,2,?\n4,5,?\n", [[1, 2], [4, 5]]),
    ("semicolons", "b;a\n2;1\n5;4\n", [[1, 2], [4, 5]]),
    ("tabs", "b\ta\n2\t1\n5\t4\n", [[1, 2], [4, 5]]),
    ("gzip", gzip.compress(b"b,a\n2,1\n5,4\n"), [[1, 2], [4, 5]]),
    ("a BOM and CRLF", "\ufeffa,b\r\n1,2\r\n4,5\r\n", [[1, 2], [4, 5]]),
    ("an index without a name", ",a,b\n0,1,2\n1,4,5\n", [[1, 2], [4, 5]]),
    ("blank lines", "a,b\n\n1,2\n\n4,5\n\n", [[1, 2], [4, 5]]),
    ("text over several lines", 'a,t,b\n1,"p\nq",2\n4,"r\n",5\n', [[1, 2], [4, 5]]),
    ("missing cells", "a,b\n1,\nNA,2\n4,5\n", [[1, NAN], [NAN, 2], [4, 5]]),
    ("a line of separators", "a,b\n,\n4,5\n", [[NAN, NAN], [4, 5]]),
    ("a column of nothing", "a,b\n,2\n,5\n", [[NAN, 2], [NAN, 5]]),
    ("one row", "a,b\n1,2\n", [[1, 2]]),
    ("20,000 rows", b"a,b\n" + b"1,2\n4,5\n" * 10_000, [[1, 2], [4, 5]] * 10_000),
    ("8,192 rows, a whole block", b"a,b\n" + b"1,2\n" * 8_192, [[1, 2]] * 8_192),
):
    TO_PREDICT[name] = Case(content, x=x)
for name, content, line, column, found in (
    ("a column lacks", "a,c\n1,2\n", 1, None, "no column 'b'"),
    ("a misspelt column", "alpha,b\n1,2\n", 1, None, "no column 'a'"),
    ("another case", "A,b\n1,2\n", 1, None, "did you mean 'A'"),
    ("a column twice", "a,b,a\n1,2,3\n", 1, "a", "twice"),
    ("no header", "1,2\n4,5\n", 1, None, "header"),
    ("no row", "a,b\n", 2, None, "no row"),
    ("empty", "", 1, None, "header"),
    ("text", "a,b\n1,2\n4,x\n", 3, "b", "'x'"),
    ("a column of text", "a,b\np,2\nq,5\n", 2, "a", "'p'"),
    ("infinity", "a,b\n1,2\n4,inf\n", 3, "b", "'inf'"),
    ("1e-400", "a,b\n1,2\n4,1e-400\n", 3, "b", "1e-400"),
    ("too many digits", "a,b\n1,2\n4,9007199254740993\n", 3, "b", "9007199254740993"),
    ("a decimal comma", "a;b\n1;2\n4;5,5\n", 3, "b", "'5,5'"),
    ("a short row", "a,b\n1,2\n4\n", 3, "b", "1 cell "),
    ("a long row", "a,b\n1,2\n4,5,6\n", 3, None, "3 cells"),
    ("a bad quote", 'a,b\n1,2\n4,"5"0\n', 3, "b", '"5"0'),
    ("text far below", b"a,b\n" + b"1,2\n" * 20_000 + b"1,x\n", 20_002, "b", "'x'"),
    ("Latin-1 in another column", "a,b,t\n1,2,é\n".encode("latin-1"), 2, "t", "0xe9"),
    ("a cut gzip", gzip.compress(MANY)[:-9], None, None, "gzip"),
):
    TO_PREDICT[name] = Case(content, line=line, column=column, found=(found,))
