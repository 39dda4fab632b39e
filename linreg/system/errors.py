"""The two ways in which a run ends early, each one message at the command line; and whose fault an error is."""

import difflib
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from linreg.system.messages import OF_A_PROCESS, REMEDIES, TRIED_TYPES

LIBRARIES = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
LIBRARIES += (str(Path(__file__).parents[1]), "<")  # how the names begin of files that are not a user's


class InputError(ValueError):
    """The command, the config or the data is wrong, and the user can put it right (exit code 2)."""


class RunError(RuntimeError):
    """The run itself failed: it diverged, missed its check, or could not write (exit code 1)."""


def did_you_mean(name: str, names: Sequence[str]) -> str:
    """The remedy for a misspelt name, to append to a message; empty if nothing is near."""
    close = [other for other in names if other and other.casefold() == name.casefold()]
    close = close or difflib.get_close_matches(name, [n for n in names if n], n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def printable(text: str) -> str:
    """Text that no terminal takes for a command: characters that have no shape are spelled out, but for line ends."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def one_line(error: BaseException) -> str:
    """An error's kind and its message, of at most 300 characters, on one line: of a traceback, what it ends with."""
    said = str(error).strip().splitlines()[-1:] if OF_A_PROCESS in str(error) else str(error).splitlines()
    lines = (line.strip().removeprefix("- ") for line in said)
    text = " ".join(" ".join(line for line in lines if not line.startswith(TRIED_TYPES)).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def find_own(error: BaseException | None) -> InputError | RunError | None:
    """The InputError or RunError behind an error, if any: jsonargparse wraps those of a constructor in its own."""
    while error is not None and not isinstance(error, InputError | RunError):
        error = error.__cause__ or error.__context__
    return error


def raised_in(error: BaseException) -> list[str]:
    """The files that an error has come through, from where it was caught to where it was raised."""
    return [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]


def is_in_own_code(error: BaseException) -> bool:
    """Whether an error has come through code of the user's own, who needs its traceback."""
    return not all(file.startswith((*LIBRARIES, sys.argv[0])) for file in raised_in(error))


@contextmanager
def with_remedies() -> Iterator[None]:
    """Where a model is at work: an InputError in the place of a library's error whose remedy is known."""
    try:
        yield
    except Exception as error:
        for words, remedy in REMEDIES.items():
            if words in str(error):
                said = one_line(error).removeprefix("MisconfigurationException: ").rstrip("!")
                raise InputError(f"{said}: {remedy}") from error
        raise


@contextmanager
def given(what: str) -> Iterator[None]:
    """Where what a user gave is turned into what runs: whatever fails there is the user's to put right.

    Args:
        what: what was given, to begin the message with.

    Raises:
        InputError: for any error but those that have a message of their own, or a place in the user's own code.
    """
    try:
        yield
    except (InputError, RunError, OSError):
        raise
    except Exception as error:
        if own := find_own(error):
            raise own from None
        if is_in_own_code(error):
            raise
        raise InputError(f"{what}: {one_line(error)}") from error
