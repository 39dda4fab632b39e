"""What a cell means: a number, a missing value, or neither, and then why; and whether float32 can hold it."""

import math
import re
import unicodedata

import numpy as np

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
SAMPLE = 128  # rows of each block that tell how finely its columns are divided
ENOUGH = 64  # rows, from which on a spread means something
LOST = 2e-7  # of a column's standard deviation: what rounding to float32 may cost (a z-score costs a tenth of it)
BLURRED = 1e-2  # of the distance of two neighbours in a sample: what it may cost 19 pairs of 20
SMALLEST = np.finfo(np.float32).tiny  # below, digits are lost
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


class Precision:
    """Whether float32 holds the blocks of a table: the range of each value, and the digits of a sample of rows."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng(0)  # rows at regular distances may be all of one kind
        self.waiting: list[np.ndarray] = []  # rows, too few for a spread
        self.across: list[np.ndarray] = []  # some rows of each sample, for what differs from block to block only

    def is_lost(self, block: np.ndarray, single: np.ndarray) -> bool:
        size = np.abs(single)
        plain = len(size) and size.min() >= SMALLEST and size.max() < np.inf  # the rule, and quick; not so with a NaN
        if not plain and ((size == np.inf).any() or (size < SMALLEST).sum() != (block == 0).sum()):
            return True
        sample = block[self.generator.integers(len(block), size=SAMPLE)] if len(block) > SAMPLE else block
        if np.isnan(sample).any():
            missing = np.isnan(block)
            whole = np.flatnonzero(~(missing & ~missing.all(axis=0)).any(axis=1))  # the others will be dropped
            sample = block[self.generator.choice(whole, SAMPLE) if len(whole) > SAMPLE else whole]
        self.waiting.append(sample)
        if sum(map(len, self.waiting)) < ENOUGH:
            return False
        sample, self.waiting = np.concatenate(self.waiting), []
        self.across.append(sample[:8].copy())
        if len(self.across) == SAMPLE:
            del self.across[::2]
        return _is_blurred(sample)

    def is_lost_at_last(self) -> bool:
        rows = np.concatenate(self.across + self.waiting)
        return (len(rows) >= ENOUGH or not self.across) and _is_blurred(rows)


def _is_blurred(rows: np.ndarray) -> bool:
    """Whether rounding to float32 costs a column too much of its spread, or merges what lies in a narrow part of it."""
    x = np.sort(rows.T, axis=1)  # NaN, where a column is left out, comes last
    error = np.abs(x - x.astype(np.float32))
    spread = x - (np.nansum(x, axis=1) / np.maximum((~np.isnan(x)).sum(axis=1), 1))[:, None]
    coarse = np.nansum(error**2, axis=1) > LOST**2 * np.nansum(spread**2, axis=1)
    gaps = np.diff(x, axis=1)
    apart = gaps > 0
    merged = apart & (np.maximum(error[:, 1:], error[:, :-1]) > BLURRED * gaps)
    return bool((apart.any(axis=1) & (coarse | (20 * merged.sum(axis=1) > apart.sum(axis=1)))).any())
