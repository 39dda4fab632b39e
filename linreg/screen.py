"""What a run prints, on any terminal or none."""

import io
import os
import sys

from linreg.errors import printable


def open_streams() -> None:
    """Lets a closed standard stream lead to nowhere, and spells out what a stream's encoding cannot hold."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  (for as long as the program runs)
        if mode == "w" and isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str, is_first: bool = True) -> None:
    """Prints to standard output, in the first of several processes; a column's name cannot move the cursor."""
    if is_first:
        print(printable(text), flush=True)


def complain(text: str) -> None:
    """Prints a line to standard error."""
    print(printable(text.replace("\n", " ")), file=sys.stderr, flush=True)


def as_text(name: str) -> str:
    """A column name that no spreadsheet takes for a formula."""
    return f"'{name}" if name[:1] in ("=", "+", "-", "@", "\t", "\r") else name
