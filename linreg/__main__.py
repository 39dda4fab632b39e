"""``python -m linreg``, which is ``python train.py`` wherever the package is installed; and what a signal does."""

import gc
import os
import signal
import sys
from types import FrameType

STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
NUMBERS = (  # which Lightning reads when it is imported
    *("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"),
    *("SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NNODES"),
)


def leave(number: int, frame: FrameType | None) -> None:
    """Ends the program while it imports: nothing is open yet, and some module would swallow an exception."""
    os._exit(128 + number)


if __name__ == "__main__":
    for each in STOPS:
        signal.signal(each, leave)
    for name in NUMBERS:
        if not os.environ.get(name, "0").isdecimal():
            print(f"error: {name}={os.environ[name]!r}: a number is expected; unset it", file=sys.stderr)
            sys.exit(2)

    gc.disable()  # what is imported stays: looking through it for garbage, here and at the exit, takes 1 s of 3
    from linreg.command.main import main
    from linreg.processes.ends import stop

    gc.freeze()
    gc.enable()
    for each in STOPS:
        signal.signal(each, stop)
    try:
        sys.exit(main(sys.argv[1:]))
    finally:
        for each in STOPS:
            signal.signal(each, signal.SIG_IGN)  # Python itself takes a moment to end
