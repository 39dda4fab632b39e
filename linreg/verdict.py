"""What a check of the doctor says, and from where on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ILL_CONDITIONED, REPEATED = 30, 10  # a condition number, and a variance inflation factor, above which a word is due


class CannotTell(Exception):
    """A check has nothing to go by: it is skipped, and the message is the reason."""


@dataclass(frozen=True)
class Verdict:
    """The status of a check, "ok", "FAIL" or "skip", and what was found, with the remedy of a failure."""

    status: str
    text: str


Check = Callable[[Any], Verdict]


def judge(is_right: bool, found: str, expected: str, remedy: str) -> Verdict:
    """A verdict; what was expected, and the remedy, are said of a failure only."""
    return Verdict("ok", found) if is_right else Verdict("FAIL", f"{found}; expected: {expected}; {remedy}")
