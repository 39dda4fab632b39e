"""What numbers and rows may be in truth: names, dates, thousands, slips, copies. It is said, and nothing is changed."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from linreg.files.columns import Column

IDENTIFIER = re.compile(
    r"(.*[ _.-])?(id|uuid|zip|(zip|post(al)?)[ _.-]?code|phone)|index|unnamed: \d+|(?-i:.*[a-z](Id|ID))", re.IGNORECASE
)
MAY_RUN = re.compile(  # a time, or a rank
    r"(.*[ _.-])?(t|x|time|date|year|month|week|day|hour|min(ute)?|sec(ond)?|age|step|epoch|period|zeit|datum|jahr"
    r"|monat|woche|tag|stunde|alter|rank(ing)?|rang|platz)s?([ _.-].*)?",
    re.IGNORECASE,
)
CODE = re.compile(r"0\d\d+", re.ASCII)  # two digits are those of a month or an hour
WRITTEN_DATE = re.compile(  # 20220131, 202201, or 01.2022, with five decimals
    r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])?\.00000|(0?[1-9]|1[0-2])\.(19|20)\d\d0", re.ASCII
)
THOUSANDS = re.compile(r"[-+]?[1-9]\d?\d?[.,]\d{3}", re.ASCII)
POINT = "dot is read as a decimal point"
FEW = 20  # rows, or different values, that say too little of a column
DATES, SAMPLE = 10, 1_000  # that differ; rows that are read
MOST_COMPARED = 100_000  # rows, for copies among them
CODES = torch.tensor([99.0, 999.0, 9_999.0, 99_999.0, 999_999.0], dtype=torch.float64)  # of a missing value, or below 0


def row_numbers(values: np.ndarray, features: Mapping[int, Column]) -> dict[str, str]:
    """The feature that numbers the rows (n, C): k, k + 1, k + 2 ... in any order; a time may, and a lone feature."""
    numbers = [i for i, column in features.items() if column.levels is None and not MAY_RUN.fullmatch(column.name)]
    few = [i for i in numbers if len({*filter(float.is_integer, values[:FEW, i].tolist())}) == FEW]  # most end here
    few = [i for i in few if np.ptp(values[:, i]) == len(values) - 1]
    runs = [i for i in few if (np.diff(np.sort(values[:, i])) == 1).all()]
    if not len(runs) == 1 < len(features):
        return {}
    in_order = (np.diff(values[:, runs[0]]) == 1).all()
    how = "it runs as the rows do" if in_order else "it numbers the rows, in another order"
    return {features[runs[0]].name: f", though {how}"}


def dates(values: np.ndarray, features: Mapping[int, Column]) -> dict[str, str]:
    """The features (n, C) whose numbers are written dates, which are unevenly spaced."""
    found = {}
    for i in (i for i, column in features.items() if column.levels is None):
        cells = [cell for cell in values[:SAMPLE, i].tolist() if not math.isnan(cell)]
        if all(WRITTEN_DATE.fullmatch(f"{cell:.5f}") for cell in cells) and len({*cells}) >= DATES:
            found[features[i].name] = (
                f", though {cells[0]:.8g} and the others look like dates, unevenly spaced as numbers"
            )
    return found


def codes(file: Any, names: Iterable[str]) -> list[str]:
    """Those of a file's columns with leading zeros in the first rows, as of zip codes."""
    return [name for name in names if any(CODE.fullmatch(cell) for _, cell in _first_cells(file, name))]


def thousands(files: Iterable[Any], means: Mapping[str, float]) -> list[str]:
    """A line for each column whose every decimal sign in the first rows of a file may part thousands, in one file.

    It may beside numbers that need none; where that comes nearer to the column's mean in training, 0 if unknown; and
    where all points of a file with semicolons may, for there the decimal sign should be a comma.
    """
    return next(filter(None, (_thousands_in(file, means) for file in files)), [])


