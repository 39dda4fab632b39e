"""Signals that ask a run to end: at once, or between two batches while a callback looks at them."""

import os
import sys
from types import FrameType

PROCESS = os.getpid()
received: list[int] = []  # the first of which decides the exit code
between_batches = False  # whether a callback is about to look at them
leaving = False


def stop(number: int, frame: FrameType | None) -> None:
    """A signal handler: ends a training at its next batch, or at once if asked twice; all else at once.

    An exception that is raised between any two instructions can be lost in a library, with a traceback on screen.
    """
    if os.getpid() != PROCESS:
        return  # a worker of a DataLoader, which its parent ends
    received.append(number)
    sys.unraisablehook = lambda _: None  # whatever else breaks now is no news
    if not between_batches or len(received) > 1:
        leave()


def leave() -> None:
    """Raises SystemExit, once, with the exit code that a shell expects of a stopped program."""
    global leaving
    if not leaving:
        leaving = True
        raise SystemExit(128 + received[0])
