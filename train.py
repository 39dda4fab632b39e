"""Trains, measures and applies a linear regression; ``python train.py --help`` says how."""

import os
import signal
import sys
from types import FrameType

STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
received: list[int] = []


def leave(number: int, frame: FrameType | None) -> None:
    """Ends the program while it imports: nothing is open yet, and some module would swallow an exception."""
    os._exit(128 + number)


def stop(number: int, frame: FrameType | None) -> None:
    """Ends the program in good order, with the exit code that a shell expects of a stopped one."""
    if not received:  # once is enough; what is being cleaned up now should not be cut short
        received.append(number)
        raise SystemExit(128 + number)


def follow(number: int, frame: FrameType | None) -> None:
    """Leaves it to the first of several processes (``--devices N``) to stop: the others end with it."""


if __name__ == "__main__":
    is_first = os.environ.get("LOCAL_RANK", "0") == "0"
    for each in STOPS:
        signal.signal(each, leave if is_first else follow)  # importing takes seconds

    from linreg.main import main

    for each in STOPS:
        signal.signal(each, stop if is_first else follow)
    try:
        sys.exit(main(sys.argv[1:]))
    finally:
        for each in STOPS:
            signal.signal(each, signal.SIG_IGN)  # Python itself takes a moment to end
