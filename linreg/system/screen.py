"""What a run prints, on any terminal or none."""

import io
import logging
import os
import shutil
import sys
import textwrap
import warnings

from linreg.system.errors import printable
from linreg.system.messages import OF_NO_USE

ASKED_FOR = ("profilers.profiler", "callbacks.model_summary", "callbacks.early_stopping")  # and told as notes

shown = 0  # characters of the status line


def open_streams() -> None:
    """Lets a closed standard stream lead to nowhere, and spells out what a stream's encoding cannot hold."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  (for as long as the program runs)
        if mode == "w" and isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def hide_notes() -> None:
    """Hides Lightning's notes, among them advertisements, but for what was asked for, and a level of one's own."""
    for logger in map(logging.getLogger, ("lightning.pytorch", "lightning.fabric")):
        if logger.level == logging.INFO:  # as Lightning has set it
            logger.setLevel(logging.WARNING)
    for name in ASKED_FOR:
        logging.getLogger(f"lightning.pytorch.{name}").setLevel(logging.INFO)
    for message in OF_NO_USE:
        warnings.filterwarnings("ignore", message)


def say(text: str, is_first: bool = True) -> None:
    """Prints to standard output, in the first of several processes; a column's name cannot move the cursor."""
    if is_first:
        hide_status()
        print(printable(text), flush=True)


def complain(text: str) -> None:
    """Prints a line to standard error."""
    hide_status()
    print(printable(text.replace("\n", " ")), file=sys.stderr, flush=True)


def show_status(text: str) -> None:
    """Draws a status line, whose place the next one takes, or whatever is printed."""
    global shown
    text = printable(text)[: shutil.get_terminal_size().columns - 1]
    print(f"\r{text.ljust(shown)}", end="\r", flush=True)  # the cursor waits at its beginning
    shown = len(text)


def hide_status() -> None:
    """Takes the status line away, if there is one."""
    global shown
    if shown:
        print(f"\r{' ' * shown}", end="\r", flush=True)
        shown = 0


def wrapped(text: str) -> str:
    """A paragraph in 80 columns, its later lines below the text of the first."""
    return textwrap.fill(text, 80, subsequent_indent=" " * 8, break_long_words=False, break_on_hyphens=False)


def counted(number: int, what: str) -> str:
    """A number of things: "1 epoch", "2,000 epochs"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def told_from(value: float, other: float, digits: int) -> str:
    """A number in so many digits, or in more where it would look like another: 99.97 is not 100."""
    texts = (f"{value:.{n}g}" for n in range(digits, 18))
    return next((text for text in texts if float(text) != other), f"{value:g}")


def as_text(name: str) -> str:
    """A column name that no spreadsheet takes for a formula."""
    return f"'{name}" if name[:1] in ("=", "+", "-", "@", "\t", "\r") else name
