"""Which columns of a file are read, and as what: numbers, or the levels of a category, each a column of 0 and 1.

A category is coded by treatment: its levels are sorted, and each but the first has a column, named ``species=Gentoo``,
which is 1 in the rows of that level. While a file is read, a level is a number, in the order in which they are met.
"""

import itertools
import json
import math
import re
import shlex
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from linreg.files.cells import NUMBER, Spelling
from linreg.system.errors import InputError, did_you_mean

DATE = re.compile(r"(\d{4}([-/.])\d{1,2}\2\d{1,2}|\d{1,2}([-/.])\d{1,2}\3\d{2,4})([ T,].*)?", re.ASCII)
SAMPLE = 1_000  # cells that tell a column of text from one of numbers with a text cell on top
MOST_LEVELS = 1_000
ROLES = {"target": "the target", "exclude": "--data.exclude", "categories": "--data.categories"}
CLASSES = "a target is a number; to tell classes apart take a classifier, such as that of linreg/examples"
Categories = str | Sequence[str] | Mapping[str, Sequence[str]] | None


@dataclass
class Column:
    """A column to read, and what is known of it so far."""

    name: str
    required: bool  # named by the user, so text in it is an error
    is_target: bool = False
    is_learned: bool = False  # a model has been trained on it, as numbers
    may_be_text: bool = False  # whether text makes it a category
    levels: dict[str, int] | None = None  # of a category, each with its number; None of a column of numbers
    is_fixed: bool = False  # whether no other level is taken
    has_value: bool = False
    text: str | None = None  # why it is left out
    hole: InputError | None = None  # its first missing cell, where that is an error
    odd: InputError | None = None  # its first cell of text, should the others be numbers
    sample: tuple[int, int] = (0, 0)  # of a column of text: cells of text and numbers among the first 1,000 or so

    def count(self, cell: str, spelling: Spelling) -> None:
        """Takes one more cell of a column of text into the sample, as long as it is in doubt."""
        text, numbers = self.sample
        if not spelling.is_missing(cell := cell.strip(" \t")):
            is_number = spelling.pattern.fullmatch(cell) is not None
            self.sample = text + (not is_number), numbers + is_number
        if text + numbers >= SAMPLE:
            self.check_odd()
            self.odd = None

    def check_odd(self) -> None:
        """InputError if what is taken for text is a column of numbers but for one cell, or but for a tenth of them."""
        text, numbers = self.sample
        if self.odd and numbers > 0 and text <= max(1, (text + numbers) // 10):
            raise self.odd

    def remedy(self, is_text: bool, cell: str = "") -> str:
        """What to do about a cell that is no number, which may be text."""
        if self.is_target:
            return f"; {CLASSES}" if is_text and not self.has_value else ""
        mark = as_missing([cell]) if cell else "--data.missing_values"
        ways = f"; if it stands for a missing one, give {mark}"
        ways += f"; if it is text, --data.categories '[{self.name}]'" * (not self.is_learned)
        return ways * is_text + "; choose the columns with --data.features" * (not self.required)

    def fix(self, levels: Sequence[str]) -> None:
        """Makes it a category of these levels and no others, the first of which has no column."""
        known = {level: i for i, level in enumerate(levels) if isinstance(level, str)}
        if len(known) < max(len(levels), 2):
            found = f"categories: {self.name!r}: {str(levels)[:200]}"
            raise InputError(f"{found}: two or more different levels are expected, as a list of texts")
        self.levels, self.is_fixed = known, True

    def level(self, cell: str | None, spelling: Spelling) -> float:
        """The number of the level in a cell, NaN if it is missing; ValueError says why it cannot be one."""
        assert self.levels is not None
        if cell is None:
            return math.nan
        text = unicodedata.normalize("NFC", cell.strip(" \t"))
        known = self.levels.get(text)
        if known is not None:
            return known
        if spelling.is_missing(text):
            return math.nan
        if self.is_fixed:
            levels = list(self.levels)
            shown = ", ".join(map(repr, levels[:10])) + ", ..." * (len(levels) > 10)
            remedy = did_you_mean(text, levels) or "; nothing is known of it: leave the row out"
            raise ValueError(f"is none of the known levels: {shown}{remedy}")
        if len(self.levels) == MOST_LEVELS:
            remedy = f"leave the column out, --data.exclude '[{self.name}]'"
            raise ValueError(f"is one more than the {MOST_LEVELS:,} different texts that a category may have; {remedy}")
        self.levels[text] = len(self.levels)
        return self.levels[text]

    def ordered(self) -> list[str]:
        """The levels of a category: as they were given, or else by size if all are numbers, or else as text."""
        levels = list(self.levels or ())
        if self.is_fixed:
            return levels
        return sorted(levels, key=(lambda t: (float(t), t)) if all(map(NUMBER.fullmatch, levels)) else None)

    def names(self) -> list[str]:
        """Of the columns that it becomes."""
        return [self.name] if self.levels is None else [f"{self.name}={level}" for level in self.ordered()[1:]]


def as_missing(texts: Sequence[str]) -> str:
    """The flag that makes a missing value of each of these texts."""
    return f"--data.missing_values {shlex.quote(json.dumps(texts, ensure_ascii=False))}"


def expand(values: np.ndarray, columns: Sequence[Column]) -> np.ndarray:
    """Rows (n, C) with a column of 0 and 1 for each level but the first in the place of the levels' numbers."""
    if all(column.levels is None for column in columns):
        return values
    parts = []
    for i, column in enumerate(columns):
        part = values[:, i, None]
        if column.levels is not None:
            numbers = [column.levels[level] for level in column.ordered()[1:]]
            part = np.where(np.isnan(part), math.nan, part == np.array(numbers)).astype(values.dtype)
        parts.append(part)
    return np.concatenate(parts, axis=1)


def choose(
    file: Any,
    targets: Sequence[str],
    features: Sequence[str] | None = None,
    categories: Categories = None,
    exclude: Sequence[str] = (),
) -> list[Column]:
    """The columns of a file (with ``names`` and ``index``) to read: the targets, then the features.

    Features are columns by name, or levels that ``categories`` gives with their column; None stands for all others.
    """
    named = () if categories is None or categories == "all" else categories
    levels = categories if isinstance(categories, Mapping) else {}
    roles = {"target": targets, "exclude": exclude, "categories": named}
    places = {role: [file.index(name, f"for {ROLES[role]}") for name in names] for role, names in roles.items()}
    if features is None:
        taken = {*places["target"], *places["exclude"]}
        places["features"] = [i for i, name in enumerate(file.names) if name and i not in taken]
    else:
        owner, names = {f"{name}={level}": name for name in levels for level in levels[name]}, list[str]()
        for name in features:
            if name not in owner or owner[name] not in names:  # of a category's levels the first stands for all
                names.append(owner.get(name, name))
        places["features"] = [file.index(name, "for the features") for name in names]
        places["features"] += [i for i in places["categories"] if i not in places["features"]]
    _check_roles(file, places)
    columns = [Column(file.names[i], required=True, is_target=True) for i in places["target"]]
    given = dict(zip(places["categories"], levels.values(), strict=False))
    for i in places["features"]:
        is_named = i in places["categories"]
        column = Column(file.names[i], features is not None or is_named, is_learned=not targets)
        column.may_be_text = categories == "all"
        column.levels = {} if is_named else None
        if i in given:
            column.fix(given[i])
        columns.append(column)
    return columns


def _check_roles(file: Any, places: dict[str, list[int]]) -> None:
    for role, indices in places.items():
        if len(set(indices)) < len(indices):
            raise InputError(f"{file.path}: {role}={[file.names[i] for i in indices]}: different columns are expected")
    parts = {"the target": {*places["target"]}, "to be left out": {*places["exclude"]}}
    parts["among the features"] = {*places["features"], *places["categories"]}
    for (first, one), (second, other) in itertools.combinations(parts.items(), 2):
        for i in sorted(one & other)[:1]:
            is_class = i in places["target"] and i in places["categories"]
            remedy = CLASSES if is_class else "a column can only be one of them"
            raise InputError(f"{file.path}: {file.names[i]!r} is {first} and {second}; {remedy}")