def _thousands_in(file: Any, means: Mapping[str, float]) -> list[str]:
    found, doubtful = list[str](), list[str]()
    sign, way = (",", "comma is read as a decimal comma") if file.spelling.decimal == "," else (".", POINT)
    where_commas, remedy = sign == "." and file.delimiter == ";", "if three digits after it are thousands, take it out"
    for name, mean in means.items():
        cells = _first_cells(file, name)
        parted, others = [each for each in cells if sign in each[1]], [c for _, c in cells if c.isdecimal()]
        may = all(THOUSANDS.fullmatch(cell) for _, cell in parted)
        where_commas = where_commas and may
        if may and len(parted) > 2 and max(map(len, others), default=0) < 4:
            (line, cell), size = parted[0], sum(float(c.replace(",", ".")) for _, c in parted) / len(parted)
            text = f"{name!r}: each {way}, as in {cell} ({file.path}, line {line}); {remedy} of the file"
            if others or abs(mean) > 500 * abs(size):
                found.append(text)
            elif not mean:
                doubtful.append(text)
    return found + doubtful * where_commas


def _first_cells(file: Any, name: str) -> list[tuple[int, str]]:
    at = file.index(name, "in it")
    return [(line, cells[at].strip()) for line, cells in file.first_rows]


def far_cells(values: Tensor) -> list[tuple[int, int]]:
    """Row and column of each cell of (N, K) that a wide gap parts, with two others at most, from its column's rest.

    A gap is wide if it is 8 times as long as the way from the median of the different values to it, and 3 times as
    much longer as that is longer than the way to a tenth of them; where these are few, if it is 40 times as long.
    """
    found = list[tuple[int, int]]()
    if len(values) < FEW:
        return found
    some = values[:: -(-len(values) // 8_192)].double().sort(dim=0).values
    middle = some[len(some) // 2]  # sorting all takes ten times as long, and most columns have no far end
    is_near = values.amax(0) - middle <= 4 * (some[-4] - middle)
    is_near &= middle - values.amin(0) <= 4 * (middle - some[3])
    for i in (~is_near).nonzero().flatten().tolist():
        column = values[:, i].double().cpu().numpy()
        ordered = np.sort(column)
        different = ordered[np.diff(ordered, prepend=-np.inf) > 0]
        for side, ends in ((column, different), (-column, -different[::-1])):
            for k in range(min(3, len(ends) - 2), 0, -1):
                rest = ends[:-k]
                median = rest[(len(rest) - 1) // 2]
                reach, usual = rest[-1] - median, rest[-1 - len(rest) // 10] - median
                times = max(8, 3 * reach / usual) if len(rest) >= FEW else 40
                if ends[-k] - rest[-1] > times * reach and len(rows := np.flatnonzero(side >= ends[-k])) <= 3:
                    found += [(row, i) for row in rows.tolist()]
                    break
    return found


def far_values(values: Tensor) -> list[tuple[int, str]]:
    """The columns of (N, K) whose lowest or highest value is that of four rows or more, and far from all others.

    It is far if the gap is 8 times as long as all others lie apart, of a code such as -999 half as long; in words.
    """
    found = list[tuple[int, str]]()
    if len(values) < FEW:
        return found
    some = values[:: -(-len(values) // 8_192)].double().sort(dim=0).values
    for sign, ends in ((1, some), (-1, -some.flip(0))):
        others = ends.where(ends > ends[0], torch.inf).amin(0)
        times = torch.where(torch.isin(ends[0].abs(), CODES), 0.5, 8.0)
        may_be = (ends[3] == ends[0]) & (ends[len(ends) // 2] > ends[0]) & (others < ends[-1])
        for i in (may_be & (others - ends[0] > times * (ends[-1] - others))).nonzero().flatten().tolist():
            column = sign * values[:, i].double()
            end, rest = column.min(), column[column > column.min()]
            if rest.min() - end > times[i] * (rest.max() - rest.min()):
                found.append((i, f"{len(column) - len(rest):,} are {sign * float(end):g}, far from all others"))
    return found


def copies(splits: Mapping[str, tuple[Tensor, Tensor]]) -> Iterator[str]:
    """A line where rows are measured that are not new; of larger tables it would take too long to know."""
    if sum(len(x) for x, _ in splits.values()) > MOST_COMPARED:
        return
    rows = {name: [row.tobytes() for row in torch.cat(sides, 1).numpy()] for name, sides in splits.items()}
    known = {*rows["train"]}
    if not rows["val"] + rows["test"] and 1_000 * (twice := len(rows["train"]) - len(known)) > len(rows["train"]):
        yield f"{twice:,} rows are copies of others"
    for name in ("val", "test"):
        twice = sum(row in known for row in rows[name])
        if 100 * twice > len(rows[name]):
            yield f"{twice:,} of {len(rows[name]):,} {name} rows are copies of training rows"
