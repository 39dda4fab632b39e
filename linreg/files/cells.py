"""What a cell means: a number, a missing value, or neither, and then why."""

import math
import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from linreg.system.errors import InputError

# What R, pandas, SQL and spreadsheets write for "no value", and what people may mean by it.
MISSING = ("", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null")
MAYBE_MISSING = re.compile(
    r"[-–—.?*/]+|#[a-z/0]+[!?]?|[(<\[]?(na|n\.a\.|k\. ?a\.|nan|nil|none|null|blank|empty|missing|undefined|unknown"  # noqa: RUF001
    r"|unbekannt|not (available|applicable|known))[)>\]]?",
    re.IGNORECASE,
)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
WITH_COMMA = re.compile(NUMBER.pattern.replace(r"\.", ","), re.ASCII)
LARGEST = 1e150  # beyond it, or below its inverse, a value's square, and so its variance, does not fit float64
EXACT = 2**53  # from here on float64 skips whole numbers
MEANT_AS_NUMBER = re.compile(
    r"""[$€£¥]?\s?[+-]?
    ( inf(inity)? | \d{1,3}([ ,.']\d{3})+([.,]\d+)? | \d+(_\d+)+ | \d*,\d+ | 0x[\da-f]+
    | (\d+\.?\d*|\.\d+)([ed][+-]?\d+)? )
    \s?[%$€£¥]?""",
    re.VERBOSE | re.IGNORECASE,
)
GROUPED = re.compile(r"[+-]?\d{1,3}([,.'])\d{3}(\1\d{3})+", re.ASCII)  # twice or more: no decimal sign is
UNIT = re.compile(r"[%$€£¥\s]")
SAME = {0x2212: "-", 0x2019: "'"}  # a minus sign and an apostrophe, as ASCII has them


class TextCell(ValueError):
    """A cell that holds text; any other ValueError is about a number that is not written as one, or does not fit."""


class Spelling:
    """How a file spells its cells: its decimal sign, and what stands for a missing value besides ``MISSING``.

    A number among these does so however it is written.
    """

    def __init__(self, decimal: str = ".", missing_values: str | Sequence[str | float] | None = None) -> None:
        if decimal not in (".", ","):
            raise InputError(f"decimal={decimal!r}: '.' or ',' is expected")
        self.decimal, self.pattern = decimal, NUMBER if decimal == "." else WITH_COMMA
        given = [missing_values] if isinstance(missing_values, str | float) else missing_values or ()
        texts = [text if isinstance(text, str) else repr(text).replace(".", decimal) for text in given]
        texts = [unicodedata.normalize("NFC", text.strip(" \t")) for text in texts]
        self.missing_numbers = [as_float(text) for text in texts if self.pattern.fullmatch(text)]
        self.missing = (*MISSING, *(text for text in texts if not self.pattern.fullmatch(text)))

    def is_missing(self, text: str) -> bool:
        """Whether a text, without spaces around it, stands for a missing value."""
        if text in self.missing:
            return True
        return bool(self.missing_numbers and self.pattern.fullmatch(text)) and as_float(text) in self.missing_numbers

    def number(self, cell: str) -> float:
        """The number in a cell, NaN for a missing one; ValueError says why it is neither."""
        text = cell.strip(" \t")
        if self.is_missing(text):
            return math.nan
        if self.pattern.fullmatch(text):
            return _fitting(as_float(text), text.replace(",", "."))
        if len(text) < 100 and MEANT_AS_NUMBER.fullmatch(unicodedata.normalize("NFKC", text).translate(SAME)):
            if "inf" in text.lower():
                raise ValueError("is not finite")
            if UNIT.search(text):
                raise ValueError("has a unit or a space in it: write the number alone, without thousands separators")
            if GROUPED.fullmatch(text):
                plain = re.sub("[,.']", "", text)
                raise ValueError(f"has thousands separators: write {plain}, and take them out of the whole column")
            sign, other, mark = ("point", "comma", ",") if self.decimal == "." else ("comma", "point", ".")
            if mark in text:
                way = f"write it with a decimal {sign} only, or give --data.decimal {mark} if all are decimal {other}s"
                way = f"write {text.replace(mark, '')}" if text.rfind(self.decimal) > text.rfind(mark) else way
                raise ValueError(f"has a decimal {other} or a thousands separator: {way}")
            raise ValueError(f"is not written as a number: digits 0 to 9, a decimal {sign} and no unit are expected")
        raise TextCell("is not a number (a missing one is empty or NA)")

    def leave_out_missing(self, values: np.ndarray) -> np.ndarray:
        """The same numbers with NaN in the place of those that stand for a missing value."""
        return np.where(np.isin(values, self.missing_numbers), math.nan, values) if self.missing_numbers else values


def as_float(text: str) -> float:
    return float(text.replace(",", "."))


def _fitting(value: float, text: str) -> float:
    """The value, unless float64 cannot hold, or cannot square, what the text says."""
    underflow = value == 0 and text.lower().partition("e")[0].strip("+-0.")
    if underflow or not (value == 0 or 1 / LARGEST < abs(value) < LARGEST):
        raise ValueError(f"is not 0 and not between {1 / LARGEST:g} and {LARGEST:g} in size: float64 cannot square it")
    digits, _, fraction = text.lstrip("+-0").partition(".")
    if abs(value) >= EXACT and digits.isdecimal() and not fraction.strip("0") and int(digits) != abs(value):
        remedy = f"leave the column out if it is an identifier, or write {value:.15g}"
        raise ValueError(f"has more digits than float64 can hold; {remedy}")
    return value
