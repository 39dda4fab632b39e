"""Trains, measures and applies a linear regression; ``python train.py --help`` says how."""

import signal
import sys
from types import FrameType

STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def stop(number: int, frame: FrameType | None) -> None:
    """Ends the program in good order, with the exit code that a shell expects of a stopped one."""
    for each in STOPS:
        signal.signal(each, signal.SIG_IGN)  # once is enough; what is being cleaned up now should not be cut short
    raise SystemExit(128 + number)


if __name__ == "__main__":
    for each in STOPS:
        signal.signal(each, stop)  # before the imports, which take seconds

    from linreg.main import main

    sys.exit(main(sys.argv[1:]))
