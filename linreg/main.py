"""From a command line to an exit code: quiet libraries, and one line for each thing that can go wrong."""

import logging
import os
import sys
import threading
import warnings

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from linreg.cli import RegressionCLI
from linreg.errors import InputError, RunError


def the_users(error: BaseException | None) -> InputError | None:
    """The InputError behind an error, if any: jsonargparse wraps those of a constructor in its own."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__ or error.__context__
    return error


def quiet(thread: threading.ExceptHookArgs) -> None:
    """Prints what ended a thread, unless it is a file that could not be written."""
    if not issubclass(thread.exc_type, OSError):
        threading.__excepthook__(thread)


def main(typed: list[str]) -> int:
    """Runs a command line and returns its exit code: 0 done, 1 the run failed, 2 wrong input, 128 + N signal N."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)  # small models gain nothing from more, and a busy neighbour makes them 20 times slower
    for name in ("lightning.pytorch", "lightning.fabric"):  # the notes of a library, among them advertisements
        logging.getLogger(name).setLevel(logging.WARNING)
    # Lightning 2.6.6 itself trips over this one with torch 2.13.
    warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
    # A resumed run goes on in its own folder, which holds its checkpoints.
    warnings.filterwarnings("ignore", r"Checkpoint directory .* exists and is not empty")
    threading.excepthook = quiet  # TensorBoard's writer passes its error on to the run, which says it in a line
    try:
        RegressionCLI(typed)
    except (ValueError, MisconfigurationException) as error:
        mistake = error if isinstance(error, MisconfigurationException) else the_users(error)
        if mistake is None:
            raise
        remedy = "; leave out --accelerator, or give cpu" if "backend found" in str(mistake) else ""
        if rank_zero_only.rank == 0:  # the others find the same
            print(f"error: {mistake}{remedy}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `| head` has seen enough
        sys.stdout = None
        return 141
    except OSError as error:
        print(f"error: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        return 1
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
