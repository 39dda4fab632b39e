"""What a cell means: a number, a missing value, or neither, and then why."""

import math
import re
import unicodedata

MISSING = ("", "NA", "N/A", "NaN", "nan", "NULL", "null")  # what R, pandas, SQL and spreadsheets write for "no value"
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
LARGEST = 1e150  # beyond it, or below its inverse, a value's square, and so its variance, does not fit float64
EXACT = 2**53  # from here on float64 skips whole numbers
MEANT_AS_NUMBER = re.compile(
    r"""[$€£¥]?\s?[+-]?
    ( inf(inity)? | \d{1,3}([ ,.']\d{3})+([.,]\d+)? | \d+(_\d+)+ | \d*,\d+ | 0x[\da-f]+
    | (\d+\.?\d*|\.\d+)([ed][+-]?\d+)? )
    \s?[%$€£¥]?""",
    re.VERBOSE | re.IGNORECASE,
)
SAME = {0x2212: "-", 0x2019: "'"}  # a minus sign and an apostrophe, as ASCII has them


class TextCell(ValueError):
    """A cell that holds text; any other ValueError is about a number that is not written as one, or does not fit."""


def parse_number(cell: str) -> float:
    """The number in a cell, NaN for a missing one; ValueError says why it is neither."""
    text = cell.strip(" \t")
    if NUMBER.fullmatch(text):
        return _fitting(float(text), text)
    if text in MISSING:
        return math.nan
    if len(text) < 100 and MEANT_AS_NUMBER.fullmatch(unicodedata.normalize("NFKC", text).translate(SAME)):
        if "inf" in text.lower():
            raise ValueError("is not finite")
        if "," in text:
            raise ValueError("has a decimal comma or a thousands separator: write it with a decimal point only")
        raise ValueError("is not written as a number: digits 0 to 9, a decimal point and no unit are expected")
    raise TextCell("is not a number (a missing one is empty or NA)")


def _fitting(value: float, text: str) -> float:
    """The value, unless float64 cannot hold, or cannot square, what the text says."""
    underflow = value == 0 and text.lower().partition("e")[0].strip("+-0.")
    if underflow or not (value == 0 or 1 / LARGEST < abs(value) < LARGEST):
        raise ValueError(f"is not 0 and not between {1 / LARGEST:g} and {LARGEST:g} in size: float64 cannot square it")
    digits = text.lstrip("+-0")
    if abs(value) >= EXACT and digits.isdecimal() and int(digits) != abs(value):
        raise ValueError(
            f"has more digits than float64 can hold; leave the column out if it is an identifier, or write {value:.15g}"
        )
    return value
