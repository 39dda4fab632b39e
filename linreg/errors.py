"""The two ways in which a run ends early; each is one message at the command line, never a traceback."""

import difflib
from collections.abc import Sequence


class InputError(ValueError):
    """The command, the config or the data is wrong, and the user can put it right (exit code 2)."""


class RunError(RuntimeError):
    """The run itself failed: it diverged, missed its check, or could not write (exit code 1)."""


def nearest(name: str, names: Sequence[str]) -> str:
    """The remedy for a misspelt name, to append to a message; empty if nothing is near."""
    close = [other for other in names if other and other.casefold() == name.casefold()]
    close = close or difflib.get_close_matches(name, [n for n in names if n], n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
